"""Public futures endpoints: rules, candles, prices, book, funding."""

from __future__ import annotations

from typing import Any, Final

from tradewind.core.futures import FUNDING_INTERVAL_MS, funding_times
from tradewind.core.matching_conditions import Grid
from tradewind.core.matching_rules import SymbolRules
from tradewind.paper import params as p
from tradewind.paper.endpoints import Call
from tradewind.paper.futures_dialect import ORDER_TYPES, TIMES_IN_FORCE, desk, futures_endpoint, futures_rules, listed
from tradewind.paper.intervals import INTERVAL_MS
from tradewind.paper.market_endpoints import aggregate_trades, depth, klines, trades
from tradewind.paper.ticker_endpoints import book_ticker, ticker_24h, ticker_price
from tradewind.paper.views import Scale, text

_INTERVAL: Final = p.one(tuple(INTERVAL_MS), -1120, "Invalid interval.")
_PERPETUAL_DELIVERY_MS: Final = 4_133_404_800_000
_STATUS: Final = {"TRADING": "TRADING", "HALT": "PENDING_TRADING", "BREAK": "SETTLING", "CANCEL_ONLY": "PRE_SETTLE"}
"""A contract's status in the words of the futures side."""


@futures_endpoint("GET", "/fapi/v1/ping")
def ping(_: Call) -> dict[str, Any]:
    return {}


@futures_endpoint("GET", "/fapi/v1/time")
def server_time(call: Call) -> dict[str, Any]:
    return {"serverTime": call.wall_ms}


# --------------------------------------------------------------------------------------------------------------- rules
@futures_endpoint("GET", "/fapi/v1/exchangeInfo")
def exchange_info(call: Call) -> dict[str, Any]:
    limits = call.limiter.limits
    return {
        "timezone": "UTC",
        "serverTime": call.wall_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": [
            _limit("REQUEST_WEIGHT", "MINUTE", 1, limits.weight_per_minute),
            _limit("ORDERS", "SECOND", 10, limits.orders_per_10s),
        ],
        "exchangeFilters": [],
        "assets": [{"asset": desk(call).quote, "marginAvailable": True, "autoAssetExchange": "0"}],
        "symbols": [_symbol_info(call, desk(call).engine.rules[symbol]) for symbol in listed(call)],
        "tradewindMarket": call.exchange.market.identity,
    }


def _limit(kind: str, interval: str, number: int, most: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": most}


def _decimals(unit: Any) -> int:
    return max(0, -int(unit.normalize().as_tuple().exponent))


def _symbol_info(call: Call, rules: SymbolRules) -> dict[str, Any]:
    status = _STATUS[call.exchange.conditions.status(rules.symbol)]
    return {
        "symbol": rules.symbol,
        "pair": rules.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": _PERPETUAL_DELIVERY_MS,
        "onboardDate": call.exchange.market.first_ms(rules.symbol),
        "status": status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": rules.base,
        "quoteAsset": rules.quote,
        "marginAsset": rules.quote,
        "pricePrecision": _decimals(rules.tick),
        "quantityPrecision": _decimals(rules.step),
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "filters": _filters(rules, desk(call).engine.conditions.grid(rules.symbol)),
        "orderTypes": list(ORDER_TYPES),
        "timeInForce": list(TIMES_IN_FORCE),
        "permissionSets": [],
    }


def _filters(rules: SymbolRules, grid: Grid) -> list[dict[str, Any]]:
    def quantity(lots: int) -> str:
        return text(rules.quantity(lots))

    sizes = {"minQty": quantity(rules.min_lots), "stepSize": quantity(grid.lots)}
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": text(rules.price(max(rules.min_ticks, grid.ticks))),
            "maxPrice": text(rules.price(rules.max_ticks)),
            "tickSize": text(rules.price(grid.ticks)),
        },
        {"filterType": "LOT_SIZE", "maxQty": quantity(rules.max_lots), **sizes},
        {"filterType": "MARKET_LOT_SIZE", "maxQty": quantity(rules.max_market_lots), **sizes},
        {"filterType": "MAX_NUM_ORDERS", "limit": rules.max_orders},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": rules.max_algo_orders},
        {"filterType": "MIN_NOTIONAL", "notional": f"{rules.min_notional:f}"},
        {
            "filterType": "PERCENT_PRICE",
            "multiplierUp": str(rules.bid_multiplier_up),
            "multiplierDown": str(rules.bid_multiplier_down),
            "multiplierDecimal": "4",
        },
    ]


