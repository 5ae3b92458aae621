"""Endpoints that read an account: balances, orders, lists, trades."""

from __future__ import annotations

from typing import Any

from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import Fill, Order, Refusal
from tradewind.paper import params as p
from tradewind.paper.archive import Archive, Page
from tradewind.paper.dialect import ApiError, no_such_order, one_of
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.markets import DAY_MS
from tradewind.paper.rules_endpoints import rules_of
from tradewind.paper.trade_endpoints import rate
from tradewind.paper.views import list_view, my_trade_view, order_view, prevented_view, text

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
def query_order(call: Call) -> Any:
    q = call.params
    rules = rules_of(call, q["symbol"])
    if "orderId" not in q and "origClientOrderId" not in q:
        raise one_of("origClientOrderId", "orderId")
    try:
        order = call.exchange.engine.find_order(
            call.account_id, rules.symbol, q.get("orderId"), q.get("origClientOrderId")
        )
    except Refusal:
        if (archive := call.exchange.archive) is not None:
            return _archived_order(call, archive, rules)
        raise no_such_order() from None
    return order_view(order, rules)


async def _archived_order(call: Call, archive: Archive, rules: SymbolRules) -> dict[str, Any]:
    q = call.params
    client_id = q.get("origClientOrderId")
    if "orderId" in q:
        found = await archive.orders_by_id([q["orderId"]])
    else:
        found = await archive.order_with_client_id(call.account_id, q["origClientOrderId"])
    for order in found:
        mine = order.account_id == call.account_id and order.symbol == rules.symbol
        if mine and client_id in (None, order.client_id):
            return order_view(order, rules)
    raise no_such_order()


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
def all_orders(call: Call) -> Any:
    q = call.params
    rules = rules_of(call, q["symbol"])
    page = _page_of(q, q.get("orderId", 0), oldest="orderId" in q or "startTime" in q)
    found = [
        o
        for o in call.exchange.engine.orders.values()
        if o.account_id == call.account_id
        and o.symbol == rules.symbol
        and o.order_id >= page.first_id
        and page.start_ms <= o.created_ms <= page.end_ms
    ]

    def answer(older: list[Order]) -> list[dict[str, Any]]:
        merged = {o.order_id: o for o in (*older, *found)}
        return [order_view(merged[i], rules) for i in _cut(sorted(merged), page)]

    if (archive := call.exchange.archive) is None:
        return answer([])

    async def with_older() -> list[dict[str, Any]]:
        return answer(await archive.orders(call.account_id, rules.symbol, page))

    return with_older()


def _window(q: p.Params) -> tuple[int, int]:
    start, end = q.get("startTime", 0), q.get("endTime", 1 << 62)
    if "startTime" in q and "endTime" in q and end - start > DAY_MS:
        raise ApiError(-1127, "More than 24 hours between startTime and endTime.")
    return start, end


def _page_of(q: p.Params, first_id: int, *, oldest: bool) -> Page:
    start, end = _window(q)
    return Page(first_id, start, end, q.get("limit", 500), oldest)


def _cut(ids: list[int], page: Page) -> list[int]:
    """The page's share of ascending ids."""
    return ids[: page.limit] if page.oldest else ids[-page.limit :]


# --------------------------------------------------------------------------------------------------------------- lists
@endpoint("GET", "/api/v3/orderList", _USER, weight=4, orderListId=p.number, origClientOrderId=p.client_id)
def query_order_list(call: Call) -> Any:
    q, engine = call.params, call.exchange.engine
    if "orderListId" not in q and "origClientOrderId" not in q:
        raise one_of("orderListId", "origClientOrderId")
    try:
        found = engine.find_list(call.account_id, q.get("orderListId"), q.get("origClientOrderId"))
    except Refusal:
        if (archive := call.exchange.archive) is not None:
            return _archived_list(call, archive)
        raise _no_such_list() from None
    return list_view(found, (engine.orders[i] for i in found.order_ids))


