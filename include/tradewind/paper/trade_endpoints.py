"""Endpoints that change something: new orders, order lists, cancellations."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_types import (
    ListKind,
    NewOrder,
    Order,
    OrderKind,
    OrderList,
    OrderSide,
    OrderStatus,
    Refusal,
    RejectReason,
)
from tradewind.paper import params as p
from tradewind.paper.dialect import ApiError, missing, one_of, refusal
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.market_endpoints import rules_of
from tradewind.paper.order_requests import (
    ORDER_TYPE,
    leg_parameters,
    make_client_id,
    make_list,
    read_leg,
    read_pair,
    read_working,
)
from tradewind.paper.views import cancel_view, list_view, new_order_view

_RESTRICTIONS = p.one(("ONLY_NEW", "ONLY_PARTIALLY_FILLED"), -1145, "Invalid cancelRestrictions")
_NEW_ORDER: dict[str, p.Parser] = {
    "symbol": p.symbol,
    "side": p.side,
    "type": ORDER_TYPE,
    "timeInForce": p.time_in_force,
    "quantity": p.decimal,
    "quoteOrderQty": p.decimal,
    "price": p.decimal,
    "newClientOrderId": p.client_id,
    "strategyId": p.number,
    "strategyType": p.strategy_type,
    "stopPrice": p.decimal,
    "trailingDelta": p.number,
    "icebergQty": p.decimal,
    "newOrderRespType": p.response_type,
    "selfTradePreventionMode": p.stp_mode,
}
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


# ------------------------------------------------------------------------------------------------------- single orders
@endpoint("POST", "/api/v3/order", Security.TRADE, required=("symbol", "side", "type"), shared=_NEW_ORDER)
def new_order(call: Call) -> dict[str, Any]:
    new = _read_order(call)
    return _place(call, new)


@endpoint(
    "POST",
    "/api/v3/order/test",
    Security.TRADE,
    weight=lambda sent: 20 if sent.get("computeCommissionRates", "").lower() == "true" else 1,
    required=("symbol", "side", "type"),
    computeCommissionRates=p.boolean,
    shared=_NEW_ORDER,
)
def test_order(call: Call) -> dict[str, Any]:
    new = _read_order(call)
    call.exchange.engine.check(call.account_id, new)
    if not call.params.get("computeCommissionRates"):
        return {}
    account = call.exchange.engine.book.accounts[call.account_id]
    standard = {"maker": rate(account.maker_fee_ppm), "taker": rate(account.taker_fee_ppm)}
    none = {"maker": rate(0), "taker": rate(0)}
    return {
        "standardCommissionForOrder": standard,
        "specialCommissionForOrder": none,
        "taxCommissionForOrder": none,
        "discount": discount(),
    }


def rate(ppm: int) -> str:
    return f"{Decimal(ppm) / 1_000_000:.8f}"


def discount() -> dict[str, Any]:
    """The discount for paying fees in another asset, which this exchange does not give."""
    return {"enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": "0.00000000"}


def _read_order(call: Call) -> NewOrder:
    q = call.params
    rules = rules_of(call, q["symbol"])
    call.exchange.refresh(rules.symbol, call.now_ms)
    return read_leg(q, rules, "", OrderSide[q["side"]], q.get("quantity"))


def _place(call: Call, new: NewOrder, orders_counted: bool = False) -> dict[str, Any]:
    engine = call.exchange.engine
    engine.check(call.account_id, new)
    if not orders_counted:
        call.headers |= call.limiter.count_orders(call.account_id, 1, call.wall_ms)
    cap = None if call.take_cap_frac is None else int(new.lots * call.take_cap_frac)
    order = engine.place(call.account_id, new, call.now_ms, take_cap_lots=cap)
    default = "FULL" if new.kind in (OrderKind.MARKET, OrderKind.LIMIT) else "ACK"
    return _new_view(call, order, call.params.get("newOrderRespType", default))


def _new_view(call: Call, order: Order, response_type: str) -> dict[str, Any]:
    call.exchange.collect()
    fills = call.exchange.fills_by_order.get(order.order_id, [])
    return new_order_view(order, call.exchange.engine.rules[order.symbol], fills, response_type)


@endpoint(
    "DELETE",
    "/api/v3/order",
    Security.TRADE,
    required=("symbol",),
    symbol=p.symbol,
    orderId=p.number,
    origClientOrderId=p.client_id,
    newClientOrderId=p.client_id,
    cancelRestrictions=_RESTRICTIONS,
)
def cancel_order(call: Call) -> dict[str, Any]:
    q = call.params
    rules_of(call, q["symbol"])
    if "orderId" not in q and "origClientOrderId" not in q:
        raise one_of("origClientOrderId", "orderId")
    return _cancel(call, q.get("orderId"), q.get("origClientOrderId"), q.get("newClientOrderId"))


def _cancel(call: Call, order_id: int | None, client_id: str | None, cancel_id: str | None) -> dict[str, Any]:
    q, engine = call.params, call.exchange.engine
    order = engine.find_order(call.account_id, q["symbol"], order_id, client_id)
    wanted = {"ONLY_NEW": OrderStatus.NEW, "ONLY_PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED}.get(
        q.get("cancelRestrictions", "")
    )
    if wanted is not None and order.is_open and order.status is not wanted:
        raise Refusal(RejectReason.CANCEL_RESTRICTED)
    if not order.is_open:
        raise Refusal(RejectReason.UNKNOWN_ORDER)
    cancel_id = cancel_id or make_client_id()
    if order.list_id != -1:
        order_list = engine.cancel_list(call.account_id, order.list_id, call.now_ms)
        return _canceled_list(call, order_list, cancel_id)
    engine.cancel(call.account_id, order.order_id, call.now_ms)
    return cancel_view(order, engine.rules[order.symbol], cancel_id)


@endpoint("DELETE", "/api/v3/openOrders", Security.TRADE, required=("symbol",), symbol=p.symbol)
def cancel_open_orders(call: Call) -> list[dict[str, Any]]:
    rules = rules_of(call, call.params["symbol"])
    engine, cancel_id = call.exchange.engine, make_client_id()
    resting = engine.open_orders(call.account_id, rules.symbol)
    if not resting:
        raise Refusal(RejectReason.UNKNOWN_ORDER)
    answers, seen = [], set()
    for order in resting:
        if order.list_id == -1:
            engine.cancel(call.account_id, order.order_id, call.now_ms)
            answers.append(cancel_view(order, rules, cancel_id))
        elif order.list_id not in seen:
            seen.add(order.list_id)
            order_list = engine.cancel_list(call.account_id, order.list_id, call.now_ms)
            answers.append(_canceled_list(call, order_list, cancel_id))
    return answers


@endpoint(
    "POST",
    "/api/v3/order/cancelReplace",
    Security.TRADE,
    required=("symbol", "side", "type", "cancelReplaceMode"),
    cancelReplaceMode=p.one(("STOP_ON_FAILURE", "ALLOW_FAILURE")),
    cancelNewClientOrderId=p.client_id,
    cancelOrigClientOrderId=p.client_id,
    cancelOrderId=p.number,
    cancelRestrictions=_RESTRICTIONS,
    orderRateLimitExceededMode=p.one(("DO_NOTHING", "CANCEL_ONLY")),
    shared=_NEW_ORDER,
)
def cancel_replace(call: Call) -> dict[str, Any]:
    """Cancel one order and place another: two steps, of which the second may fail after the first succeeded."""
    q = call.params
    if "cancelOrderId" not in q and "cancelOrigClientOrderId" not in q:
        raise one_of("cancelOrigClientOrderId", "cancelOrderId")
    new = _read_order(call)
    limit_error: ApiError | None = None
    try:
        call.headers |= call.limiter.count_orders(call.account_id, 1, call.wall_ms)
    except ApiError as error:
        if q.get("orderRateLimitExceededMode") != "CANCEL_ONLY":
            raise
        limit_error = error
    canceled: dict[str, Any] | None = None
    cancel_error: ApiError | None = None
    try:
        canceled = _cancel(
            call, q.get("cancelOrderId"), q.get("cancelOrigClientOrderId"), q.get("cancelNewClientOrderId")
        )
    except Refusal as rejected:
        cancel_error = refusal(rejected)
    placed: dict[str, Any] | None = None
    place_error = limit_error
    attempted = cancel_error is None or q["cancelReplaceMode"] == "ALLOW_FAILURE"
    if attempted and place_error is None:
        try:
            placed = _place(call, new, orders_counted=True)
        except Refusal as rejected:
            place_error = refusal(rejected)
    body = {
        "cancelResult": "SUCCESS" if cancel_error is None else "FAILURE",
        "newOrderResult": "SUCCESS" if placed else "FAILURE" if attempted else "NOT_ATTEMPTED",
        "cancelResponse": canceled if cancel_error is None else cancel_error.body(),
        "newOrderResponse": placed or (place_error.body() if attempted and place_error else None),
    }
    if placed and canceled:
        return body
    if placed or canceled:
        call.status = 429 if limit_error else 409
        return {"code": -2021, "msg": "Order cancel-replace partially failed.", "data": body}
    call.status = 429 if limit_error else 400
    return {"code": -2022, "msg": "Order cancel-replace failed.", "data": body}


@endpoint(
    "PUT",
    "/api/v3/order/amend/keepPriority",
    Security.TRADE,
    weight=4,
    required=("symbol", "newQty"),
    symbol=p.symbol,
    orderId=p.number,
    origClientOrderId=p.client_id,
    newClientOrderId=p.client_id,
    newQty=p.decimal,
)
def amend_order(call: Call) -> dict[str, Any]:
    """Refused, as exchangeInfo announces (`amendAllowed` is false)."""
    rules_of(call, call.params["symbol"])
    raise ApiError(-2038, "The requested action would change no state; order amend is not supported for this symbol.")


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
        doomed = new.orders[call.rejected_leg]
        orders = list(new.orders)
        orders[call.rejected_leg] = replace(doomed, tags=(*doomed.tags, ("fault", "reject")))
        new = replace(new, orders=tuple(orders))
    exchange.engine.check_list(call.account_id, new)
    call.headers |= call.limiter.count_orders(call.account_id, len(new.orders), call.wall_ms)
    cap = None if call.take_cap_frac is None else int(new.orders[0].lots * call.take_cap_frac)
    order_list = exchange.engine.place_list(call.account_id, new, call.now_ms, take_cap_lots=cap)
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
        view = _new_view(call, order, response_type)
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
    return _canceled_list(call, order_list, q.get("newClientOrderId") or make_client_id())


def _canceled_list(call: Call, order_list: OrderList, cancel_id: str) -> dict[str, Any]:
    engine = call.exchange.engine
    orders = [engine.orders[i] for i in order_list.order_ids]
    rules = engine.rules[order_list.symbol]
    return {**list_view(order_list, orders), "orderReports": [cancel_view(o, rules, cancel_id) for o in orders]}
