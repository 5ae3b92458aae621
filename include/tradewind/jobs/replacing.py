"""A new pair in place of what rests for a lot, or a market exit where none is in place in time.

::

    the market trades? ── no ──► what rests is left, and the next look asks again
      └── yes ──► cancel what rests ──► new OCO ──► rests
                                          ├── refused by rules that have changed ──► the same by today's rules
                                          ├── the market halted meanwhile ──► placed by the first look that may
                                          └── else refused, or not in place in time ──► market exit

Spot has no atomic replacement, so there is a time between. On futures the new pair comes first and the old one goes
then: both only reduce, so that they sell once, and where no new pair can be placed the old one is left.
"""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tradewind.core.brackets import floor_to_step, is_tradable, next_generation, plan_protection
from tradewind.core.orders import ADOPTED, AT_EXCHANGE
from tradewind.core.ports import Ports
from tradewind.core.protection import is_fine, resting, to_protect
from tradewind.core.types import Instrument, Order, OrderRole, OrderState, Position
from tradewind.jobs.leaving import UNRESOLVED, Look, after_cancel, again, cancel_resting, leave_lot, reread
from tradewind.jobs.orders import ask, submit
from tradewind.jobs.settling import Situation

POLL_S: Final = 0.2


def replace_lot(
    ports: Ports, situation: Situation, lot: int, wanted: Decimal, look: Look, *, may_exit: bool = True
) -> Situation:
    """Place a new pair in place of what rests for a lot; leave at market where none is in place in time."""
    position = situation.position
    deadline = time.monotonic() + ports.params.replacement_deadline_s
    rests = resting(situation.orders, lot)
    # What only reduces may rest beside what rests already.
    overlaps = situation.instrument.margin is not None and any(order.role is OrderRole.STOP for order in rests)
    if overlaps and (right := _right_generation(situation, lot, wanted)) is not None:
        # Somebody died between the two steps: only the second is left.
        cancel_resting(ports, [order for order in rests if order.generation != right])
        return after_cancel(ports, situation, rests)
    # Where nothing rests a pair is sent without a question, as after an entry, unless the last one was refused.
    if (rests or _was_refused(situation, lot)) and not look.may_trade():
        return situation
    if not overlaps:
        held = wanted_lots(situation)[lot]
        cause = "replacement" if rests else "unprotected"
        ports.trading_store.start_unprotected(position.position_id, cause, ports.wall.now())
        if not cancel_resting(ports, rests):
            return situation  # nobody knows whether the old pair still rests: the next run looks again
        situation = after_cancel(ports, situation, rests)
        wanted = min(wanted, wanted - (held - wanted_lots(situation)[lot]))
        if situation.is_over or not is_tradable(wanted, position.stop_price, situation.instrument):
            return situation
    situation, is_placed = _place(ports, situation, lot, wanted, "replacement" if rests else "healed", deadline)
    if is_placed:
        if not overlaps:
            return situation
        cancel_resting(ports, rests)  # what could not be cancelled is for the next run
        return after_cancel(ports, situation, rests)
    if overlaps:
        before = {order.client_order_id for order in rests}
        half = [order for order in resting(situation.orders, lot) if order.client_order_id not in before]
        cancel_resting(ports, half)
        look.say(f"no new pair for lot {lot} could be placed: the old one is left")
        return after_cancel(ports, situation, half)
    if not may_exit or not look.may_trade():
        return again(ports, situation)
    situation = leave_bare(ports, situation, lot, look)
    if situation.is_over:
        return situation
    # What a thin book left of that exit gets one more attempt at a pair, and else waits for the next run.
    rest = floor_to_step(min(wanted_lots(situation)[lot], wanted), situation.instrument.step_size)
    if resting(situation.orders, lot) or not is_tradable(rest, position.stop_price, situation.instrument):
        return situation
    return replace_lot(ports, situation, lot, rest, look, may_exit=False)


def _was_refused(situation: Situation, lot: int) -> bool:
    newest = next_generation(situation.orders, lot) - 1
    return any(
        order.lot == lot and order.generation == newest and order.state is OrderState.REJECTED
        for order in situation.orders
    )


def leave_bare(ports: Ports, situation: Situation, lot: int, look: Look) -> Situation:
    """Leave a lot at market because no stop can be placed for it, and say so where something was sent."""
    position, before = situation.position, next_generation(situation.orders, lot)
    situation = leave_lot(ports, reread(ports, situation), lot, "unprotected", look)
    if next_generation(situation.orders, lot) > before:
        ports.alerts.raise_alert(
            "warning",
            f"market-exit-{position.position_id}-{lot}",
            f"{position.symbol} left at market: no stop could be placed",
            f"Lot {lot} of {position.position_id} had no stop in place in time or the price was through it.",
        )
    return situation


def _right_generation(situation: Situation, lot: int, wanted: Decimal) -> int | None:
    """The newest pair among what rests that is all that is wanted, by its generation."""
    for generation in sorted({order.generation for order in resting(situation.orders, lot)}, reverse=True):
        own = [order for order in situation.orders if order.generation == generation]
        if is_fine(own, lot, wanted, *rules_of(situation)):
            return generation
    return None


def _place(
    ports: Ports, situation: Situation, lot: int, wanted: Decimal, reason: str, deadline: float
) -> tuple[Situation, bool]:
    """Send a new pair; refused by rules that have changed since they were read it is sent once more by today's."""
    target = target_price(ports, situation, lot)
    for _ in range(2):
        instrument = situation.instrument
        pair = plan_protection(
            situation.position,
            lot,
            wanted,
            situation.position.stop_price,
            target,
            next_generation(situation.orders, lot),
            situation.book,
            instrument,
            ports.clock.now(),
            reason,
        )
        rows = [] if pair is None else _send_pair(ports, instrument, pair, deadline)
        situation = reread(ports, situation)
        if rows and all(row.state in AT_EXCHANGE for row in rows):
            return situation, True
        if any(row.state is not OrderState.REJECTED for row in rows):
            break
        known = ports.exchange.instruments([instrument.symbol]).get(instrument.symbol, instrument)
        if known == instrument:
            break
        situation = replace(situation, instrument=known)
    return situation, False


def _send_pair(ports: Ports, instrument: Instrument, pair: tuple[Order, Order], deadline: float) -> list[Order]:
    """Send a pair (the stop alone where targets are watched) and see it rest before the deadline; returns its rows."""
    if instrument.target_rests:
        ports.trading_store.plan_orders(pair)
        rows = submit(ports, pair, lambda: ports.exchange.send_protection(*pair, instrument))
    else:
        ports.trading_store.plan_orders(pair[:1])
        rows = submit(ports, pair[:1], lambda: [ports.exchange.send_order(pair[0], instrument)])
    while any(row.state in UNRESOLVED for row in rows) and time.monotonic() < deadline:
        time.sleep(POLL_S)
        rows = [ask(ports, row) for row in rows]
    return rows


def target_price(ports: Ports, situation: Situation, lot: int) -> Decimal:
    """The lot's own target, as it was decided; an adopted position has one for all."""
    if situation.position.position_id.startswith(ADOPTED):
        return situation.position.target_price
    decided = ports.trading_store.intent(situation.position.position_id).lots
    return next((own.target_price for own in decided if own.lot == lot), situation.position.target_price)


def wanted_lots(situation: Situation) -> dict[int, Decimal]:
    """What a stop is wanted for, by lot."""
    return to_protect(situation.lots, *rules_of(situation), situation.orders)


def rules_of(situation: Situation) -> tuple[Position, Instrument]:
    """What `core.protection` judges a lot by."""
    return situation.position, situation.instrument
