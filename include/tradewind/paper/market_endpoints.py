"""Public endpoints: time, rules, candles, tickers, depth, trades."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tradewind.core.matching_book import best_ask, best_bid, level_lots
from tradewind.core.matching_rules import PPM, SymbolRules
from tradewind.paper import params as p
from tradewind.paper.dialect import ORDER_TYPES, STP_MODES, ApiError, bad_symbol, missing, one_of
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.intervals import INTERVAL_MS
from tradewind.paper.markets import DAY_MS, MINUTE_MS, TRADES_PER_BASE_BAR, TickBars
from tradewind.paper.views import Scale, kline_rows, text

_STATUS = p.one(("TRADING", "HALT", "BREAK"), -1122, "Invalid symbolStatus.")
_TICKER_TYPE = p.one(("FULL", "MINI"), -1139, "Invalid ticker type.")
_INTERVAL = p.one(tuple(INTERVAL_MS), -1120, "Invalid interval.")
_WINDOW = re.compile(r"([1-9]\d?)([mhd])")


def rules_of(call: Call, symbol: str) -> SymbolRules:
    """The rules of a listed symbol. Raises ApiError -1121."""
    rules = call.exchange.engine.rules.get(symbol)
    if rules is None:
        raise bad_symbol()
    return rules


def last_price(call: Call, symbol: str) -> int:
    price = call.exchange.view.price(symbol, call.now_ms)
    if price is None:
        raise bad_symbol()
    return price


def _status(call: Call, symbol: str) -> str:
    return "HALT" if symbol in call.exchange.engine.halted else "TRADING"


@endpoint("GET", "/api/v3/ping")
def ping(_: Call) -> dict[str, Any]:
    return {}


@endpoint("GET", "/api/v3/time")
def server_time(call: Call) -> dict[str, Any]:
    return {"serverTime": call.wall_ms}


# --------------------------------------------------------------------------------------------------------------- rules
@endpoint(
    "GET",
    "/api/v3/exchangeInfo",
    weight=20,
    symbol=p.symbol,
    symbols=p.symbols,
    permissions=lambda _, text: text,
    showPermissionSets=p.boolean,
    symbolStatus=_STATUS,
)
def exchange_info(call: Call) -> dict[str, Any]:
    limits = call.limiter.limits
    chosen = _chosen(call, required=False)
    if "symbolStatus" in call.params:
        if "symbol" in call.params or "symbols" in call.params:
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        chosen = [s for s in chosen if _status(call, s) == call.params["symbolStatus"]]
    return {
        "timezone": "UTC",
        "serverTime": call.wall_ms,
        "rateLimits": [
            _limit("REQUEST_WEIGHT", "MINUTE", 1, limits.weight_per_minute),
            _limit("ORDERS", "SECOND", 10, limits.orders_per_10s),
            _limit("ORDERS", "DAY", 1, limits.orders_per_day),
        ],
        "exchangeFilters": [],
        "symbols": [_symbol_info(call, s) for s in chosen],
        "tradewindMarket": call.exchange.market.identity,
    }


def _limit(kind: str, interval: str, number: int, most: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": most}


def _symbol_info(call: Call, symbol: str) -> dict[str, Any]:
    rules = call.exchange.engine.rules[symbol]
    show_sets = call.params.get("showPermissionSets", True)
    return {
        "symbol": symbol,
        "status": _status(call, symbol),
        "baseAsset": rules.base,
        "baseAssetPrecision": 8,
        "quoteAsset": rules.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(ORDER_TYPES),
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": False,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": symbol_filters(rules),
        "permissions": [],
        "permissionSets": [["SPOT"]] if show_sets else [],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": list(STP_MODES),
    }


def symbol_filters(rules: SymbolRules) -> list[dict[str, Any]]:
    """The filters of a symbol as exchangeInfo lists them."""

    def quantity(lots: int) -> str:
        return text(rules.quantity(lots))

    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": text(rules.price(rules.min_ticks)),
            "maxPrice": text(rules.price(rules.max_ticks)),
            "tickSize": text(rules.tick),
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": quantity(rules.min_lots),
            "maxQty": quantity(rules.max_lots),
            "stepSize": text(rules.step),
        },
        {"filterType": "ICEBERG_PARTS", "limit": rules.max_iceberg_parts},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000",
            "maxQty": quantity(rules.max_market_lots),
            "stepSize": "0.00000000",
        },
        {
            "filterType": "TRAILING_DELTA",
            "minTrailingAboveDelta": rules.min_trailing_bps,
            "maxTrailingAboveDelta": rules.max_trailing_bps,
            "minTrailingBelowDelta": rules.min_trailing_bps,
            "maxTrailingBelowDelta": rules.max_trailing_bps,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": str(rules.bid_multiplier_up),
            "bidMultiplierDown": str(rules.bid_multiplier_down),
            "askMultiplierUp": str(rules.ask_multiplier_up),
            "askMultiplierDown": str(rules.ask_multiplier_down),
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": text(rules.min_notional),
            "applyMinToMarket": True,
            "maxNotional": text(rules.max_notional),
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": rules.max_orders},
        {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": rules.max_order_lists},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": rules.max_algo_orders},
    ]


# ------------------------------------------------------------------------------------------------------------- candles
def klines(call: Call) -> list[list[Any]]:
    """Candles known at market time; the last may be unfinished."""
    q = call.params
    rules = rules_of(call, q["symbol"])
    view, interval, zone_ms = call.exchange.view, q["interval"], q.get("timeZone", 0)
    bars = view.candles(
        rules.symbol, interval, q.get("startTime"), q.get("endTime"), q.get("limit", 500), call.now_ms, zone_ms
    )
    rows = kline_rows(bars, rules, interval, view.base_ms, zone_ms)
    if view.shocks:
        for row in rows:  # the field that Binance leaves unused names candles that hold an injected shock
            if view.is_shocked(rules.symbol, row[0], row[6] + 1):
                row[11] = "injected shock"
    return rows


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
    """(bids, asks) as (ticks, lots), best first: the ladder that takers meet."""
    settings = call.exchange.engine.settings
    last = last_price(call, rules.symbol)
    volume, _ = call.exchange.view.liquidity(rules.symbol, call.now_ms)
    lots = level_lots(volume, settings)
    step = max(1, -(-last * settings.level_step_ppm // PPM))
    bid, ask = best_bid(last, settings), best_ask(last, settings)
    depth = range(min(levels, settings.levels))
    return [(bid - k * step, lots) for k in depth if bid > k * step], [(ask + k * step, lots) for k in depth]


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
    symbolStatus=_STATUS,
)
def depth(call: Call) -> dict[str, Any]:
    rules = rules_of(call, call.params["symbol"])
    _match_status(call, rules.symbol)
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


# ------------------------------------------------------------------------------------------------------------- tickers
def _chosen(call: Call, *, required: bool) -> list[str]:
    """The symbols asked for: `symbol`, `symbols`, or all of them."""
    q = call.params
    if "symbol" in q and "symbols" in q:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if "symbol" in q:
        return [rules_of(call, q["symbol"]).symbol]
    if "symbols" in q:
        return [rules_of(call, s).symbol for s in q["symbols"]]
    if required:
        raise one_of("symbol", "symbols")
    return list(call.exchange.engine.rules)


def _match_status(call: Call, symbol: str) -> None:
    wanted = call.params.get("symbolStatus")
    if wanted is not None and wanted != _status(call, symbol):
        raise ApiError(-1220, "The symbol's status does not match the requested symbolStatus.")


def _each(call: Call, make: Any, *, required: bool = False) -> Any:
    """One object for `symbol`, an array otherwise; the status filter applied."""
    chosen = _chosen(call, required=required)
    if "symbol" in call.params:
        _match_status(call, chosen[0])
        return make(chosen[0])
    wanted = call.params.get("symbolStatus")
    return [make(s) for s in chosen if wanted is None or _status(call, s) == wanted]


def _ticker_weight(one: int, many: int) -> Any:
    return lambda sent: one if "symbol" in sent else many


@endpoint(
    "GET", "/api/v3/ticker/price", weight=_ticker_weight(2, 4), symbol=p.symbol, symbols=p.symbols, symbolStatus=_STATUS
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
    symbolStatus=_STATUS,
)
def book_ticker(call: Call) -> Any:
    return _each(call, lambda symbol: {"symbol": symbol, **_best(call, symbol)})


def _best(call: Call, symbol: str) -> dict[str, str]:
    rules = rules_of(call, symbol)
    scale = Scale(rules)
    (bid, bid_lots), (ask, ask_lots) = (side[0] for side in book_levels(call, rules, 1))
    return {
        "bidPrice": scale.price(bid),
        "bidQty": scale.quantity(bid_lots),
        "askPrice": scale.price(ask),
        "askQty": scale.quantity(ask_lots),
    }


def _window_bars(call: Call, symbol: str, open_ms: int) -> TickBars:
    view = call.exchange.view
    interval = "1m" if view.base_ms <= MINUTE_MS else "15m"
    bars = view.candles(
        symbol, interval, open_ms, None, (call.now_ms - open_ms) // INTERVAL_MS[interval] + 2, call.now_ms
    )
    return bars


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
        "priceChangePercent": f"{change / opened * 100:.3f}",
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
    symbolStatus=_STATUS,
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
    symbolStatus=_STATUS,
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
    symbolStatus=_STATUS,
)
def ticker_rolling(call: Call) -> Any:
    match = _WINDOW.fullmatch(call.params.get("windowSize", "1d"))
    most = {"m": 59, "h": 23, "d": 7}
    if match is None or int(match[1]) > most[match[2]]:
        raise ApiError(-1130, "Data sent for parameter 'windowSize' is not valid.")
    length = int(match[1]) * {"m": MINUTE_MS, "h": 60 * MINUTE_MS, "d": DAY_MS}[match[2]]
    open_ms = (call.now_ms - length) // MINUTE_MS * MINUTE_MS
    return _each(call, lambda s: _statistics(call, s, open_ms, call.now_ms), required=True)


def require_symbol(call: Call) -> SymbolRules:
    """The rules of the mandatory `symbol` parameter."""
    if "symbol" not in call.params:
        raise missing("symbol")
    return rules_of(call, call.params["symbol"])


__all__ = ["Security", "last_price", "require_symbol", "rules_of", "symbol_filters"]
