"""The account's worth in the course of a replay: marks, the day's opening, the peak, the breaker's pause.

Whatever a rule is tested against is exact (`Decimal`); the marks between two events only draw the curve, and are
floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from tradewind.core.params import StrategyParams
from tradewind.core.resampling import BASE_MS
from tradewind.core.risk import Breach, breached
from tradewind.core.types import FloatArray, IntArray

from .results import EquityCurve
from .skipping import DAY_MS, look_through


@dataclass(slots=True)
class Marks:
    """What equity was at the moments of `times`, and whether the breaker has stopped the day."""

    capital_quote: Decimal
    params: StrategyParams
    times: IntArray
    last: Decimal = field(init=False)
    peak: Decimal = field(init=False)
    day_open: Decimal = field(init=False)
    day: int = -1
    halted_until_ms: int = 0
    halt_reason: str = ""
    breaches: list[tuple[int, Breach]] = field(default_factory=list)
    _drawn: FloatArray = field(init=False)  # at each close; NaN where nothing was held

    def __post_init__(self) -> None:
        self.last = self.peak = self.day_open = self.capital_quote
        self._drawn = np.full(len(self.times), np.nan)

    def mark(self, at_ms: int, equity: Decimal, drawn_at: int = -1) -> bool:
        """An exact mark; True when it breaches a limit for the first time since the last pause.

        `drawn_at` is the index of the bar whose close it is; without one it is the mark of an open.
        """
        self.last = equity
        if self.halted_until_ms and at_ms >= self.halted_until_ms:
            self.halted_until_ms, self.halt_reason = 0, ""
            self.peak = equity
        if drawn_at >= 0:
            self._drawn[drawn_at] = float(equity)
        elif at_ms // DAY_MS != self.day:
            self._begin_day(at_ms, equity)
        self.peak = max(self.peak, equity)
        if self.halted_until_ms:
            return False
        breach = breached(equity, self.day_open, self.peak, self.params)
        if breach is None:
            return False
        self.breaches.append((at_ms, breach))
        self.halted_until_ms = (at_ms // DAY_MS + 1) * DAY_MS
        self.halt_reason = breach.reason
        return True

    def quiet_bars(self, worth: FloatArray, first: int) -> tuple[int, float, int]:
        """`look_through` the marks of the bars from index `first` on, against the limits as they stand."""
        found: tuple[int, float, int] = look_through(
            worth, int(self.times[first]), self.day, float(self.day_open), float(self.peak),
            self.params.max_daily_loss_frac, self.params.max_drawdown_frac,
        )  # fmt: skip
        return found

    def begin_day(self, index: int, equity: Decimal) -> None:
        """The open after the bar at an index is a day's first."""
        self._begin_day(int(self.times[index]) + BASE_MS, equity)

    def _begin_day(self, at_ms: int, equity: Decimal) -> None:
        self.day, self.day_open = at_ms // DAY_MS, equity

    def draw(self, first: int, worth: FloatArray) -> None:
        """Add marks at the closes from an index on to the curve."""
        self._drawn[first : first + len(worth)] = worth

    def copy_drawn(self, curve: FloatArray, first: int, end: int) -> None:
        """Write the marks at the closes [first, end) into the same places of another curve."""
        curve[first:end] = self._drawn[first:end]

    def curve(self) -> EquityCurve:
        """Every mark, the capital at the first moment before them."""
        known = np.isfinite(self._drawn)
        times = np.concatenate((self.times[:1], self.times[known] + BASE_MS))
        return EquityCurve(times, np.concatenate(([float(self.capital_quote)], self._drawn[known])))
