"""A market whose prices are the real exchange's: seen from time to time, never computed.

What was seen is kept as observations: the last price, how far the price went since the one before, the best prices and
the volume. The engine meets orders with observations alone. Between two of them nothing is known, so nothing happens;
when they stop coming the market is closed (see `public_feed`) and what it once knew is not served as if it were now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from tradewind.core.matching_rules import SymbolRules
from tradewind.core.types import IntArray
from tradewind.paper.market_view import MarketView
from tradewind.paper.markets import MINUTE_MS, TickBars, empty_bars, listing

_KEPT = 7200
"""Observations kept for each symbol: two hours at one a second, far more than lies between two walks."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The market at `time_ms` in ticks and lots, and what it did since the observation before.

    `first` is where it stood then, `low` and `high` how far it went. After a closed market all of them are `last`: what
    happened meanwhile happened without us.
    """

    time_ms: int
    first: int
    last: int
    low: int
    high: int
    half_spread: int
    minute_volume: int
    average: int


class PublicMarket:
    """The listings of a real exchange. Until its rules are known they are stand-ins, and no order is accepted."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self._rules = {x.rules.symbol: x.rules for x in (listing(s) for s in symbols)}

    @property
    def name(self) -> str:
        return "public"

    @property
    def identity(self) -> str:
        return "public binance spot"

    @property
    def base_ms(self) -> int:
        return MINUTE_MS

    @property
    def rules(self) -> dict[str, SymbolRules]:
        return self._rules

    def first_ms(self, symbol: str) -> int:
        return 0

    def bars(self, symbol: str, start_ms: int, end_ms: int) -> TickBars:
        """None: candles come from the exchange itself, and the engine is given observations."""
        return empty_bars()


class PublicView(MarketView):
    """The view of observations. `add` feeds it; every read is of what has been seen."""

    def __init__(self, market: PublicMarket) -> None:
        super().__init__(market)
        self._seen: dict[str, deque[Observation]] = {}

    def add(self, symbol: str, seen: Observation) -> None:
        self._seen.setdefault(symbol, deque(maxlen=_KEPT)).append(seen)

    def newest(self, symbol: str) -> Observation | None:
        seen = self._seen.get(symbol)
        return seen[-1] if seen else None

    def price(self, symbol: str, now_ms: int) -> int | None:
        newest = self.newest(symbol)
        return newest.last if newest is not None else None

    def liquidity(self, symbol: str, now_ms: int) -> tuple[int, int]:
        newest = self.newest(symbol)
        return (newest.minute_volume, newest.average) if newest is not None else (1, 1)

    def reach(self, symbol: str, start_ms: int, end_ms: int) -> tuple[int, int] | None:
        found = self._between(symbol, start_ms, end_ms)
        return (min(x.low for x in found), max(x.high for x in found)) if found else None

    def segments(self, symbol: str, start_ms: int, end_ms: int) -> tuple[TickBars, list[int]]:
        """The observations in (start, end] as bars, each from the price before to its own."""
        found = self._between(symbol, start_ms, end_ms)
        if not found:
            return empty_bars(), []
        bars = TickBars(
            _column(x.time_ms // MINUTE_MS * MINUTE_MS for x in found),
            _column(x.first for x in found),
            _column(x.high for x in found),
            _column(x.low for x in found),
            _column(x.last for x in found),
            _column(x.minute_volume for x in found),
            _column(0 for _ in found),
        )
        return bars, [x.time_ms + 1 for x in found]

    def _between(self, symbol: str, start_ms: int, end_ms: int) -> list[Observation]:
        found: list[Observation] = []
        for seen in reversed(self._seen.get(symbol, ())):
            if seen.time_ms <= start_ms:
                break
            if seen.time_ms <= end_ms:
                found.append(seen)
        return found[::-1]


def _column(values: Iterable[int]) -> IntArray:
    return np.fromiter(values, np.int64)


def rules_from_listing(entry: Mapping[str, Any]) -> SymbolRules:
    """A symbol of the real exchange's exchangeInfo as the engine's rules.

    Raises
    ------
    ValueError, KeyError
        If the entry lacks a filter or its units cannot be counted exactly.
    """
    filters = {f["filterType"]: f for f in entry["filters"]}
    price, lots = filters["PRICE_FILTER"], filters["LOT_SIZE"]
    tick, step = Decimal(price["tickSize"]).normalize(), Decimal(lots["stepSize"]).normalize()
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    by_side = filters.get("PERCENT_PRICE_BY_SIDE", {})
    market_most = Decimal(filters.get("MARKET_LOT_SIZE", {}).get("maxQty", "0"))
    most = int(Decimal(lots["maxQty"]) / step)
    trailing = filters.get("TRAILING_DELTA", {})
    given: dict[str, Any] = {
        "min_lots": max(1, int(Decimal(lots["minQty"]) / step)),
        "max_lots": most,
        "max_market_lots": int(market_most / step) or most,
        "min_ticks": max(1, int(Decimal(price["minPrice"]) / tick)),
        "max_ticks": int(Decimal(price["maxPrice"]) / tick) or 10**11,
        "min_notional": Decimal(notional.get("minNotional", "0")),
        "max_notional": Decimal(notional.get("maxNotional", "9000000")),
    }
    for field, source, name in (
        ("bid_multiplier_up", by_side, "bidMultiplierUp"),
        ("bid_multiplier_down", by_side, "bidMultiplierDown"),
        ("ask_multiplier_up", by_side, "askMultiplierUp"),
        ("ask_multiplier_down", by_side, "askMultiplierDown"),
    ):
        if name in source:
            given[field] = Decimal(source[name])
    for field, source, name in (
        ("max_orders", filters.get("MAX_NUM_ORDERS", {}), "maxNumOrders"),
        ("max_algo_orders", filters.get("MAX_NUM_ALGO_ORDERS", {}), "maxNumAlgoOrders"),
        ("max_order_lists", filters.get("MAX_NUM_ORDER_LISTS", {}), "maxNumOrderLists"),
        ("max_iceberg_parts", filters.get("ICEBERG_PARTS", {}), "limit"),
        ("min_trailing_bps", trailing, "minTrailingAboveDelta"),
        ("max_trailing_bps", trailing, "maxTrailingAboveDelta"),
    ):
        if name in source:
            given[field] = int(source[name])
    return SymbolRules(entry["symbol"], entry["baseAsset"], entry["quoteAsset"], tick, step, **given)
