"""Sending, observing and asking: the three ways in which an order's row follows what the exchange did.

::

    plan_orders ──commit──► PLANNED ──commit──► SENT ──request──► report          observe() takes its word
                                                          ├─────► refusal         REJECTED, with the exchange's words
                                                          └─────► no answer       UNKNOWN, then ask() by its id

A process that dies between two of these lines leaves PLANNED (never left: it expires) or SENT (it is asked for).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from tradewind.core.orders import AT_EXCHANGE, ForbiddenMove, is_final, next_state, resolve
from tradewind.core.ports import Ports
from tradewind.core.types import ExchangeOrder, Order, OrderState
from tradewind.errors import LedgerMismatch, ReconcileError, RetryError, TradewindError

log = structlog.get_logger(__name__)

# An order that worked and is suddenly unknown is declared lost only after so many answers, not after one odd one.
ASKS_BEFORE_LOST = 3
_PAUSE_BETWEEN_ASKS_S = 0.2


def observe(ports: Ports, report: ExchangeOrder) -> Order | None:
    """Take the exchange's word for one order. None when the ledger does not know it.

    Raises LedgerMismatch when it contradicts what the ledger holds as final.
    """
    order = ports.trading_store.order(report.client_order_id)
    if order is None:
        return None
    try:
        state = next_state(order.state, report.state)
    except ForbiddenMove as error:
        raise LedgerMismatch(f"order {order.client_order_id}: {error}; look at it on the exchange's own page") from None
    unchanged = (
        state is order.state
        and report.filled_quantity <= order.filled_quantity
        and order.exchange_order_id == report.exchange_order_id
        and report.quantity in (order.quantity, 0)
    )
    if unchanged:
        return order
    log.info("order moved", **_ids(order), was=order.state.value, state=state.value, filled=str(report.filled_quantity))
    return ports.trading_store.move_order(
        order.client_order_id,
        state,
        at=ports.clock.now(),
        exchange_order_id=report.exchange_order_id,
        filled_quantity=report.filled_quantity,
        # Legs that the exchange sizes from the proceeds have their own quantity; before that they have none.
        quantity=report.quantity or None,
    )


def submit(ports: Ports, orders: Sequence[Order], send: Callable[[], Sequence[ExchangeOrder]]) -> list[Order]:
    """Send planned orders in one request, once, and record how it ended; returns their rows as they are then.

    A refusal ends as REJECTED and an unknown outcome is asked for at once; neither raises. The caller holds the
    position's lock. Raises LedgerMismatch, before anything leaves, for an order that is not PLANNED any more.

    The request is signed with the very time that is committed as `sent_at`: a process that sleeps between the two
    lines wakes with a request that the exchange refuses, after others may have concluded that it never arrived.
    """
    store = ports.trading_store
    sent_at = ports.wall.now()
    for order in orders:
        store.move_order(order.client_order_id, OrderState.SENT, at=ports.clock.now(), sent_at=sent_at)
    started_s = time.monotonic()
    try:
        with ports.exchange.signed_at(sent_at):
            reports = send()
    except ReconcileError as error:
        # No answer, or one that cannot be read: the exchange may hold the order.
        log.warning("no answer to an order", **_ids(orders[0]), reason=str(error))
        _move_all(ports, orders, OrderState.UNKNOWN, str(error))
        ports.metrics.count("tradewind.orders.unknown")
        return [ask(ports, row) for row in _rows(ports, orders)]
    except TradewindError as error:
        log.warning("order refused", **_ids(orders[0]), reason=str(error))
        _move_all(ports, orders, OrderState.REJECTED, str(error))
        ports.metrics.count("tradewind.orders.rejected")
        return _rows(ports, orders)
    except BaseException:
        # Whatever this was, the request may have left: the ids must be asked for.
        _move_all(ports, orders, OrderState.UNKNOWN, "the sending task failed")
        raise
    ack_ms = (time.monotonic() - started_s) * 1000
    ports.metrics.timing_ms("tradewind.orders.ack", ack_ms, role=orders[0].role.value)
    for order in orders:
        log.info("order acknowledged", **_ids(order), ack_ms=round(ack_ms, 1))
    for report in reports:
        observe(ports, report)
    return _rows(ports, orders)


def _ids(order: Order) -> dict[str, str]:
    """What a reader of the log follows an order by."""
    return {
        "client_order_id": order.client_order_id,
        "position_id": order.position_id,
        "symbol": order.symbol,
        "role": order.role.value,
    }


def ask(ports: Ports, order: Order) -> Order:
    """Ask the exchange for one order by its id and conclude what may be concluded; returns its row as it is then.

    The caller holds the position's lock, so that nobody is sending this order at this moment. An exchange that does not
    answer leaves the order as it is.
    """
    if is_final(order.state):
        return order
    asks = ASKS_BEFORE_LOST if order.state in AT_EXCHANGE else 1
    found: ExchangeOrder | None = None
    for number in range(asks):
        if number:
            time.sleep(_PAUSE_BETWEEN_ASKS_S)
        try:
            found = ports.exchange.find_order(order.symbol, order.client_order_id, order)
        except RetryError:
            return order
        if found is not None:
            break
    if found is not None:
        return observe(ports, found) or order
    resolution = resolve(order, None, ports.wall.now(), ports.exchange.recv_window_s)
    now = ports.clock.now()
    if resolution.state is not None:
        return ports.trading_store.move_order(order.client_order_id, resolution.state, at=now, reason=resolution.reason)
    if order.state is OrderState.SENT:
        return ports.trading_store.move_order(
            order.client_order_id, OrderState.UNKNOWN, at=now, reason=resolution.reason
        )
    return order


def withdraw(ports: Ports, orders: Sequence[Order], state: OrderState, reason: str, at: datetime) -> None:
    """Close planned orders that will never be sent."""
    for order in orders:
        if order.state is OrderState.PLANNED:
            ports.trading_store.move_order(order.client_order_id, state, at=at, reason=reason)


def _move_all(ports: Ports, orders: Sequence[Order], state: OrderState, reason: str) -> None:
    now = ports.clock.now()
    for order in orders:
        ports.trading_store.move_order(order.client_order_id, state, at=now, reason=reason[:500])


def _rows(ports: Ports, orders: Sequence[Order]) -> list[Order]:
    rows = {row.client_order_id: row for row in ports.trading_store.orders_of(orders[0].position_id)}
    return [rows[order.client_order_id] for order in orders]
