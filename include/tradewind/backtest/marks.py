"""The account's worth in the course of a replay: marks, the day's opening, the peak, the breaker's pause.

Whatever a rule is tested against is exact (`Decimal`); the marks between two events only draw the curve, and are
floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from tradewind.core.params import StrategyParams
from tradewind.core.risk import Breach, breached
from tradewind.core.types import FloatArray, IntArray

from .results import EquityCurve

DAY_MS = 86_400_000
_NEAR = 1e-9  # floats this near to a limit are left to the exact test


@dataclass(slots=True)
class Marks:
    """What equity was, and whether the breaker has stopped the day."""

    capital_quote: Decimal
    params: StrategyParams
    last: Decimal = field(init=False)
    peak: Decimal = field(init=False)
    day_open: Decimal = field(init=False)
    day: int = -1
    halted_until_ms: int = 0
    halt_reason: str = ""
    breaches: list[tuple[int, Breach]] = field(default_factory=list)
    _times: list[IntArray] = field(default_factory=list)
    _values: list[FloatArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last = self.peak = self.day_open = self.capital_quote

    def mark(self, at_ms: int, equity: Decimal, *, drawn: bool) -> bool:
        """An exact mark; True when it breaches a limit for the first time since the last pause."""
        self.last = equity
        if self.halted_until_ms and at_ms >= self.halted_until_ms:
            self.halted_until_ms, self.halt_reason = 0, ""
            self.peak = equity
        day = at_ms // DAY_MS
        if day != self.day and not drawn:
            self.day, self.day_open = day, equity
        self.peak = max(self.peak, equity)
        if drawn:
            self.draw(np.array([at_ms]), np.array([float(equity)]))
        if self.halted_until_ms:
            return False
        breach = breached(equity, self.day_open, self.peak, self.params)
        if breach is None:
            return False
        self.breaches.append((at_ms, breach))
        self.halted_until_ms = (at_ms // DAY_MS + 1) * DAY_MS
        self.halt_reason = breach.reason
        return True

    def first_near_breach(self, worth: FloatArray) -> int:
        """Index of the first of these marks that may breach a limit, their number when none can."""
        peaks = np.maximum(np.maximum.accumulate(worth), float(self.peak))
        day_open = float(self.day_open)
        near = (worth - day_open <= (-self.params.max_daily_loss_frac + _NEAR) * day_open) | (
            worth - peaks <= (-self.params.max_drawdown_frac + _NEAR) * peaks
        )
        return int(np.argmax(near)) if near.any() and not self.halted_until_ms else len(worth)

    def draw(self, at_ms: IntArray, worth: FloatArray) -> None:
        """Add marks to the curve."""
        self._times.append(at_ms)
        self._values.append(worth)

    def curve(self, start_ms: int) -> EquityCurve:
        """Every mark, the capital at `start_ms` first."""
        times = np.concatenate([np.array([start_ms]), *self._times]).astype(np.int64)
        return EquityCurve(times, np.concatenate([np.array([float(self.capital_quote)]), *self._values]))
