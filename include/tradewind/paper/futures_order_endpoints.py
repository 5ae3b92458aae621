"""Futures orders of the matching engine: placing, cancelling, asking, and their trades."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from tradewind.core.futures_engine import CLOSE_POSITION, REDUCE_ONLY
from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import NewOrder, Order, OrderKind, OrderSide, Refusal, RejectReason, TimeInForce
from tradewind.paper import params as p
from tradewind.paper.dialect import ApiError, missing, no_such_order, one_of
from tradewind.paper.endpoints import Call, Security
from tradewind.paper.futures_dialect import (
    CONDITIONAL_TYPES,
    ORDER_TYPES,
    TIMES_IN_FORCE,
    desk,
    futures_endpoint,
    futures_rules,
)
from tradewind.paper.futures_views import is_regular, order_view, trade_view
from tradewind.paper.markets import DAY_MS
from tradewind.paper.order_requests import make_client_id

_USER: Final = Security.USER_DATA
_TRADE: Final = Security.TRADE
ONE_WAY: Final = p.one(("BOTH",), -4061, "Order's position side does not match user's setting.")
PLACING: Final[Mapping[str, p.Parser]] = {
    "symbol": p.symbol,
    "side": p.side,
    "positionSide": ONE_WAY,
    "type": p.one(ORDER_TYPES, -1116, "Invalid orderType."),
    "timeInForce": p.one(TIMES_IN_FORCE, -1115, "Invalid timeInForce."),
    "quantity": p.decimal,
    "price": p.decimal,
    "reduceOnly": p.boolean,
    "workingType": p.one(("MARK_PRICE", "CONTRACT_PRICE"), -1130),
    "priceProtect": p.boolean,
    "selfTradePreventionMode": p.one(("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH")),
    "newOrderRespType": p.one(("ACK", "RESULT")),
}
_WEEK_MS: Final = 7 * DAY_MS


# -------------------------------------------------------------------------------------------------------------- reading
def read_ticks(rules: SymbolRules, value: Decimal | None) -> int:
    """A price in ticks; 0 when it was not sent. Raises ApiError -4014 off the grid."""
    if value is None:
        return 0
    ticks = value / rules.tick
    if ticks != int(ticks):
        raise ApiError(-4014, "Price not increased by tick size.")
    if ticks <= 0:
        raise ApiError(-4001, "Price less than or equal to zero.")
    return int(ticks)


def read_lots(rules: SymbolRules, value: Decimal | None) -> int:
    """A quantity in lots. Raises ApiError: -1102 missing, -4003 zero, -1111 off the grid."""
    if value is None:
        raise missing("quantity")
    if value <= 0:
        raise ApiError(-4003, "Quantity less than or equal to zero.")
    lots = value / rules.step
    if lots != int(lots):
        raise ApiError(-1111, "Precision is over the maximum defined for this asset.")
    return int(lots)


def read_time_in_force(q: Mapping[str, Any], *, priced: bool) -> tuple[TimeInForce, bool]:
    """(time in force, whether it must be the maker). GTX is good-till-cancelled as a maker."""
    wanted = q.get("timeInForce", "GTC")
    if wanted == "GTX" and not priced:
        raise ApiError(-1106, "Parameter 'timeInForce' sent when not required.")
    return (TimeInForce.GTC, True) if wanted == "GTX" else (TimeInForce(wanted), False)


def read_tags(q: Mapping[str, Any]) -> tuple[tuple[str, str | int], ...]:
    """The flags of an order that are set."""
    tags: list[tuple[str, str | int]] = [
        (name, 1) for name in (REDUCE_ONLY, CLOSE_POSITION, "priceProtect") if q.get(name)
    ]
    tags += [(name, q[name]) for name in ("workingType", "selfTradePreventionMode") if name in q]
    return tuple(tags)


def _read_order(call: Call) -> NewOrder:
    q = call.params
    rules = futures_rules(call, q["symbol"])
    kind_name = q["type"]
    if kind_name in CONDITIONAL_TYPES:
        raise ApiError(
            -4120,
            "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead.",
        )
    lots = read_lots(rules, q.get("quantity"))
    kind, ticks, time_in_force = OrderKind.MARKET, 0, TimeInForce.GTC
    if kind_name == "LIMIT":
        for name in ("price", "timeInForce"):
            if name not in q:
                raise missing(name)
        ticks = read_ticks(rules, q["price"])
        time_in_force, is_maker = read_time_in_force(q, priced=True)
        kind = OrderKind.LIMIT_MAKER if is_maker else OrderKind.LIMIT
    elif "price" in q:
        raise ApiError(-1106, "Parameter 'price' sent when not required.")
    return NewOrder(
        rules.symbol, OrderSide[q["side"]], kind, q.get("newClientOrderId") or make_client_id(), lots, ticks,
        time_in_force=time_in_force, tags=read_tags(q),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- placing
@futures_endpoint(
    "POST",
    "/fapi/v1/order",
    _TRADE,
    required=("symbol", "side", "type"),
    shared=PLACING,
    newClientOrderId=p.client_id,
    stopPrice=p.decimal,
    closePosition=p.boolean,
    activationPrice=p.decimal,
    callbackRate=p.decimal,
)
def new_order(call: Call) -> dict[str, Any]:
    new = _read_order(call)
    order = place(call, new)
    rules = desk(call).engine.rules[order.symbol]
    body = order_view(order, rules)
    del body["time"]
    if call.params.get("newOrderRespType", "ACK") == "ACK":
        # An ACK shows the order as it was accepted, before it met the book.
        body |= {"status": "NEW", "executedQty": "0.00000000", "cumQty": "0.00000000", "cumQuote": "0.00000000"}
        body["avgPrice"] = "0.00"
    return body


@futures_endpoint(
    "POST",
    "/fapi/v1/order/test",
    _TRADE,
    required=("symbol", "side", "type"),
    shared=PLACING,
    newClientOrderId=p.client_id,
)
def test_order(call: Call) -> dict[str, Any]:
    new = _read_order(call)
    desk(call).account(call.account_id)
    desk(call).refresh(new.symbol, call.now_ms)
    desk(call).engine.check(call.account_id, new)
    return {}


def place(call: Call, new: NewOrder) -> Order:
    """Place an order at this moment's price, counted against the order budget."""
    exchange = desk(call)
    exchange.account(call.account_id)
    exchange.refresh(new.symbol, call.now_ms)
    exchange.engine.check(call.account_id, new)
    call.headers |= call.limiter.count_orders(call.account_id, 1, call.wall_ms)
    cap = None if call.take_cap_frac is None else int(new.lots * call.take_cap_frac)
    return exchange.engine.place(call.account_id, new, call.now_ms, take_cap_lots=cap)


