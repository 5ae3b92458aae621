"""Orders, lists and trades as Binance writes them: amounts as strings with eight decimals, times in ms."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import (
    Fill,
    ListKind,
    Order,
    OrderList,
    OrderSide,
    OrderStatus,
    PreventedMatch,
)


def text(value: Decimal) -> str:
    """An amount with eight decimals."""
    return f"{value:.8f}"


def money(atom_count: int) -> str:
    return _fixed(atom_count)


class Scale:
    """Fast exact formatting of ticks and lots of one symbol."""

    def __init__(self, rules: SymbolRules) -> None:
        self._price = int(rules.tick * 10**8)
        self._lot = rules.base_atoms_per_lot
        self._quote = rules.quote_atoms_per_ticklot

    def price(self, ticks: int) -> str:
        return _fixed(ticks * self._price)

    def quantity(self, lots: int) -> str:
        return _fixed(lots * self._lot)

    def quote(self, ticks: int, lots: int) -> str:
        return _fixed(ticks * lots * self._quote)


def _fixed(units: int) -> str:
    digits = str(units)
    return f"{digits[:-8]}.{digits[-8:]}" if len(digits) > 8 else f"0.{digits:0>8}"


# -------------------------------------------------------------------------------------------------------------- orders
def new_order_view(order: Order, rules: SymbolRules, fills: Iterable[Fill], response_type: str) -> dict[str, Any]:
    """The answer to placing an order: ACK, RESULT or FULL."""
    body: dict[str, Any] = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_id,
        "transactTime": order.updated_ms,
    }
    if response_type == "ACK":
        return body
    body |= _state(order, rules)
    body["workingTime"] = order.working_ms
    body |= _conditional(order, rules)
    body["selfTradePreventionMode"] = dict(order.tags).get("selfTradePreventionMode", "NONE")
    if response_type == "FULL":
        scale = Scale(rules)
        body["fills"] = [
            {
                "price": scale.price(f.price_ticks),
                "qty": scale.quantity(f.lots),
                "commission": money(f.commission_atoms),
                "commissionAsset": f.commission_asset,
                "tradeId": f.trade_id,
            }
            for f in fills
        ]
    return body


def cancel_view(order: Order, rules: SymbolRules, cancel_id: str) -> dict[str, Any]:
    """The answer to a cancellation; `cancel_id` is the id of the cancel request itself."""
    return {
        "symbol": order.symbol,
        "origClientOrderId": order.client_id,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": cancel_id,
        "transactTime": order.updated_ms,
        **_state(order, rules),
        **_conditional(order, rules),
        "selfTradePreventionMode": dict(order.tags).get("selfTradePreventionMode", "NONE"),
    }


def order_view(order: Order, rules: SymbolRules) -> dict[str, Any]:
    """An order as the query endpoints show it."""
    scale = Scale(rules)
    body = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_id,
        **_state(order, rules),
        "stopPrice": scale.price(order.stop_ticks),
        "icebergQty": scale.quantity(order.iceberg_lots),
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": order.status is not OrderStatus.PENDING_NEW and not order.awaits_trigger,
        "workingTime": order.working_ms,
    }
    body |= {k: v for k, v in _conditional(order, rules).items() if k not in ("stopPrice", "icebergQty")}
    body["selfTradePreventionMode"] = dict(order.tags).get("selfTradePreventionMode", "NONE")
    return body


def _state(order: Order, rules: SymbolRules) -> dict[str, Any]:
    scale = Scale(rules)
    return {
        "price": scale.price(order.price_ticks),
        "origQty": scale.quantity(order.lots),
        "executedQty": scale.quantity(order.filled_lots),
        "origQuoteOrderQty": money(order.quote_atoms),
        "cummulativeQuoteQty": money(order.filled_quote_atoms),
        "status": order.status.value,
        "timeInForce": order.time_in_force.value,
        "type": order.kind.value,
        "side": order.side.name,
    }


def _conditional(order: Order, rules: SymbolRules) -> dict[str, Any]:
    """Fields that appear only for some orders."""
    scale = Scale(rules)
    body: dict[str, Any] = {}
    if order.kind.is_contingent and order.stop_ticks:
        body["stopPrice"] = scale.price(order.stop_ticks)
    if order.trailing_bps:
        body["trailingDelta"] = order.trailing_bps
        body["trailingTime"] = order.trailing_ms
    if order.iceberg_lots:
        body["icebergQty"] = scale.quantity(order.iceberg_lots)
    if order.status is OrderStatus.EXPIRED and order.reject_reason:
        body["expiryReason"] = order.reject_reason
    if order.prevented_lots:
        body["preventedMatchId"] = order.prevented_match_id
        body["preventedQuantity"] = scale.quantity(order.prevented_lots)
    body.update((k, v) for k, v in order.tags if k in ("strategyId", "strategyType"))
    return body


def prevented_view(match: PreventedMatch, rules: SymbolRules) -> dict[str, Any]:
    """A prevented match as the answer to an order shows it."""
    scale = Scale(rules)
    body: dict[str, Any] = {
        "preventedMatchId": match.match_id,
        "makerOrderId": match.maker_order_id,
        "price": scale.price(match.price_ticks),
    }
    for name, lots in (("taker", match.taker_lots), ("maker", match.maker_lots)):
        if lots:
            body[f"{name}PreventedQuantity"] = scale.quantity(lots)
    return body


# --------------------------------------------------------------------------------------------------------------- lists
def list_view(order_list: OrderList, orders: Iterable[Order]) -> dict[str, Any]:
    """An order list as the query endpoints show it."""
    return {
        "orderListId": order_list.list_id,
        "contingencyType": "OCO" if order_list.kind is ListKind.OCO else "OTO",
        "listStatusType": "ALL_DONE" if order_list.is_done else "EXEC_STARTED",
        "listOrderStatus": "ALL_DONE" if order_list.is_done else "EXECUTING",
        "listClientOrderId": order_list.client_id,
        "transactionTime": order_list.updated_ms,
        "symbol": order_list.symbol,
        "orders": [{"symbol": o.symbol, "orderId": o.order_id, "clientOrderId": o.client_id} for o in orders],
    }


# -------------------------------------------------------------------------------------------------------------- trades
def my_trade_view(fill: Fill, rules: SymbolRules) -> dict[str, Any]:
    scale = Scale(rules)
    return {
        "symbol": fill.symbol,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "orderListId": fill.list_id,
        "price": scale.price(fill.price_ticks),
        "qty": scale.quantity(fill.lots),
        "quoteQty": money(fill.quote_atoms),
        "commission": money(fill.commission_atoms),
        "commissionAsset": fill.commission_asset,
        "time": fill.time_ms,
        "isBuyer": fill.side is OrderSide.BUY,
        "isMaker": fill.is_maker,
        "isBestMatch": True,
    }
