"""Conditional futures orders: since December 2025 they live with the algo service, under ids of their own.

A conditional order waits there; when its trigger price is reached an order of the matching engine is placed for it
(`actualOrderId`), and from then on that order tells what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tradewind.core.futures_engine import CLOSE_POSITION, REDUCE_ONLY
from tradewind.core.matching_types import NewOrder, Order, OrderKind, OrderSide, Refusal, RejectReason
from tradewind.paper import params as p
from tradewind.paper.dialect import ApiError, missing, no_such_order, one_of
from tradewind.paper.endpoints import Call, Security
from tradewind.paper.futures_dialect import CONDITIONAL_TYPES, desk, futures_endpoint, futures_rules
from tradewind.paper.futures_order_endpoints import (
    PLACING,
    choose_orders,
    orders_of,
    place,
    read_lots,
    read_tags,
    read_ticks,
    read_time_in_force,
)
from tradewind.paper.futures_views import ALGO, algo_view, is_algo
from tradewind.paper.order_requests import make_client_id

_USER: Final = Security.USER_DATA
_TRADE: Final = Security.TRADE
_KINDS: Final[Mapping[str, OrderKind]] = {
    "STOP_MARKET": OrderKind.STOP_LOSS,
    "STOP": OrderKind.STOP_LOSS_LIMIT,
    "TAKE_PROFIT_MARKET": OrderKind.TAKE_PROFIT,
    "TAKE_PROFIT": OrderKind.TAKE_PROFIT_LIMIT,
    "TRAILING_STOP_MARKET": OrderKind.STOP_LOSS,
}


def _read(call: Call) -> NewOrder:
    q = call.params
    rules = futures_rules(call, q["symbol"])
    kind = _KINDS[q["type"]]
    trails = q["type"] == "TRAILING_STOP_MARKET"
    if q.get(CLOSE_POSITION):
        if kind.has_price or trails:
            raise ApiError(-4136, "Target strategy invalid for orderType with closePosition.")
        if "quantity" in q:
            raise ApiError(-4137, "Quantity must be zero with closePosition equals true.")
        if q.get(REDUCE_ONLY):
            raise ApiError(-1106, "Parameter 'reduceOnly' sent when not required.")
    lots = 0 if q.get(CLOSE_POSITION) else read_lots(rules, q.get("quantity"))
    if kind.has_price and "price" not in q:
        raise missing("price")
    if not kind.has_price and "price" in q:
        raise ApiError(-1106, "Parameter 'price' sent when not required.")
    trailing_bps = 0
    if trails:
        if "callbackRate" not in q:
            raise missing("callbackRate")
        trailing_bps = int(q["callbackRate"] * 100)
        if trailing_bps != q["callbackRate"] * 100:
            raise ApiError(-1130, "Data sent for parameter 'callbackRate' is not valid.")
        stop_ticks = read_ticks(rules, q.get("activatePrice", q.get("activationPrice")))
    elif "triggerPrice" not in q:
        raise missing("triggerPrice")
    else:
        stop_ticks = read_ticks(rules, q["triggerPrice"])
    time_in_force, must_make = read_time_in_force(q, priced=kind.has_price)
    if must_make:
        raise ApiError(-1115, "Invalid timeInForce.")
    return NewOrder(
        rules.symbol, OrderSide[q["side"]], kind, q.get("clientAlgoId") or make_client_id(), lots,
        read_ticks(rules, q.get("price")), stop_ticks, trailing_bps, time_in_force=time_in_force,
        tags=((ALGO, 1), *read_tags(q)),
    )  # fmt: skip


@futures_endpoint(
    "POST",
    "/fapi/v1/algoOrder",
    _TRADE,
    required=("algoType", "symbol", "side", "type"),
    shared={**PLACING, "type": p.one(CONDITIONAL_TYPES, -1116, "Invalid orderType.")},
    algoType=p.one(("CONDITIONAL",)),
    triggerPrice=p.decimal,
    closePosition=p.boolean,
    activatePrice=p.decimal,
    activationPrice=p.decimal,
    callbackRate=p.decimal,
    clientAlgoId=p.client_id,
)
def new_algo_order(call: Call) -> dict[str, Any]:
    order = place(call, _read(call))
    return algo_view(order, desk(call).engine.rules[order.symbol])


# ------------------------------------------------------------------------------------------------------ cancel and ask
_NAMING: Final[Mapping[str, p.Parser]] = {"symbol": p.symbol, "algoId": p.number, "clientAlgoId": p.client_id}


def _named(call: Call) -> Order:
    q, engine = call.params, desk(call).engine
    if "algoId" not in q and "clientAlgoId" not in q:
        raise one_of("algoId", "clientAlgoId")
    matching = (
        order
        for order in reversed(engine.orders.values())
        if order.account_id == call.account_id
        and is_algo(order)
        and ("algoId" not in q or order.order_id == q["algoId"])
        and ("clientAlgoId" not in q or order.client_id == q["clientAlgoId"])
        and ("symbol" not in q or order.symbol == q["symbol"])
    )
    newest = next(matching, None)
    if newest is None:
        raise Refusal(RejectReason.UNKNOWN_ORDER)
    return newest


def _waits(order: Order) -> bool:
    """Whether a conditional order waits for its price: one that hangs in TRIGGERING is neither open nor cancellable."""
    return order.awaits_trigger and not order.hangs


@futures_endpoint("DELETE", "/fapi/v1/algoOrder", _TRADE, shared=_NAMING)
def cancel_algo_order(call: Call) -> dict[str, Any]:
    """Cancel a conditional order that has not triggered. Raises Refusal(UNKNOWN_ORDER) for any other."""
    order = _named(call)
    if not _waits(order) or not order.is_open:
        raise Refusal(RejectReason.UNKNOWN_ORDER)
    desk(call).engine.cancel(call.account_id, order.order_id, call.now_ms)
    return {"algoId": order.order_id, "clientAlgoId": order.client_id, "code": "200", "msg": "success"}


@futures_endpoint("DELETE", "/fapi/v1/algoOpenOrders", _TRADE, required=("symbol",), symbol=p.symbol)
def cancel_all_algo_orders(call: Call) -> dict[str, Any]:
    rules = futures_rules(call, call.params["symbol"])
    engine = desk(call).engine
    for order in engine.open_orders(call.account_id, rules.symbol):
        if is_algo(order) and _waits(order):
            engine.cancel(call.account_id, order.order_id, call.now_ms)
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


@futures_endpoint("GET", "/fapi/v1/algoOrder", _USER, shared=_NAMING)
def query_algo_order(call: Call) -> dict[str, Any]:
    try:
        order = _named(call)
    except Refusal:
        raise no_such_order() from None
    return algo_view(order, desk(call).engine.rules[order.symbol])


@futures_endpoint(
    "GET", "/fapi/v1/openAlgoOrders", _USER, symbol=p.symbol, algoId=p.number, algoType=p.one(("CONDITIONAL",))
)
def open_algo_orders(call: Call) -> list[dict[str, Any]]:
    q, engine = call.params, desk(call).engine
    symbol = futures_rules(call, q["symbol"]).symbol if "symbol" in q else None
    return [
        algo_view(order, engine.rules[order.symbol])
        for order in engine.open_orders(call.account_id, symbol)
        if is_algo(order) and _waits(order) and ("algoId" not in q or order.order_id == q["algoId"])
    ]


@futures_endpoint(
    "GET",
    "/fapi/v1/allAlgoOrders",
    _USER,
    weight=5,
    required=("symbol",),
    symbol=p.symbol,
    algoId=p.number,
    startTime=p.moment,
    endTime=p.moment,
    page=p.number,
    limit=p.limit(1000),
)
def all_algo_orders(call: Call) -> list[dict[str, Any]]:
    rules = futures_rules(call, call.params["symbol"])
    found = [order for order in orders_of(call, rules.symbol) if is_algo(order)]
    return [algo_view(order, rules) for order in choose_orders(call, found, call.params.get("algoId"))]
