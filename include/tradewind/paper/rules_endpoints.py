"""Public endpoints about the exchange itself: is it there, what time is it, what does it accept."""

from __future__ import annotations

from typing import Any

from tradewind.core.matching_arithmetic import PPM
from tradewind.core.matching_conditions import Grid
from tradewind.core.matching_rules import SymbolRules
from tradewind.paper import params as p
from tradewind.paper.conditions import STATUSES
from tradewind.paper.dialect import ORDER_TYPES, STP_MODES, ApiError, bad_symbol, one_of
from tradewind.paper.endpoints import Call, endpoint
from tradewind.paper.views import text

STATUS = p.one(STATUSES, -1122, "Invalid symbolStatus.")


def rules_of(call: Call, symbol: str) -> SymbolRules:
    """The rules of a listed symbol. Raises ApiError -1121."""
    if not call.exchange.is_listed(symbol):
        raise bad_symbol()
    return call.exchange.engine.rules[symbol]


def status_of(call: Call, symbol: str) -> str:
    return call.exchange.conditions.status(symbol)


@endpoint("GET", "/api/v3/ping")
def ping(_: Call) -> dict[str, Any]:
    return {}


@endpoint("GET", "/api/v3/time")
def server_time(call: Call) -> dict[str, Any]:
    return {"serverTime": call.wall_ms}


# --------------------------------------------------------------------------------------------------------------- rules
@endpoint("GET", "/api/v3/executionRules", weight=2, symbol=p.symbol, symbols=p.symbols, symbolStatus=STATUS)
def execution_rules(call: Call) -> dict[str, Any]:
    """The price range that takers may trade in; a symbol without one is not listed."""
    chosen = chosen_symbols(call, required=False)
    ranges = call.exchange.engine.conditions.ranges
    return {
        "symbolRules": [
            {
                "symbol": symbol,
                "rules": [
                    {
                        "ruleType": "PRICE_RANGE",
                        **{
                            f"{side}Multiplier{way}": f"{ppm / PPM:.4f}"
                            for side in ("bid", "ask")
                            for way, ppm in (("Up", ranges[symbol].up_ppm), ("Down", ranges[symbol].down_ppm))
                        },
                    }
                ],
            }
            for symbol in chosen
            if symbol in ranges
        ]
    }


@endpoint("GET", "/api/v3/referencePrice", weight=2, required=("symbol",), symbol=p.symbol)
def reference_price(call: Call) -> dict[str, Any]:
    """What the price range is reckoned from: the mean of the last minutes' closes."""
    rules = rules_of(call, call.params["symbol"])
    _, average = call.exchange.view.liquidity(rules.symbol, call.now_ms)
    return {"symbol": rules.symbol, "referencePrice": text(rules.price(average)), "timestamp": call.now_ms}


@endpoint(
    "GET",
    "/api/v3/exchangeInfo",
    weight=20,
    symbol=p.symbol,
    symbols=p.symbols,
    permissions=lambda _, text: text,
    showPermissionSets=p.boolean,
    symbolStatus=STATUS,
)
def exchange_info(call: Call) -> dict[str, Any]:
    limits = call.limiter.limits
    chosen = chosen_symbols(call, required=False)
    if "symbolStatus" in call.params:
        if "symbol" in call.params or "symbols" in call.params:
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        chosen = [s for s in chosen if status_of(call, s) == call.params["symbolStatus"]]
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


@endpoint("GET", "/dapi/v1/exchangeInfo")
def coin_margined_info(call: Call) -> dict[str, Any]:
    """Coin-margined futures: none are listed, and clients that load every market type are told so."""
    return {
        "timezone": "UTC",
        "serverTime": call.wall_ms,
        "rateLimits": [],
        "exchangeFilters": [],
        "symbols": [],
    }


def _limit(kind: str, interval: str, number: int, most: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": most}


def _symbol_info(call: Call, symbol: str) -> dict[str, Any]:
    rules = call.exchange.engine.rules[symbol]
    show_sets = call.params.get("showPermissionSets", True)
    return {
        "symbol": symbol,
        "status": status_of(call, symbol),
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
        "amendAllowed": True,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": symbol_filters(rules, call.exchange.engine.conditions.grid(symbol)),
        "permissions": [],
        "permissionSets": [["SPOT"]] if show_sets else [],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": list(STP_MODES),
    }


def symbol_filters(rules: SymbolRules, grid: Grid) -> list[dict[str, Any]]:
    """The filters of a symbol as exchangeInfo lists them, on today's grid."""

    def quantity(lots: int) -> str:
        return text(rules.quantity(lots))

    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": text(rules.price(max(rules.min_ticks, grid.ticks))),
            "maxPrice": text(rules.price(rules.max_ticks)),
            "tickSize": text(rules.price(grid.ticks)),
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": quantity(rules.min_lots),
            "maxQty": quantity(rules.max_lots),
            "stepSize": quantity(grid.lots),
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


def chosen_symbols(call: Call, *, required: bool) -> list[str]:
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
    return [symbol for symbol in call.exchange.engine.rules if call.exchange.is_listed(symbol)]


def match_status(call: Call, symbol: str) -> None:
    wanted = call.params.get("symbolStatus")
    if wanted is not None and wanted != status_of(call, symbol):
        raise ApiError(-1220, "The symbol's status does not match the requested symbolStatus.")
