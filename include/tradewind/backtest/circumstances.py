"""What a decision of the replay sees beside the bars: permission, portfolio, correlations, the model's age."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from tradewind.core.inputs import CycleInputs, SymbolInputs, pair_key
from tradewind.core.market_numbers import return_correlation
from tradewind.core.params import StrategyParams
from tradewind.core.resampling import BASE_MS
from tradewind.core.risk import exposure_of, sizing_equity
from tradewind.core.types import ClosedTrade, Permission, Portfolio, Position, Side, TradingMode

from .marks import Marks
from .settings import ReplaySettings
from .signals import SymbolSeries, moment

QUALITY = "data quality"  # the name of a missing verdict on the bars
TRADES_WINDOW = timedelta(days=30)  # as far back as live looks for losses and cooldowns


class Correlations(Mapping[str, float]):
    """Correlations at one bar, computed when a filter asks: a pair that cannot be known is absent."""

    def __init__(self, series: Mapping[str, SymbolSeries], end_ms: int, window_bars: int) -> None:
        self._series, self._end_ms, self._window = series, end_ms, window_bars
        self._known: dict[str, float | None] = {}

    def __getitem__(self, key: str) -> float:
        if key not in self._known:
            a, b = key.split("|")
            self._known[key] = return_correlation(
                self._series[a].bars, self._series[b].bars, self._end_ms, self._window
            )
        value = self._known[key]
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        symbols = sorted(self._series)
        return (pair_key(a, b) for i, a in enumerate(symbols) for b in symbols[i + 1 :])

    def __len__(self) -> int:
        return len(self._series) * (len(self._series) - 1) // 2


class Circumstances:
    """The replay's own, or those that were recorded of a live run."""

    def __init__(
        self,
        series: Mapping[str, SymbolSeries],
        params: StrategyParams,
        settings: ReplaySettings,
        sides: tuple[Side, ...],
        marks: Marks,
        recent: deque[ClosedTrade],
    ) -> None:
        self.series, self.params, self.settings, self.sides, self.marks = series, params, settings, sides, marks
        self.recent = recent
        self._sentiment_max_age = timedelta(seconds=params.sentiment_max_age_s)
        self._delay = timedelta(seconds=settings.decision_delay_s)

    def inputs(
        self,
        bar_ms: int,
        symbols: Sequence[tuple[str, int]],
        positions: Iterable[Position],
        cash_quote: Decimal,
        free_quote: Decimal,
    ) -> CycleInputs:
        """What a live cycle would have known of these symbols (each with its row) at the close of a bar."""
        recorded = self.settings.recorded[bar_ms] if self.settings.recorded is not None else None
        now = moment(bar_ms + BASE_MS) + self._delay if recorded is None else recorded.now
        symbol_inputs = tuple(self.series[symbol].inputs_at(row, self._sentiment_max_age) for symbol, row in symbols)
        if recorded is not None:
            symbol_inputs = _judged_as(symbol_inputs, recorded)
        return CycleInputs(
            account=self.settings.account,
            bar=moment(bar_ms),
            now=now,
            params=self.params,
            permission=self._permission(now) if recorded is None else recorded.permission,
            portfolio=self._portfolio(now, positions, cash_quote, free_quote),
            symbols=symbol_inputs,
            correlations=Correlations(self.series, bar_ms + BASE_MS, self.params.correlation_window_bars),
            model_trained_until=self.settings.trained_until(bar_ms)
            if recorded is None
            else recorded.model_trained_until,
            losses_lifted_at=None if recorded is None else recorded.losses_lifted_at,
            allowed_sides=self.sides,
        )

    def _permission(self, now: datetime) -> Permission:
        halted = bool(self.marks.halted_until_ms)
        return Permission(
            allowed=not halted,
            reasons=(f"breaker: {self.marks.halt_reason}",) if halted else (),
            mode=TradingMode.HALTED if halted else TradingMode.ACTIVE,
            checked_at=now,
        )

    def _portfolio(
        self, now: datetime, positions: Iterable[Position], cash_quote: Decimal, free_quote: Decimal
    ) -> Portfolio:
        spendable = self.marks.last if Side.SHORT in self.sides else self.settings.capital_quote + cash_quote
        return Portfolio(
            account=self.settings.account,
            equity_quote=sizing_equity(self.marks.last, self.settings.max_capital_quote),
            free_quote=max(min(spendable, free_quote), Decimal(0)),
            day_open_equity_quote=self.marks.day_open,
            peak_equity_quote=self.marks.peak,
            exposures=tuple(exposure_of(position, self.params) for position in positions),
            recent_trades=self._recent(now),
            as_of=now,
        )

    def _recent(self, now: datetime) -> tuple[ClosedTrade, ...]:
        """What was closed in the window; what has left it is forgotten, since time only goes on."""
        while self.recent and now - self.recent[0].closed_at > TRADES_WINDOW:
            self.recent.popleft()
        return tuple(self.recent)


def _judged_as(symbols: Sequence[SymbolInputs], recorded: CycleInputs) -> tuple[SymbolInputs, ...]:
    """The inputs with what live's own checks had said of the bars by then: that is no property of the bars."""
    known = {s.symbol: s for s in recorded.symbols}
    return tuple(
        replace(
            s,
            quality=known[s.symbol].quality,
            missing=tuple(name for name in known[s.symbol].missing if name == QUALITY),
        )
        for s in symbols
    )
