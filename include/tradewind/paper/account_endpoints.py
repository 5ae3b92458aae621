"""Endpoints that read an account: balances, orders, lists, trades."""

from __future__ import annotations

from typing import Any, TypeVar

from tradewind.core.matching_types import Fill, Refusal
from tradewind.paper import params as p
from tradewind.paper.dialect import ApiError, no_such_order, one_of
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.markets import DAY_MS
from tradewind.paper.rules_endpoints import rules_of
from tradewind.paper.trade_endpoints import rate
from tradewind.paper.views import list_view, my_trade_view, order_view, text

_USER = Security.USER_DATA


@endpoint("GET", "/api/v3/account", _USER, weight=20, omitZeroBalances=p.boolean)
def account(call: Call) -> dict[str, Any]:
    found = call.exchange.engine.book.accounts[call.account_id]
    assert call.key is not None
    omit = call.params.get("omitZeroBalances", False)
    return {
        "makerCommission": found.maker_fee_ppm // 100,
        "takerCommission": found.taker_fee_ppm // 100,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {
            "maker": rate(found.maker_fee_ppm),
            "taker": rate(found.taker_fee_ppm),
            "buyer": rate(0),
            "seller": rate(0),
        },
        "canTrade": call.key.can_trade,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": call.now_ms,
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": text(free), "locked": text(locked)}
            for asset, (free, locked) in call.exchange.balances(call.account_id).items()
            if free or locked or not omit
        ],
        "permissions": ["SPOT"],
        "uid": call.exchange.accounts[call.account_id]["uid"],
    }


# -------------------------------------------------------------------------------------------------------------- orders
@endpoint(
    "GET",
    "/api/v3/order",
    _USER,
    weight=4,
    required=("symbol",),
    symbol=p.symbol,
    orderId=p.number,
    origClientOrderId=p.client_id,
)
def query_order(call: Call) -> dict[str, Any]:
    q = call.params
    rules = rules_of(call, q["symbol"])
    if "orderId" not in q and "origClientOrderId" not in q:
        raise one_of("origClientOrderId", "orderId")
    try:
        order = call.exchange.engine.find_order(
            call.account_id, rules.symbol, q.get("orderId"), q.get("origClientOrderId")
        )
    except Refusal:
        raise no_such_order() from None
    return order_view(order, rules)


@endpoint("GET", "/api/v3/openOrders", _USER, weight=lambda sent: 6 if "symbol" in sent else 80, symbol=p.symbol)
def open_orders(call: Call) -> list[dict[str, Any]]:
    symbol = rules_of(call, call.params["symbol"]).symbol if "symbol" in call.params else None
    engine = call.exchange.engine
    return [order_view(o, engine.rules[o.symbol]) for o in engine.open_orders(call.account_id, symbol)]


@endpoint(
    "GET",
    "/api/v3/allOrders",
    _USER,
    weight=20,
    required=("symbol",),
    symbol=p.symbol,
    orderId=p.number,
    startTime=p.moment,
    endTime=p.moment,
    limit=p.limit(1000),
)
def all_orders(call: Call) -> list[dict[str, Any]]:
    q = call.params
    rules = rules_of(call, q["symbol"])
    start, end = _window(q)
    found = [
        o
        for o in call.exchange.engine.orders.values()
        if o.account_id == call.account_id
        and o.symbol == rules.symbol
        and o.order_id >= q.get("orderId", 0)
        and start <= o.created_ms <= end
    ]
    return [order_view(o, rules) for o in _page(found, q, from_start="orderId" in q or "startTime" in q)]


def _window(q: p.Params) -> tuple[int, int]:
    start, end = q.get("startTime", 0), q.get("endTime", 1 << 62)
    if "startTime" in q and "endTime" in q and end - start > DAY_MS:
        raise ApiError(-1127, "More than 24 hours between startTime and endTime.")
    return start, end


_T = TypeVar("_T")


def _page(found: list[_T], q: p.Params, *, from_start: bool) -> list[_T]:
    limit = q.get("limit", 500)
    return found[:limit] if from_start else found[-limit:]


