"""Public endpoints of the market: candles, depth, trades."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tradewind.core.matching_arithmetic import PPM
from tradewind.core.matching_book import best_ask, best_bid, level_lots
from tradewind.core.matching_rules import SymbolRules
from tradewind.paper import params as p
from tradewind.paper.dialect import ApiError, bad_symbol
from tradewind.paper.endpoints import Call, endpoint
from tradewind.paper.intervals import INTERVAL_MS
from tradewind.paper.markets import TRADES_PER_BASE_BAR
from tradewind.paper.rules_endpoints import STATUS, match_status, rules_of
from tradewind.paper.views import Scale

_INTERVAL = p.one(tuple(INTERVAL_MS), -1120, "Invalid interval.")


def last_price(call: Call, symbol: str) -> int:
    """The last price in ticks, as it is answered."""
    price = _true_price(call, symbol)
    bent = call.bent(symbol)
    return price if bent is None else bent.price(price)


def _true_price(call: Call, symbol: str) -> int:
    price = call.exchange.view.price(symbol, call.now_ms)
    if price is None:
        raise bad_symbol()
    return price


# ------------------------------------------------------------------------------------------------------------- candles
def klines(call: Call) -> bytes:
    """Candles known at market time; the last may be unfinished."""
    q = call.params
    rules = rules_of(call, q["symbol"])
    interval, zone_ms = q["interval"], q.get("timeZone", 0)
    bars = call.exchange.view.candles(
        rules.symbol, interval, q.get("startTime"), q.get("endTime"), q.get("limit", 500), call.now_ms, zone_ms
    )
    return call.exchange.kline_rows.render(bars, rules.symbol, interval, call.now_ms, zone_ms)


for _path in ("/api/v3/klines", "/api/v3/uiKlines"):
    endpoint(
        "GET",
        _path,
        weight=2,
        required=("symbol", "interval"),
        symbol=p.symbol,
        interval=_INTERVAL,
        startTime=p.moment,
        endTime=p.moment,
        timeZone=p.time_zone,
        limit=p.limit(1000),
    )(klines)


# --------------------------------------------------------------------------------------------------------- book, trades
def book_levels(call: Call, rules: SymbolRules, levels: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(bids, asks) as (ticks, lots), best first: the ladder that takers meet, bent where it is."""
    settings = call.exchange.engine.settings_of(rules.symbol)
    last = _true_price(call, rules.symbol)
    volume, _ = call.exchange.view.liquidity(rules.symbol, call.now_ms)
    lots = level_lots(volume, settings)
    step = max(1, -(-last * settings.level_step_ppm // PPM))
    bid, ask = best_bid(last, settings), best_ask(last, settings)
    depth = range(min(levels, settings.levels))
    bids, asks = [(bid - k * step, lots) for k in depth if bid > k * step], [(ask + k * step, lots) for k in depth]
    bent = call.bent(rules.symbol)
    return (bids, asks) if bent is None else bent.book(bids, asks)


def _depth_weight(sent: Mapping[str, str]) -> int:
    asked = int(sent["limit"]) if sent.get("limit", "").isdigit() else 100
    return next((w for most, w in ((100, 5), (500, 25), (1000, 50)) if asked <= most), 250)


@endpoint(
    "GET",
    "/api/v3/depth",
    weight=_depth_weight,
    required=("symbol",),
    symbol=p.symbol,
    limit=p.limit(5000),
    symbolStatus=STATUS,
)
def depth(call: Call) -> dict[str, Any]:
    rules = rules_of(call, call.params["symbol"])
    match_status(call, rules.symbol)
    scale = Scale(rules)
    bids, asks = book_levels(call, rules, call.params.get("limit", 100))
    return {
        "lastUpdateId": call.exchange.view.last_trade_id(call.now_ms),
        "bids": [[scale.price(t), scale.quantity(n)] for t, n in bids],
        "asks": [[scale.price(t), scale.quantity(n)] for t, n in asks],
    }


@endpoint("GET", "/api/v3/trades", weight=25, required=("symbol",), symbol=p.symbol, limit=p.limit(1000))
def trades(call: Call) -> list[dict[str, Any]]:
    return _trades(call, None)


@endpoint(
    "GET",
    "/api/v3/historicalTrades",
    weight=25,
    required=("symbol",),
    symbol=p.symbol,
    limit=p.limit(1000),
    fromId=p.number,
)
def historical_trades(call: Call) -> list[dict[str, Any]]:
    return _trades(call, call.params.get("fromId"))


def _trades(call: Call, from_id: int | None) -> list[dict[str, Any]]:
    rules = rules_of(call, call.params["symbol"])
    scale, limit = Scale(rules), call.params.get("limit", 500)
    return [
        {
            "id": trade_id,
            "price": scale.price(ticks),
            "qty": scale.quantity(lots),
            "quoteQty": scale.quote(ticks, lots),
            "time": time_ms,
            "isBuyerMaker": maker,
            "isBestMatch": True,
        }
        for trade_id, time_ms, ticks, lots, maker in _trade_range(call, rules.symbol, from_id, limit)
    ]


def _trade_range(
    call: Call, symbol: str, from_id: int | None, limit: int, last_id: int | None = None
) -> list[tuple[int, int, int, int, bool]]:
    newest = call.exchange.view.last_trade_id(call.now_ms)
    newest = newest if last_id is None else min(newest, last_id)
    if from_id is None:
        return call.exchange.view.public_trades(symbol, newest - limit + 1, newest)
    oldest = call.exchange.market.first_ms(symbol) * TRADES_PER_BASE_BAR // call.exchange.view.base_ms
    first = max(from_id, oldest)
    return call.exchange.view.public_trades(symbol, first, min(newest, first + limit - 1))


@endpoint(
    "GET",
    "/api/v3/aggTrades",
    weight=4,
    required=("symbol",),
    symbol=p.symbol,
    fromId=p.number,
    startTime=p.moment,
    endTime=p.moment,
    limit=p.limit(1000),
)
def aggregate_trades(call: Call) -> list[dict[str, Any]]:
    q = call.params
    rules = rules_of(call, q["symbol"])
    if "fromId" in q and ("startTime" in q or "endTime" in q):
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    base_ms, scale = call.exchange.view.base_ms, Scale(rules)

    def first_id_at(time_ms: int) -> int:
        return -(-time_ms * TRADES_PER_BASE_BAR // base_ms)

    from_id = first_id_at(q["startTime"]) if "startTime" in q else q.get("fromId")
    last_id = first_id_at(q["endTime"] + 1) - 1 if "endTime" in q else None
    return [
        {"a": i, "p": scale.price(t), "q": scale.quantity(n), "f": i, "l": i, "T": at, "m": maker, "M": True}
        for i, at, t, n, maker in _trade_range(call, rules.symbol, from_id, q.get("limit", 500), last_id)
    ]


@endpoint("GET", "/api/v3/avgPrice", weight=2, required=("symbol",), symbol=p.symbol)
def average_price(call: Call) -> dict[str, Any]:
    rules = rules_of(call, call.params["symbol"])
    _, average = call.exchange.view.liquidity(rules.symbol, call.now_ms)
    return {"mins": 5, "price": Scale(rules).price(average), "closeTime": call.now_ms}
