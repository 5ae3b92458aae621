"""Endpoints that reduce an order where it stands, and that tell how it was reduced."""

from __future__ import annotations

from typing import Any

from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import NO_LIST, Order, Refusal
from tradewind.paper import params as p
from tradewind.paper.archive import Archive
from tradewind.paper.dialect import ApiError, no_such_order, one_of
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.order_requests import make_client_id
from tradewind.paper.rules_endpoints import rules_of
from tradewind.paper.views import Scale, list_view, money


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
    q, engine = call.params, call.exchange.engine
    rules = rules_of(call, q["symbol"])
    if "orderId" not in q and "origClientOrderId" not in q:
        raise one_of("origClientOrderId", "orderId")
    if q["newQty"] == 0:
        raise ApiError(-1013, "Invalid quantity.")
    call.exchange.refresh(rules.symbol, call.now_ms)
    try:
        found = engine.find_order(call.account_id, rules.symbol, q.get("orderId"), q.get("origClientOrderId"))
    except Refusal:
        raise ApiError(-2038, "Unknown order sent.") from None
    if not found.is_open:
        raise ApiError(-2038, "Unknown order sent.")
    before = found.client_id
    new_id = q.get("newClientOrderId") or make_client_id()
    order = engine.amend(call.account_id, found.order_id, rules.lots(q["newQty"]), new_id, call.now_ms)
    answer = {
        "transactTime": call.now_ms,
        "executionId": order.amendments[-1].execution_id,
        "amendedOrder": _amended(order, rules, before),
    }
    if order.list_id != NO_LIST:
        order_list = engine.lists[order.list_id]
        shown = list_view(order_list, (engine.orders[i] for i in order_list.order_ids))
        names = ("orderListId", "contingencyType", "listOrderStatus", "listClientOrderId", "symbol", "orders")
        answer["listStatus"] = {name: shown[name] for name in names}
    return answer


def _amended(order: Order, rules: SymbolRules, id_before: str) -> dict[str, Any]:
    scale = Scale(rules)
    body = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "origClientOrderId": id_before,
        "clientOrderId": order.client_id,
        "price": scale.price(order.price_ticks),
        "qty": scale.quantity(order.lots),
        "executedQty": scale.quantity(order.filled_lots),
        "preventedQty": scale.quantity(0),
        "quoteOrderQty": money(order.quote_atoms),
        "cumulativeQuoteQty": money(order.filled_quote_atoms),
        "status": order.status.value,
        "timeInForce": order.time_in_force.value,
        "type": order.kind.value,
        "side": order.side.name,
        "workingTime": order.working_ms,
        "selfTradePreventionMode": dict(order.tags).get("selfTradePreventionMode", "NONE"),
    }
    if order.stop_ticks:
        body["stopPrice"] = scale.price(order.stop_ticks)
    if order.iceberg_lots:
        body["icebergQty"] = scale.quantity(order.iceberg_lots)
    return body


@endpoint(
    "GET",
    "/api/v3/order/amendments",
    Security.USER_DATA,
    weight=4,
    required=("symbol", "orderId"),
    symbol=p.symbol,
    orderId=p.number,
    fromExecutionId=p.number,
    limit=p.limit(1000),
)
def amendments(call: Call) -> Any:
    q = call.params
    rules = rules_of(call, q["symbol"])
    try:
        order = call.exchange.engine.find_order(call.account_id, rules.symbol, q["orderId"], None)
    except Refusal:
        if (archive := call.exchange.archive) is not None:
            return _archived_amendments(call, archive, rules)
        raise no_such_order() from None
    return _amendment_rows(call, order, rules)


async def _archived_amendments(call: Call, archive: Archive, rules: SymbolRules) -> list[dict[str, Any]]:
    for order in await archive.orders_by_id([call.params["orderId"]]):
        if order.account_id == call.account_id and order.symbol == rules.symbol:
            return _amendment_rows(call, order, rules)
    raise no_such_order()


def _amendment_rows(call: Call, order: Order, rules: SymbolRules) -> list[dict[str, Any]]:
    scale = Scale(rules)
    first = call.params.get("fromExecutionId", 0)
    found = [step for step in order.amendments if step.execution_id >= first]
    return [
        {
            "symbol": order.symbol,
            "orderId": order.order_id,
            "executionId": step.execution_id,
            "origClientOrderId": step.client_id_before,
            "newClientOrderId": step.client_id_after,
            "origQty": scale.quantity(step.lots_before),
            "newQty": scale.quantity(step.lots_after),
            "time": step.time_ms,
        }
        for step in found[: call.params.get("limit", 500)]
    ]