# --------------------------------------------------------------------------------------------------------------- lists
@endpoint("GET", "/api/v3/orderList", _USER, weight=4, orderListId=p.number, origClientOrderId=p.client_id)
def query_order_list(call: Call) -> dict[str, Any]:
    q, engine = call.params, call.exchange.engine
    if "orderListId" not in q and "origClientOrderId" not in q:
        raise one_of("orderListId", "origClientOrderId")
    try:
        found = engine.find_list(call.account_id, q.get("orderListId"), q.get("origClientOrderId"))
    except Refusal:
        raise ApiError(-2018, "Order list does not exist.") from None
    return list_view(found, (engine.orders[i] for i in found.order_ids))


@endpoint("GET", "/api/v3/openOrderList", _USER, weight=6)
def open_order_lists(call: Call) -> list[dict[str, Any]]:
    return [v for v in _lists(call) if v["listOrderStatus"] == "EXECUTING"]


@endpoint(
    "GET",
    "/api/v3/allOrderList",
    _USER,
    weight=20,
    fromId=p.number,
    startTime=p.moment,
    endTime=p.moment,
    limit=p.limit(1000),
)
def all_order_lists(call: Call) -> list[dict[str, Any]]:
    q = call.params
    if "fromId" in q and ("startTime" in q or "endTime" in q):
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    start, end = _window(q)
    found = [v for v in _lists(call) if v["orderListId"] >= q.get("fromId", 0) and start <= v["transactionTime"] <= end]
    return _page(found, q, from_start="fromId" in q or "startTime" in q)


def _lists(call: Call) -> list[dict[str, Any]]:
    engine = call.exchange.engine
    return [
        list_view(x, (engine.orders[i] for i in x.order_ids))
        for x in engine.lists.values()
        if x.account_id == call.account_id
    ]


# -------------------------------------------------------------------------------------------------------------- trades
_TRADE_COMBINATIONS = (
    frozenset[str](),
    frozenset({"orderId"}),
    frozenset({"startTime"}),
    frozenset({"endTime"}),
    frozenset({"fromId"}),
    frozenset({"startTime", "endTime"}),
    frozenset({"orderId", "fromId"}),
)


@endpoint(
    "GET",
    "/api/v3/myTrades",
    _USER,
    weight=lambda sent: 5 if "orderId" in sent else 20,
    required=("symbol",),
    symbol=p.symbol,
    orderId=p.number,
    startTime=p.moment,
    endTime=p.moment,
    fromId=p.number,
    limit=p.limit(1000),
)
def my_trades(call: Call) -> list[dict[str, Any]]:
    q = call.params
    rules = rules_of(call, q["symbol"])
    if frozenset({"orderId", "startTime", "endTime", "fromId"} & set(q)) not in _TRADE_COMBINATIONS:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    start, end = _window(q)
    call.exchange.collect()
    found: list[Fill] = [
        f
        for f in call.exchange.fills.get((call.account_id, rules.symbol), [])
        if f.order_id == q.get("orderId", f.order_id) and f.trade_id >= q.get("fromId", 0) and start <= f.time_ms <= end
    ]
    from_start = bool({"fromId", "startTime", "orderId"} & set(q))
    return [my_trade_view(f, rules) for f in _page(found, q, from_start=from_start)]


@endpoint(
    "GET",
    "/api/v3/myPreventedMatches",
    _USER,
    weight=20,
    required=("symbol",),
    symbol=p.symbol,
    preventedMatchId=p.number,
    orderId=p.number,
    fromPreventedMatchId=p.number,
    limit=p.limit(1000),
)
@endpoint(
    "GET",
    "/api/v3/myAllocations",
    _USER,
    weight=20,
    required=("symbol",),
    symbol=p.symbol,
    startTime=p.moment,
    endTime=p.moment,
    fromAllocationId=p.number,
    orderId=p.number,
    limit=p.limit(1000),
)
@endpoint(
    "GET",
    "/api/v3/order/amendments",
    _USER,
    weight=4,
    required=("symbol", "orderId"),
    symbol=p.symbol,
    orderId=p.number,
    fromExecutionId=p.number,
    limit=p.limit(1000),
)
def nothing_of_the_kind(call: Call) -> list[dict[str, Any]]:
    """Prevented matches, allocations and amendments: accounts never meet each other here, and nothing is amended."""
    rules_of(call, call.params["symbol"])
    return []