async def _archived_list(call: Call, archive: Archive) -> dict[str, Any]:
    q = call.params
    client_id = q.get("origClientOrderId")
    if "orderListId" in q:
        found = await archive.lists_by_id([q["orderListId"]])
    else:
        found = await archive.list_with_client_id(call.account_id, q["origClientOrderId"])
    for order_list in found:
        if order_list.account_id == call.account_id and client_id in (None, order_list.client_id):
            return list_view(order_list, await archive.orders_by_id(order_list.order_ids))
    raise _no_such_list()


def _no_such_list() -> ApiError:
    return ApiError(-2018, "Order list does not exist.")


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
def all_order_lists(call: Call) -> Any:
    q = call.params
    if "fromId" in q and ("startTime" in q or "endTime" in q):
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    page = _page_of(q, q.get("fromId", 0), oldest="fromId" in q or "startTime" in q)
    found = {
        v["orderListId"]: v
        for v in _lists(call)
        if v["orderListId"] >= page.first_id and page.start_ms <= v["transactionTime"] <= page.end_ms
    }
    if (archive := call.exchange.archive) is None:
        return [found[i] for i in _cut(sorted(found), page)]
    return _with_older_lists(call, archive, page, found)


async def _with_older_lists(
    call: Call, archive: Archive, page: Page, found: dict[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    older = [x for x in await archive.lists(call.account_id, page) if x.list_id not in found]
    orders = {o.order_id: o for o in await archive.orders_by_id(i for x in older for i in x.order_ids)}
    found |= {x.list_id: list_view(x, (orders[i] for i in x.order_ids)) for x in older}
    return [found[i] for i in _cut(sorted(found), page)]


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
def my_trades(call: Call) -> Any:
    q = call.params
    rules = rules_of(call, q["symbol"])
    if frozenset({"orderId", "startTime", "endTime", "fromId"} & set(q)) not in _TRADE_COMBINATIONS:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    page = _page_of(q, q.get("fromId", 0), oldest=bool({"fromId", "startTime", "orderId"} & set(q)))
    call.exchange.collect()
    found = [
        f
        for f in call.exchange.fills.get((call.account_id, rules.symbol), [])
        if f.order_id == q.get("orderId", f.order_id)
        and f.trade_id >= page.first_id
        and page.start_ms <= f.time_ms <= page.end_ms
    ]

    def answer(older: list[Fill]) -> list[dict[str, Any]]:
        merged = {f.trade_id: f for f in (*older, *found)}
        return [my_trade_view(merged[i], rules) for i in _cut(sorted(merged), page)]

    if (archive := call.exchange.archive) is None:
        return answer([])

    async def with_older() -> list[dict[str, Any]]:
        return answer(await archive.fills(call.account_id, rules.symbol, page, q.get("orderId")))

    return with_older()


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
def prevented_matches(call: Call) -> list[dict[str, Any]]:
    """Orders of the account that would have traded with each other, oldest first."""
    q = call.params
    rules = rules_of(call, q["symbol"])
    call.exchange.collect()
    found = [
        match
        for match in call.exchange.prevented
        if match.account_id == call.account_id
        and match.symbol == rules.symbol
        and q.get("preventedMatchId", match.match_id) == match.match_id
        and match.match_id >= q.get("fromPreventedMatchId", 0)
        and ("orderId" not in q or q["orderId"] in (match.taker_order_id, match.maker_order_id))
    ]
    return [
        {
            "symbol": match.symbol,
            **prevented_view(match, rules),
            "takerOrderId": match.taker_order_id,
            "tradeGroupId": -1,
            "selfTradePreventionMode": match.mode,
            "transactTime": match.time_ms,
        }
        for match in found[: q.get("limit", 500)]
    ]


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
def no_allocations(call: Call) -> list[dict[str, Any]]:
    """None: every order meets its own book."""
    rules_of(call, call.params["symbol"])
    return []