# ------------------------------------------------------------------------------------------------------ cancel and ask
_NAMING: Final[Mapping[str, p.Parser]] = {
    "symbol": p.symbol,
    "orderId": p.number,
    "origClientOrderId": p.client_id,
}


def _named(call: Call) -> Order:
    """The order that a request names. Raises Refusal(UNKNOWN_ORDER) also for a conditional one that waits."""
    q = call.params
    rules = futures_rules(call, q["symbol"])
    if "orderId" not in q and "origClientOrderId" not in q:
        raise one_of("origClientOrderId", "orderId")
    order = desk(call).engine.find_order(call.account_id, rules.symbol, q.get("orderId"), q.get("origClientOrderId"))
    if not is_regular(order):
        raise Refusal(RejectReason.UNKNOWN_ORDER)
    return order


@futures_endpoint("DELETE", "/fapi/v1/order", _TRADE, required=("symbol",), shared=_NAMING)
def cancel_order(call: Call) -> dict[str, Any]:
    order = _named(call)
    desk(call).engine.cancel(call.account_id, order.order_id, call.now_ms)
    return order_view(order, desk(call).engine.rules[order.symbol])


@futures_endpoint("DELETE", "/fapi/v1/allOpenOrders", _TRADE, required=("symbol",), symbol=p.symbol)
def cancel_all_orders(call: Call) -> dict[str, Any]:
    rules = futures_rules(call, call.params["symbol"])
    engine = desk(call).engine
    for order in engine.open_orders(call.account_id, rules.symbol):
        if is_regular(order):
            engine.cancel(call.account_id, order.order_id, call.now_ms)
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


