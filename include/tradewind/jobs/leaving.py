"""Leaving: what rests cancelled, and one market order for what a lot holds. No lot is left bare longer than that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tradewind.core.brackets import floor_to_step, is_tradable, next_generation, plan_exit
from tradewind.core.orders import AT_EXCHANGE, UNDECIDED
from tradewind.core.ports import Ports
from tradewind.core.positions import sign_of
from tradewind.core.protection import resting
from tradewind.core.types import Order, OrderRole, OrderState, Side
from tradewind.errors import OutcomeUnknown, RetryError
from tradewind.jobs.orders import ask, observe, submit
from tradewind.jobs.settling import Situation, refresh

ZERO: Final = Decimal(0)
UNRESOLVED: Final = tuple(sorted(UNDECIDED))
# A market order may be filled in part where the book is thin; the rest is sent again, a few times in one run.
_EXIT_ROUNDS: Final = 3


def leave_lot(ports: Ports, situation: Situation, lot: int, reason: str) -> Situation:
    for _ in range(_EXIT_ROUNDS):
        # While an exit's fate is unknown it may still arrive: a second one could sell what is not ours.
        if situation.is_over or not _can_leave(situation, lot) or _has_unresolved_exit(situation, lot):
            break
        share = sellable_share(ports, situation)
        rests = resting(situation.orders, lot)
        position_id = situation.position.position_id
        ports.trading_store.start_unprotected(position_id, f"exit: {reason}"[:80], ports.wall.now())
        if not cancel_resting(ports, rests):
            break
        situation = after_cancel(ports, situation, rests)
        wanted = floor_to_step(min(max(situation.lots[lot], ZERO), share), situation.instrument.step_size)
        if situation.is_over or not _exit_lot(ports, situation, lot, wanted, reason):
            break
        situation = again(ports, situation)
    return again(ports, situation)


def _can_leave(situation: Situation, lot: int) -> bool:
    held = floor_to_step(max(situation.lots[lot], ZERO), situation.instrument.step_size)
    return is_tradable(held, situation.book.bid, situation.instrument)


def _has_unresolved_exit(situation: Situation, lot: int) -> bool:
    return any(
        order.lot == lot and order.role is OrderRole.EXIT and order.state in UNRESOLVED for order in situation.orders
    )


def _exit_lot(ports: Ports, situation: Situation, lot: int, quantity: Decimal, reason: str) -> bool:
    """Send one market order for a lot; True when the exchange executed some of it."""
    if _has_unresolved_exit(situation, lot):
        return False
    price = situation.book.bid if situation.position.side is Side.LONG else situation.book.ask
    generation = next_generation(situation.orders, lot)
    order = plan_exit(
        situation.position, lot, quantity, price, generation, situation.instrument, ports.clock.now(), reason
    )
    if order is None:
        return False
    ports.trading_store.plan_orders([order])
    (row,) = submit(ports, [order], lambda: [ports.exchange.send_order(order, situation.instrument)])
    if row.state is OrderState.REJECTED:
        ports.alerts.raise_alert(
            "critical",
            f"exit-refused-{order.position_id}",
            f"{order.symbol}: the exchange refused to sell",
            f"Exit of {quantity} ({reason}) was refused: {row.reason}. It is tried again every minute.",
        )
    return row.filled_quantity > 0


def sellable_share(ports: Ports, situation: Situation) -> Decimal:
    """How much of the position may leave without touching what the account held before us."""
    baseline = ports.trading_store.baseline() or {}
    balance = ports.exchange.balances().get(situation.instrument.base)
    total = balance.total if balance is not None else ZERO
    over_baseline = (total - baseline.get(situation.instrument.base, ZERO)) * sign_of(situation.position.side)
    return max(min(situation.position.quantity, over_baseline), ZERO)


def cancel_resting(ports: Ports, orders: Sequence[Order]) -> bool:
    """Cancel the lists of these orders; True when each is known to be over, filled ones included."""
    lists = sorted({(order.symbol, order.list_client_id or "", order.client_order_id) for order in orders})
    done: set[str] = set()
    for symbol, list_id, client_order_id in lists:
        if (list_id or client_order_id) in done:
            continue
        done.add(list_id or client_order_id)
        try:
            if list_id:
                own = [order for order in orders if order.list_client_id == list_id]
                reports = ports.exchange.cancel_list(symbol, list_id, own)
            else:
                reports = [ports.exchange.cancel_order(symbol, client_order_id)]
        except (OutcomeUnknown, RetryError):
            reports = []
        for report in reports:
            observe(ports, report)
    rows = [ports.trading_store.order(order.client_order_id) or order for order in orders]
    rows = [ask(ports, row) for row in rows]
    return not any(row.state in (*AT_EXCHANGE, *UNRESOLVED) for row in rows)


def after_cancel(ports: Ports, situation: Situation, cancelled: Sequence[Order]) -> Situation:
    """The situation after a cancellation; the exchange is asked for fills only when one slipped in before it."""
    before = {order.client_order_id: order.filled_quantity for order in cancelled}
    after = reread(ports, situation)
    if any(row.filled_quantity > before.get(row.client_order_id, row.filled_quantity) for row in after.orders):
        return again(ports, situation)
    return after


def reread(ports: Ports, situation: Situation) -> Situation:
    """The same figures with the orders as the ledger has them now; the seconds count, so the exchange is not asked."""
    return replace(situation, orders=tuple(ports.trading_store.orders_of(situation.position.position_id)))


def again(ports: Ports, situation: Situation) -> Situation:
    return refresh(ports, situation.position.position_id, situation.instrument, situation.book)
