"""Binance's order reports as ours, and ours as its fields."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from tradewind.core.timeframes import from_ms
from tradewind.core.types import ExchangeOrder, MarketStatus, Order, OrderState

_log = logging.getLogger(__name__)
STATES: Final[Mapping[str, OrderState]] = {
    # Accepted, but only placed once its list's working order has filled: it protects nothing yet.
    "PENDING_NEW": OrderState.SENT,
    "NEW": OrderState.WORKING,
    "PARTIALLY_FILLED": OrderState.PARTIAL,
    "FILLED": OrderState.FILLED,
    "CANCELED": OrderState.CANCELLED,
    "PENDING_CANCEL": OrderState.WORKING,
    "REJECTED": OrderState.REJECTED,
    "EXPIRED": OrderState.EXPIRED,
    "EXPIRED_IN_MATCH": OrderState.EXPIRED,
}

# Binance's words for a market's status, spot and futures; what else it says (BREAK, PRE_SETTLE ...) means a halt.
STATUSES: Final[Mapping[str, MarketStatus]] = {
    "TRADING": MarketStatus.TRADING,
    "CANCEL_ONLY": MarketStatus.CANCEL_ONLY,
    "TRADING_CANCEL_ONLY": MarketStatus.CANCEL_ONLY,
    "DELIVERED": MarketStatus.DELISTED,
    "CLOSE": MarketStatus.DELISTED,
}


def state_of(states: Mapping[str, OrderState], word: Any) -> OrderState:
    """Our state for an exchange's word. One that it has added since makes this order UNKNOWN, and no other order."""
    found = states.get(str(word))
    if found is None:
        _log.warning("The exchange reports an order's status in a word that is not known here: %.60s", word)
    return found or OrderState.UNKNOWN


def exchange_order(report: Mapping[str, Any], symbol: str, list_client_id: str | None = None) -> ExchangeOrder:
    """One report, whichever endpoint it came from."""
    at_ms = report.get("updateTime") or report.get("transactTime") or report.get("time") or 0
    return ExchangeOrder(
        # The answer to a cancellation calls the cancellation itself "clientOrderId".
        client_order_id=str(report.get("origClientOrderId") or report["clientOrderId"]),
        exchange_order_id=str(report["orderId"]),
        list_client_id=list_client_id,
        symbol=symbol,
        is_buy=report["side"] == "BUY",
        order_type=str(report["type"]),
        state=state_of(STATES, report["status"]),
        # A leg that is sized from proceeds still to come has no quantity yet.
        quantity=Decimal(report.get("origQty") or 0),
        filled_quantity=Decimal(report.get("executedQty") or 0),
        price=_price(report.get("price")),
        stop_price=_price(report.get("stopPrice")),
        at=from_ms(int(at_ms)),
    )


def reports_of(answer: Mapping[str, Any], symbol: str, list_client_id: str | None) -> list[ExchangeOrder]:
    """The orders of a list, as the answer to placing or cancelling it reports them."""
    list_id = list_client_id or answer.get("listClientOrderId")
    return [exchange_order(report, symbol, list_id) for report in answer["orderReports"]]


def order_fields(order: Order) -> dict[str, str]:
    """Side, type, quantity and whatever prices the type needs, as `POST /order` takes them."""
    fields = {
        "side": "BUY" if order.is_buy else "SELL",
        "type": order.order_type,
        "quantity": format(order.quantity, "f"),
    }
    if order.price is not None:
        fields["price"] = format(order.price, "f")
    if order.order_type == "LIMIT":
        fields["timeInForce"] = "FOK"
    if order.stop_price is not None:
        fields["stopPrice"] = format(order.stop_price, "f")
    return fields


def _price(value: Any) -> Decimal | None:
    price = Decimal(value) if value is not None else Decimal(0)
    return price if price else None
