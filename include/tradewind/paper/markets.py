"""What a market is to the paper exchange: base bars in ticks and lots for any range of time, on request.

Every other timeframe is an aggregation of the base bars, so all of them agree. A market knows no clock: it answers for
any time, past or future; the exchange shows only what has happened by the market's clock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import numpy as np

from tradewind.core.matching_rules import SymbolRules
from tradewind.core.types import IntArray
from tradewind.errors import BadSetting

MINUTE_MS = 60_000
DAY_MS = 86_400_000
TRADES_PER_BASE_BAR = 12
"""Every base bar prints this many public trades, so that trade ids follow from time alone."""


@dataclass(frozen=True, slots=True, eq=False)
class TickBars:
    """Bars as int64 columns of equal length, ascending: prices in ticks, volumes in lots, open times in epoch ms."""

    open_ms: IntArray
    open: IntArray
    high: IntArray
    low: IntArray
    close: IntArray
    volume: IntArray
    taker_buy: IntArray

    def __len__(self) -> int:
        return len(self.open_ms)

    def slice(self, start: int, stop: int) -> TickBars:
        return TickBars(*(column[start:stop] for column in self.columns()))

    def between(self, start_ms: int, end_ms: int) -> TickBars:
        """The bars that open in [start_ms, end_ms)."""
        first, last = np.searchsorted(self.open_ms, [start_ms, end_ms])
        return self.slice(int(first), int(last))

    def columns(self) -> tuple[IntArray, ...]:
        return (self.open_ms, self.open, self.high, self.low, self.close, self.volume, self.taker_buy)


def empty_bars() -> TickBars:
    none = np.empty(0, np.int64)
    return TickBars(none, none, none, none, none, none, none)


def join_bars(parts: Iterable[TickBars]) -> TickBars:
    """One run of bars from several, in the order given."""
    kept = [p for p in parts if len(p)]
    if len(kept) == 1:
        return kept[0]
    if not kept:
        return empty_bars()
    return TickBars(*(np.concatenate(columns) for columns in zip(*(p.columns() for p in kept), strict=True)))


class Market(Protocol):
    """A source of prices. `identity` names the market, its seed and settings: no state is shared between two."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def base_ms(self) -> int: ...

    @property
    def rules(self) -> dict[str, SymbolRules]: ...

    def first_ms(self, symbol: str) -> int:
        """Open time of the first bar of the symbol."""

    def bars(self, symbol: str, start_ms: int, end_ms: int) -> TickBars:
        """Base bars that open in [start_ms, end_ms). A missing bar (an outage) is absent."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A symbol as a market lists it: where its price starts, what its units are, how much of it is traded."""

    rules: SymbolRules
    anchor_price: float
    daily_volume_quote: float


_KNOWN = {
    "BTC": (60_000.0, "0.01", "0.00001", 1.2e9),
    "ETH": (3_000.0, "0.01", "0.0001", 8e8),
    "SOL": (150.0, "0.01", "0.001", 4e8),
    "BNB": (600.0, "0.01", "0.001", 2e8),
    "XRP": (2.0, "0.0001", "0.1", 3e8),
}


def listing(symbol: str, anchor_price: float | None = None) -> Listing:
    """The listing of a market written BASE/QUOTE. An unknown base gets units that suit its price, always the same ones.

    Raises BadSetting when the symbol is not written BASE/QUOTE.
    """
    base, slash, quote = symbol.upper().partition("/")
    if not slash or not base.isalnum() or not quote.isalnum():
        raise BadSetting("TRADEWIND_SYMBOLS", f"{symbol!r} is not a market", "TRADEWIND_SYMBOLS=BTC/USDT,ETH/USDT")
    if base in _KNOWN:
        anchor, tick, step, volume = _KNOWN[base]
    else:
        digest = hashlib.sha256(base.encode()).digest()
        anchor = anchor_price or float(f"{10 ** (digest[0] / 256 * 4 - 1):.3g}")
        decimals = min(7, max(1, 4 - math.floor(math.log10(anchor))))  # about five digits of price
        tick, step, volume = f"{10.0**-decimals:.{decimals}f}", "0.1" if anchor < 10 else "0.001", 1e8
    anchor = anchor_price or anchor
    lot = Decimal(step)
    max_lots = int(Decimal(9_000_000) * 4 / Decimal(str(anchor)) / lot)
    rules = SymbolRules(
        base + quote, base, quote, Decimal(tick), lot, max_lots=max_lots, max_market_lots=max_lots // 10
    )
    return Listing(rules, anchor, volume)