# ------------------------------------------------------------------------------------- what both markets have alike
futures_endpoint(
    "GET", "/fapi/v1/klines", weight=2, required=("symbol", "interval"), symbol=p.symbol, interval=_INTERVAL,
    startTime=p.moment, endTime=p.moment, limit=p.limit(1500),
)(klines)  # fmt: skip
futures_endpoint("GET", "/fapi/v1/trades", weight=5, required=("symbol",), symbol=p.symbol, limit=p.limit(1000))(trades)
futures_endpoint(
    "GET", "/fapi/v1/aggTrades", weight=20, required=("symbol",), symbol=p.symbol, fromId=p.number, startTime=p.moment,
    endTime=p.moment, limit=p.limit(1000),
)(aggregate_trades)  # fmt: skip
futures_endpoint("GET", "/fapi/v1/ticker/24hr", symbol=p.symbol)(ticker_24h)


@futures_endpoint("GET", "/fapi/v1/depth", weight=2, required=("symbol",), symbol=p.symbol, limit=p.limit(1000))
def futures_depth(call: Call) -> dict[str, Any]:
    return {**depth(call), "E": call.now_ms, "T": call.now_ms}


def _stamped(call: Call, found: Any) -> Any:
    if isinstance(found, list):
        return [{**row, "time": call.now_ms} for row in found]
    return {**found, "time": call.now_ms}


@futures_endpoint("GET", "/fapi/v1/ticker/bookTicker", weight=2, symbol=p.symbol)
def futures_book_ticker(call: Call) -> Any:
    return _stamped(call, book_ticker(call))


def futures_ticker_price(call: Call) -> Any:
    return _stamped(call, ticker_price(call))


for _path in ("/fapi/v1/ticker/price", "/fapi/v2/ticker/price"):
    futures_endpoint("GET", _path, symbol=p.symbol)(futures_ticker_price)


# ------------------------------------------------------------------------------------------------------------- funding
@futures_endpoint("GET", "/fapi/v1/premiumIndex", symbol=p.symbol)
def premium_index(call: Call) -> Any:
    """Mark price, and the rate that would be settled if the running interval ended now."""
    exchange = desk(call)

    def one(symbol: str) -> dict[str, Any]:
        mark = Scale(exchange.engine.rules[symbol]).price(exchange.mark(symbol, call.now_ms))
        return {
            "symbol": symbol,
            "markPrice": mark,
            "indexPrice": mark,
            "estimatedSettlePrice": mark,
            "lastFundingRate": text(exchange.funding_rate(symbol, call.now_ms)),
            "interestRate": "0.00010000",
            "nextFundingTime": (call.now_ms // FUNDING_INTERVAL_MS + 1) * FUNDING_INTERVAL_MS,
            "time": call.now_ms,
        }

    if "symbol" in call.params:
        return one(futures_rules(call, call.params["symbol"]).symbol)
    return [one(symbol) for symbol in listed(call)]


@futures_endpoint(
    "GET", "/fapi/v1/fundingRate", symbol=p.symbol, startTime=p.moment, endTime=p.moment, limit=p.limit(1000)
)
def funding_rates(call: Call) -> list[dict[str, Any]]:
    """Settled rates, oldest first: from `startTime` on, else the newest."""
    exchange, q = desk(call), call.params
    symbols = [futures_rules(call, q["symbol"]).symbol] if "symbol" in q else listed(call)
    limit, end_ms = q.get("limit", 100), min(q.get("endTime", call.now_ms), call.now_ms)
    earliest = end_ms - limit * FUNDING_INTERVAL_MS
    start_ms = max(q["startTime"] - 1, 0) if "startTime" in q else earliest
    rows = []
    for symbol in symbols:
        first = max(start_ms, call.exchange.market.first_ms(symbol) + FUNDING_INTERVAL_MS)
        rows += [(moment, symbol) for moment in list(funding_times(first, end_ms))[:limit]]
    rows.sort()
    return [
        {
            "symbol": symbol,
            "fundingTime": moment,
            "fundingRate": text(exchange.funding_rate(symbol, moment)),
            "markPrice": Scale(exchange.engine.rules[symbol]).price(exchange.mark(symbol, moment)),
        }
        for moment, symbol in rows[:limit]
    ]


@futures_endpoint("GET", "/fapi/v1/fundingInfo")
def funding_info(call: Call) -> list[dict[str, Any]]:
    return [
        {
            "symbol": symbol,
            "adjustedFundingRateCap": "0.00300000",
            "adjustedFundingRateFloor": "-0.00300000",
            "fundingIntervalHours": FUNDING_INTERVAL_MS // 3_600_000,
            "disclaimer": False,
        }
        for symbol in listed(call)
    ]
