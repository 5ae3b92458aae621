"""Public endpoints that sum the market up: last prices, best prices, statistics of a window."""

from __future__ import annotations

import re
from typing import Any

from tradewind.paper import params as p
from tradewind.paper.dialect import ApiError
from tradewind.paper.endpoints import Call, endpoint
from tradewind.paper.intervals import INTERVAL_MS
from tradewind.paper.market_endpoints import book_levels, last_price
from tradewind.paper.markets import DAY_MS, MINUTE_MS, TRADES_PER_BASE_BAR, TickBars
from tradewind.paper.rules_endpoints import STATUS, chosen_symbols, match_status, rules_of, status_of
from tradewind.paper.views import Scale

_TICKER_TYPE = p.one(("FULL", "MINI"), -1139, "Invalid ticker type.")
_WINDOW = re.compile(r"([1-9]\d?)([mhd])")


def _each(call: Call, make: Any, *, required: bool = False) -> Any:
    """One object for `symbol`, an array otherwise; the status filter applied."""
    chosen = chosen_symbols(call, required=required)
    if "symbol" in call.params:
        match_status(call, chosen[0])
        return make(chosen[0])
    wanted = call.params.get("symbolStatus")
    return [make(s) for s in chosen if wanted is None or status_of(call, s) == wanted]


def _ticker_weight(one: int, many: int) -> Any:
    return lambda sent: one if "symbol" in sent else many


@endpoint(
    "GET", "/api/v3/ticker/price", weight=_ticker_weight(2, 4), symbol=p.symbol, symbols=p.symbols, symbolStatus=STATUS
)
def ticker_price(call: Call) -> Any:
    def one(symbol: str) -> dict[str, Any]:
        return {"symbol": symbol, "price": Scale(rules_of(call, symbol)).price(last_price(call, symbol))}

    return _each(call, one)


@endpoint(
    "GET",
    "/api/v3/ticker/bookTicker",
    weight=_ticker_weight(2, 4),
    symbol=p.symbol,
    symbols=p.symbols,
    symbolStatus=STATUS,
)
def book_ticker(call: Call) -> Any:
    return _each(call, lambda symbol: {"symbol": symbol, **_best(call, symbol)})


def _best(call: Call, symbol: str) -> dict[str, str]:
    rules = rules_of(call, symbol)
    scale = Scale(rules)
    (bid, bid_lots), (ask, ask_lots) = (side[0] if side else (0, 0) for side in book_levels(call, rules, 1))
    return {
        "bidPrice": scale.price(bid),
        "bidQty": scale.quantity(bid_lots),
        "askPrice": scale.price(ask),
        "askQty": scale.quantity(ask_lots),
    }


def _window_bars(call: Call, symbol: str, open_ms: int) -> TickBars:
    view = call.exchange.view
    interval = "1m" if view.base_ms <= MINUTE_MS else "15m"
    return view.candles(
        symbol, interval, open_ms, None, (call.now_ms - open_ms) // INTERVAL_MS[interval] + 2, call.now_ms
    )


def _statistics(call: Call, symbol: str, open_ms: int, close_ms: int) -> dict[str, Any]:
    """Price change statistics of a window, the part that all ticker endpoints share."""
    rules = rules_of(call, symbol)
    scale, bars = Scale(rules), _window_bars(call, symbol, open_ms)
    last = last_price(call, symbol)
    opened = int(bars.open[0]) if len(bars) else last
    high, low = (int(bars.high.max()), int(bars.low.min())) if len(bars) else (last, last)
    lots = int(bars.volume.sum())
    typical = ((bars.high + bars.low + bars.close) // 3) if len(bars) else bars.high
    quote_ticklots = sum(int(t) * int(v) for t, v in zip(typical, bars.volume, strict=True))
    average = quote_ticklots // lots if lots else last
    change = last - opened
    first_id = -(-open_ms * TRADES_PER_BASE_BAR // call.exchange.view.base_ms)
    last_id = call.exchange.view.last_trade_id(call.now_ms)
    signed = ("-" if change < 0 else "") + scale.price(abs(change))
    full = {
        "symbol": symbol,
        "priceChange": signed,
        "priceChangePercent": f"{change / opened * 100 if opened else 0:.3f}",
        "weightedAvgPrice": scale.price(average),
    }
    mini = {
        "openPrice": scale.price(opened),
        "highPrice": scale.price(high),
        "lowPrice": scale.price(low),
        "lastPrice": scale.price(last),
        "volume": scale.quantity(lots),
        "quoteVolume": scale.quote(1, quote_ticklots),
        "openTime": open_ms,
        "closeTime": close_ms,
        "firstId": first_id,
        "lastId": last_id,
        "count": last_id - first_id + 1,
    }
    if call.params.get("type", "FULL") == "MINI":
        return {"symbol": symbol, **mini}
    return {**full, **mini}


@endpoint(
    "GET",
    "/api/v3/ticker/24hr",
    weight=_ticker_weight(2, 80),
    symbol=p.symbol,
    symbols=p.symbols,
    type=_TICKER_TYPE,
    symbolStatus=STATUS,
)
def ticker_24h(call: Call) -> Any:
    def one(symbol: str) -> dict[str, Any]:
        open_ms = call.now_ms - DAY_MS
        body = _statistics(call, symbol, open_ms, call.now_ms)
        if call.params.get("type", "FULL") == "MINI":
            return body
        rules = rules_of(call, symbol)
        before = call.exchange.view.price(symbol, open_ms)
        latest = call.exchange.view.public_trades(symbol, body["lastId"], body["lastId"])
        return {
            **body,
            "prevClosePrice": Scale(rules).price(before) if before else body["openPrice"],
            "lastQty": Scale(rules).quantity(latest[0][3] if latest else 0),
            **_best(call, symbol),
        }

    return _each(call, one)


@endpoint(
    "GET",
    "/api/v3/ticker/tradingDay",
    weight=4,
    symbol=p.symbol,
    symbols=p.symbols,
    timeZone=p.time_zone,
    type=_TICKER_TYPE,
    symbolStatus=STATUS,
)
def ticker_trading_day(call: Call) -> Any:
    zone_ms = call.params.get("timeZone", 0)
    open_ms = (call.now_ms + zone_ms) // DAY_MS * DAY_MS - zone_ms
    return _each(call, lambda s: _statistics(call, s, open_ms, open_ms + DAY_MS - 1), required=True)


@endpoint(
    "GET",
    "/api/v3/ticker",
    weight=4,
    symbol=p.symbol,
    symbols=p.symbols,
    windowSize=lambda _, text: text,
    type=_TICKER_TYPE,
    symbolStatus=STATUS,
)
def ticker_rolling(call: Call) -> Any:
    match = _WINDOW.fullmatch(call.params.get("windowSize", "1d"))
    most = {"m": 59, "h": 23, "d": 7}
    if match is None or int(match[1]) > most[match[2]]:
        raise ApiError(-1130, "Data sent for parameter 'windowSize' is not valid.")
    length = int(match[1]) * {"m": MINUTE_MS, "h": 60 * MINUTE_MS, "d": DAY_MS}[match[2]]
    open_ms = (call.now_ms - length) // MINUTE_MS * MINUTE_MS
    return _each(call, lambda s: _statistics(call, s, open_ms, call.now_ms), required=True)
