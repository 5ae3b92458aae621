"""Funding in a replay of futures: who holds at 00:00, 08:00 and 16:00 UTC pays or receives, as at the exchange.

The engine settles it with the paper exchange's own function, at the open of the bar that begins at such a moment,
before anything else happens there. The paper market's rates are a function of its prices, so that they are known of any
moment; for another market one rate is assumed, and said to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from tradewind.core.futures import FUNDING_INTERVAL_MS, RATE_UNITS, rate_of_move
from tradewind.core.futures_engine import FuturesEngine
from tradewind.core.resampling import BASE_MS
from tradewind.core.types import IntArray

from .signals import SymbolSeries
from .ticks import TickColumns
from .timeline import Timeline

NOT_SETTLED: Final = "funding is not settled, since past rates are not among the data"


@dataclass(frozen=True, slots=True)
class FundingRates:
    """By symbol the rate of each funding moment (ms), and in words where they come from."""

    words: str
    rates: Mapping[str, Mapping[int, Decimal]]


@dataclass(frozen=True, slots=True)
class FundingPaid:
    """One settlement: what the account received (negative: paid) for what it held of a symbol."""

    symbol: str
    at_ms: int
    rate: Decimal
    amount_quote: Decimal


def market_rates(series: Mapping[str, SymbolSeries]) -> FundingRates:
    """The paper market's rates: each known from the prices at its moment and eight hours before."""
    found = {symbol: _rates_of(s) for symbol, s in series.items()}
    return FundingRates("at the paper market's own rates", found)


def assumed_rates(series: Mapping[str, SymbolSeries], rate: Decimal) -> FundingRates:
    """One rate at every moment of every symbol."""
    found = {
        symbol: dict.fromkeys((int(at) for at in _moments(s.bars.open_time_ms)), rate) for symbol, s in series.items()
    }
    return FundingRates(f"at an assumed rate of {rate:%} an interval", found)


def _moments(open_time_ms: IntArray) -> IntArray:
    found: IntArray = open_time_ms[open_time_ms % FUNDING_INTERVAL_MS == 0]
    return found


def _rates_of(series: SymbolSeries) -> dict[int, Decimal]:
    times = _moments(series.bars.open_time_ms)
    rows = np.searchsorted(series.bars.open_time_ms, times)
    tick = float(series.instrument.tick_size)
    opens = np.rint(series.bars.open[rows] / tick).astype(np.int64).tolist()
    price_at = dict(zip(times.tolist(), opens, strict=True))
    return {at: rate_of_move(price_at.get(at - FUNDING_INTERVAL_MS), price) for at, price in price_at.items()}


class Funding:
    """Settles what is due at the closes of bars."""

    def __init__(self, known: FundingRates, timeline: Timeline, ticks: Mapping[str, TickColumns]) -> None:
        self._known, self._timeline, self._ticks = known, timeline, ticks
        self.paid: list[FundingPaid] = []
        for symbol in known.rates:
            timeline.stop_at(symbol, np.flatnonzero((timeline.times + BASE_MS) % FUNDING_INTERVAL_MS == 0))

    def settle(self, engine: FuturesEngine, index: int) -> Decimal:
        """What the engine's account receives (negative: pays) as the bar at an index has closed, insurance added."""
        at_ms = int(self._timeline.times[index]) + BASE_MS
        if at_ms % FUNDING_INTERVAL_MS:
            return Decimal(0)
        total = Decimal(0)
        for symbol in engine.symbols_with_orders():
            row, rate = self._timeline.next_row(symbol, index), self._known.rates[symbol].get(at_ms)
            if row < 0 or rate is None:
                continue
            before = len(engine.incomes)
            engine.settle_funding(symbol, int(self._ticks[symbol].open[row]), int(rate * RATE_UNITS), at_ms)
            received = engine.amount(sum(income.amount_atoms for income in engine.incomes[before:]))
            if len(engine.incomes) > before:
                self.paid.append(FundingPaid(symbol, at_ms, rate, received))
            total += received
        return total
