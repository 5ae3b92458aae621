"""Endpoints for lists of dependent orders: OCO, OTO, OTOCO, OPO, OPOCO, and their cancellation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_types import (
    ListKind,
    OrderSide,
    OrderStatus,
    Refusal,
    RejectReason,
)
from tradewind.paper import params as p
from tradewind.paper.dialect import ApiError, missing, one_of
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.order_requests import (
    leg_parameters,
    make_client_id,
    make_list,
    read_leg,
    read_pair,
    read_working,
)
from tradewind.paper.rules_endpoints import rules_of
from tradewind.paper.trade_endpoints import canceled_list, new_view
from tradewind.paper.views import list_view

_LIST: dict[str, p.Parser] = {
    "symbol": p.symbol,
    "listClientOrderId": p.client_id,
    "newOrderRespType": p.response_type,
    "selfTradePreventionMode": p.stp_mode,
}
_WORKING: dict[str, p.Parser] = {
    **_LIST,
    **leg_parameters("working"),
    "workingSide": p.side,
    "workingQuantity": p.decimal,
    "pendingSide": p.side,
}
_WORKING_REQUIRED = ("symbol", "workingType", "workingSide", "workingPrice", "workingQuantity", "pendingSide")


# --------------------------------------------------------------------------------------------------------------- lists
@endpoint(
    "POST",
    "/api/v3/orderList/oco",
    Security.TRADE,
    required=("symbol", "side", "quantity", "aboveType", "belowType"),
    side=p.side,
    quantity=p.decimal,
    shared=_LIST | leg_parameters("above") | leg_parameters("below"),
)
def new_oco(call: Call) -> dict[str, Any]:
    q = call.params
    rules = rules_of(call, q["symbol"])
    legs = read_pair(q, rules, "above", "below", OrderSide[q["side"]], q["quantity"])
    return _place_list(call, make_list(q, ListKind.OCO, rules, legs))


@endpoint(
    "POST",
    "/api/v3/order/oco",
    Security.TRADE,
    required=("symbol", "side", "quantity", "price", "stopPrice"),
    side=p.side,
    quantity=p.decimal,
    price=p.decimal,
    stopPrice=p.decimal,
    stopLimitPrice=p.decimal,
    stopLimitTimeInForce=p.time_in_force,
    trailingDelta=p.number,
    limitClientOrderId=p.client_id,
    stopClientOrderId=p.client_id,
    limitIcebergQty=p.decimal,
    stopIcebergQty=p.decimal,
    limitStrategyId=p.number,
    limitStrategyType=p.strategy_type,
    stopStrategyId=p.number,
    stopStrategyType=p.strategy_type,
    shared=_LIST,
)
def new_oco_of_old(call: Call) -> dict[str, Any]:
    """The first form of OCO, by limit and stop instead of above and below, which older clients still send."""
    q = call.params
    rules, side = rules_of(call, q["symbol"]), OrderSide[q["side"]]
    limit, stop = ("above", "below") if side is OrderSide.SELL else ("below", "above")
    as_now = {
        f"{limit}Type": "LIMIT_MAKER",
        f"{limit}Price": q["price"],
        f"{stop}Type": "STOP_LOSS_LIMIT" if "stopLimitPrice" in q else "STOP_LOSS",
        f"{stop}StopPrice": q["stopPrice"],
    }
    renamed = {"stopLimitPrice": f"{stop}Price", "stopLimitTimeInForce": f"{stop}TimeInForce"}
    renamed["trailingDelta"] = f"{stop}TrailingDelta"
    for old, new in (("limit", limit), ("stop", stop)):
        for field in ("ClientOrderId", "IcebergQty", "StrategyId", "StrategyType"):
            renamed[old + field] = new + field
    as_now |= {new: q[old] for old, new in renamed.items() if old in q}
    legs = read_pair({**as_now, **q}, rules, "above", "below", side, q["quantity"])
    return _place_list(call, make_list(q, ListKind.OCO, rules, legs))


@endpoint(
    "POST",
    "/api/v3/orderList/oto",
    Security.TRADE,
    required=(*_WORKING_REQUIRED, "pendingType", "pendingQuantity"),
    pendingQuantity=p.decimal,
    shared=_WORKING | leg_parameters("pending"),
)
def new_oto(call: Call) -> dict[str, Any]:
    q = call.params
    rules = rules_of(call, q["symbol"])
    pending = read_leg(q, rules, "pending", OrderSide[q["pendingSide"]], q["pendingQuantity"])
    return _place_list(call, make_list(q, ListKind.OTO, rules, (read_working(q, rules), pending)))


@endpoint(
    "POST",
    "/api/v3/orderList/otoco",
    Security.TRADE,
    required=(*_WORKING_REQUIRED, "pendingAboveType", "pendingQuantity"),
    pendingQuantity=p.decimal,
    shared=_WORKING | leg_parameters("pendingAbove") | leg_parameters("pendingBelow"),
)
def new_otoco(call: Call) -> dict[str, Any]:
    q = call.params
    if "pendingBelowType" not in q:
        raise missing("pendingBelowType")
    rules = rules_of(call, q["symbol"])
    legs = read_pair(q, rules, "pendingAbove", "pendingBelow", OrderSide[q["pendingSide"]], q["pendingQuantity"])
    return _place_list(call, make_list(q, ListKind.OTOCO, rules, (read_working(q, rules), *legs)))


@endpoint(
    "POST",
    "/api/v3/orderList/opo",
    Security.TRADE,
    required=(*_WORKING_REQUIRED, "pendingType"),
    shared=_WORKING | leg_parameters("pending"),
)
def new_opo(call: Call) -> dict[str, Any]:
    q = call.params
    _require_opo_sides(q)
    rules = rules_of(call, q["symbol"])
    pending = read_leg(q, rules, "pending", OrderSide.SELL, None, sized_later=True)
    return _place_list(call, make_list(q, ListKind.OPO, rules, (read_working(q, rules), pending)))


@endpoint(
    "POST",
    "/api/v3/orderList/opoco",
    Security.TRADE,
    required=(*_WORKING_REQUIRED, "pendingAboveType"),
    shared=_WORKING | leg_parameters("pendingAbove") | leg_parameters("pendingBelow"),
)
def new_opoco(call: Call) -> dict[str, Any]:
    q = call.params
    _require_opo_sides(q)
    if "pendingBelowType" not in q:
        raise missing("pendingBelowType")
    rules = rules_of(call, q["symbol"])
    legs = read_pair(q, rules, "pendingAbove", "pendingBelow", OrderSide.SELL, None, sized_later=True)
    return _place_list(call, make_list(q, ListKind.OPOCO, rules, (read_working(q, rules), *legs)))


def _require_opo_sides(q: p.Params) -> None:
    """What a working order buys, its pending orders sell; nothing else can be sized from proceeds."""
    if q["workingSide"] != "BUY" or q["pendingSide"] != "SELL":
        raise ApiError(-1117, "Invalid side.")


def _place_list(call: Call, new: NewOrderList) -> dict[str, Any]:
    exchange = call.exchange
    exchange.refresh(new.symbol, call.now_ms)
    if call.rejected_leg is not None:
        leg = min(max(call.rejected_leg, 0), len(new.orders) - 1)
        doomed = new.orders[leg]
        orders = list(new.orders)
        orders[leg] = replace(doomed, tags=(*doomed.tags, ("fault", "reject")))
        new = replace(new, orders=tuple(orders))
    exchange.engine.check_list(call.account_id, new)
    call.headers |= call.limiter.count_orders(call.account_id, len(new.orders), call.wall_ms)
    cap = None if call.take_cap_frac is None else int(new.orders[0].lots * call.take_cap_frac)
    order_list = exchange.engine.place_checked_list(call.account_id, new, call.now_ms, take_cap_lots=cap)
    orders_now = [exchange.engine.orders[i] for i in order_list.order_ids]
    shown = replace(order_list)
    if new.kind.has_working_leg and orders_now[0].status is OrderStatus.FILLED:
        # The answer to a list shows the working order's fill, but its pending orders as they were asked for.
        shown.is_done = False
        orders_now[1:] = [
            replace(
                leg, status=OrderStatus.PENDING_NEW, working_ms=-1, filled_lots=0, filled_quote_atoms=0,
                lots=request.lots, triggered=False,
            )
            for leg, request in zip(orders_now[1:], new.orders[1:], strict=True)
        ]  # fmt: skip
    response_type = call.params.get("newOrderRespType", "RESULT")
    reports = []
    for order in orders_now:
        view = new_view(call, order, response_type)
        if order.status is OrderStatus.PENDING_NEW:
            view.pop("fills", None)
            if new.kind.is_sized_from_proceeds:
                view.pop("origQty", None)  # not known before the working order has filled
        reports.append(view)
    return {**list_view(shown, orders_now), "orderReports": reports}


@endpoint(
    "DELETE",
    "/api/v3/orderList",
    Security.TRADE,
    required=("symbol",),
    symbol=p.symbol,
    orderListId=p.number,
    listClientOrderId=p.client_id,
    newClientOrderId=p.client_id,
)
def cancel_order_list(call: Call) -> dict[str, Any]:
    q, engine = call.params, call.exchange.engine
    rules = rules_of(call, q["symbol"])
    if "orderListId" not in q and "listClientOrderId" not in q:
        raise one_of("orderListId", "listClientOrderId")
    order_list = engine.find_list(call.account_id, q.get("orderListId"), q.get("listClientOrderId"))
    if order_list.symbol != rules.symbol:
        raise Refusal(RejectReason.UNKNOWN_ORDER)
    engine.cancel_list(call.account_id, order_list.list_id, call.now_ms)
    return canceled_list(call, order_list, q.get("newClientOrderId") or make_client_id())