@futures_endpoint("GET", "/fapi/v1/order", _USER, required=("symbol",), shared=_NAMING)
def query_order(call: Call) -> dict[str, Any]:
    try:
        order = _named(call)
    except Refusal:
        raise no_such_order() from None
    return order_view(order, desk(call).engine.rules[order.symbol])


@futures_endpoint("GET", "/fapi/v1/openOrder", _USER, required=("symbol",), shared=_NAMING)
def query_open_order(call: Call) -> dict[str, Any]:
    try:
        order = _named(call)
    except Refusal:
        raise no_such_order() from None
    if not order.is_open:
        raise no_such_order()
    return order_view(order, desk(call).engine.rules[order.symbol])


@futures_endpoint("GET", "/fapi/v1/openOrders", _USER, symbol=p.symbol)
def open_orders(call: Call) -> list[dict[str, Any]]:
    engine = desk(call).engine
    symbol = futures_rules(call, call.params["symbol"]).symbol if "symbol" in call.params else None
    found = engine.open_orders(call.account_id, symbol)
    return [order_view(order, engine.rules[order.symbol]) for order in found if is_regular(order)]


@futures_endpoint(
    "GET",
    "/fapi/v1/allOrders",
    _USER,
    weight=5,
    required=("symbol",),
    symbol=p.symbol,
    orderId=p.number,
    startTime=p.moment,
    endTime=p.moment,
    limit=p.limit(1000),
)
def all_orders(call: Call) -> list[dict[str, Any]]:
    q = call.params
    rules = futures_rules(call, q["symbol"])
    found = [order for order in orders_of(call, rules.symbol) if is_regular(order)]
    chosen = choose_orders(call, found, q.get("orderId"))
    return [order_view(order, rules) for order in chosen]


def orders_of(call: Call, symbol: str) -> list[Order]:
    """Every order of the account in a symbol, oldest first."""
    return [
        order
        for order in desk(call).engine.orders.values()
        if order.account_id == call.account_id and order.symbol == symbol
    ]


def choose_orders(call: Call, found: list[Order], from_id: int | None) -> list[Order]:
    """The part of a history that was asked for: from an id on, or within times, or the newest."""
    q = call.params
    limit = q.get("limit", 500)
    if from_id is not None:
        return [order for order in found if order.order_id >= from_id][:limit]
    within = [o for o in found if q.get("startTime", 0) <= o.created_ms <= q.get("endTime", o.created_ms)]
    return within[:limit] if "startTime" in q else within[-limit:]


@futures_endpoint(
    "GET",
    "/fapi/v1/userTrades",
    _USER,
    weight=5,
    required=("symbol",),
    symbol=p.symbol,
    orderId=p.number,
    startTime=p.moment,
    endTime=p.moment,
    fromId=p.number,
    limit=p.limit(1000),
)
def user_trades(call: Call) -> list[dict[str, Any]]:
    """Trades, oldest first. Times span a week at most, as documented: from `startTime` on, or up to `endTime`."""
    q = call.params
    rules = futures_rules(call, q["symbol"])
    if "fromId" in q and ("startTime" in q or "endTime" in q):
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    call.exchange.collect()
    found = desk(call).trades.get((call.account_id, rules.symbol), [])
    if "orderId" in q:
        found = [trade for trade in found if trade.fill.order_id == q["orderId"]]
    limit = q.get("limit", 500)
    if "fromId" in q:
        chosen = [trade for trade in found if trade.fill.trade_id >= q["fromId"]][:limit]
        return [trade_view(trade, rules) for trade in chosen]
    start_ms, end_ms = q.get("startTime"), q.get("endTime")
    if start_ms is not None and end_ms is not None and end_ms - start_ms > _WEEK_MS:
        raise ApiError(-4166, "Search window is restricted to recent 7 days only.")
    first = start_ms if start_ms is not None else (end_ms or call.now_ms) - _WEEK_MS
    last = end_ms if end_ms is not None else first + _WEEK_MS
    within = [trade for trade in found if first <= trade.fill.time_ms <= last]
    chosen = within[:limit] if start_ms is not None else within[-limit:]
    return [trade_view(trade, rules) for trade in chosen]
