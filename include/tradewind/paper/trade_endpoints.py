"""Endpoints for single orders: new, test, cancel, cancel and replace."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tradewind.core.matching_ledger import FEE_DISCOUNT_PPM
from tradewind.core.matching_types import (
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
from tradewind.paper.dialect import ApiError, one_of, refusal
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.exchange import FEE_ASSET
from tradewind.paper.order_requests import (
    ORDER_TYPE,
    make_client_id,
    read_leg,
)
from tradewind.paper.rules_endpoints import rules_of
from tradewind.paper.views import cancel_view, list_view, new_order_view, prevented_view

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
    maker, taker = call.exchange.engine.book.accounts[call.account_id].fees_ppm(new.symbol)
    standard = {"maker": rate(maker), "taker": rate(taker)}
    none = {"maker": rate(0), "taker": rate(0)}
    return {
        "standardCommissionForOrder": standard,
        "specialCommissionForOrder": none,
        "taxCommissionForOrder": none,
        "discount": discount(call),
    }


def rate(ppm: int) -> str:
    return f"{Decimal(ppm) / 1_000_000:.8f}"


def discount(call: Call) -> dict[str, Any]:
    """The share of the standard commission that is paid when it is paid in BNB."""
    in_bnb = bool(call.exchange.engine.book.accounts[call.account_id].fee_asset)
    share = rate(FEE_DISCOUNT_PPM)
    return {"enabledForAccount": in_bnb, "enabledForSymbol": True, "discountAsset": FEE_ASSET, "discount": share}


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
    order = engine.place_checked(call.account_id, new, call.now_ms, take_cap_lots=cap)
    default = "FULL" if new.kind in (OrderKind.MARKET, OrderKind.LIMIT) else "ACK"
    return new_view(call, order, call.params.get("newOrderRespType", default))


def new_view(call: Call, order: Order, response_type: str) -> dict[str, Any]:
    call.exchange.collect()
    fills = call.exchange.fills_by_order.get(order.order_id, [])
    rules = call.exchange.engine.rules[order.symbol]
    body = new_order_view(order, rules, fills, response_type)
    met = [match for match in call.exchange.prevented if match.taker_order_id == order.order_id]
    if met and response_type != "ACK":
        body["preventedMatches"] = [prevented_view(match, rules) for match in met]
    return body


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
        return canceled_list(call, order_list, cancel_id)
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
            answers.append(canceled_list(call, order_list, cancel_id))
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


def canceled_list(call: Call, order_list: OrderList, cancel_id: str) -> dict[str, Any]:
    engine = call.exchange.engine
    orders = [engine.orders[i] for i in order_list.order_ids]
    rules = engine.rules[order_list.symbol]
    return {**list_view(order_list, orders), "orderReports": [cancel_view(o, rules, cancel_id) for o in orders]}
