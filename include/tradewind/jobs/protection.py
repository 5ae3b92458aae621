"""What rests at the exchange for one position, brought to what the ledger wants: stops, targets, exits.

The wanted state is committed before anything is touched (the position's stop price, or CLOSING), and what rests is then
converged to it, so that a task killed at any line is finished by the next one. What is done about a lot is decided by
`core.protection.next_step`, before anything is cancelled; a new pair is placed like this::

    the market trades? ── no ──► what rests is left, and the next look asks again
      └── yes ──► cancel what rests ──► new OCO ──► rests
                                          ├── refused by rules that have changed ──► the same by today's rules
                                          ├── the market halted meanwhile ──► placed by the first look that may
                                          └── else refused, or not in place in time ──► market exit

Spot has no atomic replacement, so the time between is measured for each one and alerted over its bound. On futures the
new pair comes first and the old one goes then: both only reduce, so that they sell once.

What could not be brought to what is wanted raises `ProtectionPending` once everything else is done.
"""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tradewind.core.brackets import floor_to_step, is_tradable, next_generation, plan_protection
from tradewind.core.orders import ADOPTED, AT_EXCHANGE
from tradewind.core.ports import Ports
from tradewind.core.protection import (
    Move,
    Step,
    bare,
    covered,
    is_fine,
    next_step,
    resting,
    target_passed,
    to_protect,
)
from tradewind.core.types import Instrument, Order, OrderRole, OrderState, Position, PositionStatus
from tradewind.errors import ProtectionPending
from tradewind.jobs.leaving import (
    UNRESOLVED,
    Look,
    after_cancel,
    again,
    cancel_resting,
    leave_lot,
    reread,
    shares,
)
from tradewind.jobs.orders import ask, submit
from tradewind.jobs.settling import Situation

ZERO: Final = Decimal(0)
_POLL_S: Final = 0.2


# ------------------------------------------------------------------------------------------------------------- protect
def converge_protection(ports: Ports, situation: Situation) -> Situation:
    """Make one stop and target of the right price and size rest for every lot; returns the situation after it.

    Raises ProtectionPending, with every reason, where something could not be brought to that and was left.
    """
    look = Look(ports, situation.position.symbol)
    situation = _converge(ports, _await_legs(ports, situation), look)
    _raise_problems(look)
    return situation


def _converge(ports: Ports, situation: Situation, look: Look) -> Situation:
    if not situation.instrument.target_rests:
        situation = _leave_at_watched_targets(ports, situation, look)
    if situation.is_over:
        for lot in situation.lots:
            situation = _take(ports, situation, lot, Step(Move.CLEAR), look)
    elif not _is_fine(situation):
        share, over = shares(ports, situation)
        for lot in sorted(situation.lots):
            held = _held(situation)[lot]
            step = _step(ports, situation, lot, held, share, over)
            share = max(share - held, ZERO)
            over = max(over - max(covered(situation.orders, lot) - held, ZERO), ZERO)
            situation = _take(ports, situation, lot, step, look)
    _keep_span(ports, situation, look)
    return situation


def _is_fine(situation: Situation) -> bool:
    return all(is_fine(situation.orders, lot, held, *_rules(situation)) for lot, held in _held(situation).items())


def _held(situation: Situation) -> dict[int, Decimal]:
    return to_protect(situation.lots, *_rules(situation), situation.orders)


def _rules(situation: Situation) -> tuple[Position, Instrument]:
    return situation.position, situation.instrument


def _step(ports: Ports, situation: Situation, lot: int, held: Decimal, share: Decimal, over: Decimal) -> Step:
    target = _target_price(ports, situation, lot)
    return next_step(
        situation.orders, lot, held, share, situation.position, target, situation.book, situation.instrument, over
    )


def _take(ports: Ports, situation: Situation, lot: int, step: Step, look: Look) -> Situation:
    look.say(step.words)
    if step.move is Move.CLEAR:
        rests = resting(situation.orders, lot)
        cancel_resting(ports, rests)  # nothing is held for it: what could not be cancelled is for the next run
        return after_cancel(ports, situation, rests)
    if step.move is Move.LEAVE:
        return _leave_bare(ports, situation, lot, look)
    return _replace_lot(ports, situation, lot, step.quantity, look) if step.move is Move.PLACE else situation


def _leave_at_watched_targets(ports: Ports, situation: Situation, look: Look) -> Situation:
    """Leave the lots whose target does not rest and has been reached."""
    for lot in sorted(situation.lots):
        rests = resting(situation.orders, lot, OrderRole.TARGET)
        if situation.lots[lot] <= 0 or rests or situation.is_over:
            continue
        if target_passed(situation.position, _target_price(ports, situation, lot), situation.book):
            situation = leave_lot(ports, situation, lot, OrderRole.TARGET.value, look)
    return situation


def _await_legs(ports: Ports, situation: Situation) -> Situation:
    """Legs whose entry just filled are placed within moments: wait for them, at most for the deadline."""
    deadline = time.monotonic() + ports.params.protection_deadline_s
    while _awaited_stops(situation) and time.monotonic() < deadline:
        ports.trading_store.start_unprotected(situation.position.position_id, "legs awaited", ports.wall.now())
        time.sleep(_POLL_S)
        for order in _awaited_stops(situation):
            ask(ports, order)
        situation = again(ports, situation)
    return situation


def _awaited_stops(situation: Situation) -> list[Order]:
    """Stops whose fate is unknown, of lots that hold something and have no other stop yet."""
    awaited = [o for o in situation.orders if o.role is OrderRole.STOP and o.state in UNRESOLVED]
    return [
        order
        for order in awaited
        if situation.lots[order.lot] > 0 and not resting(situation.orders, order.lot, OrderRole.STOP)
    ]


# ------------------------------------------------------------------------------------------------------------- replace
def _replace_lot(
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
        held = _held(situation)[lot]
        cause = "replacement" if rests else "unprotected"
        ports.trading_store.start_unprotected(position.position_id, cause, ports.wall.now())
        if not cancel_resting(ports, rests):
            return situation  # nobody knows whether the old pair still rests: the next run looks again
        situation = after_cancel(ports, situation, rests)
        wanted = min(wanted, wanted - (held - _held(situation)[lot]))
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
    if not may_exit or not look.may_trade(anew=True):
        return again(ports, situation)
    situation = _leave_bare(ports, situation, lot, look)
    if situation.is_over:
        return situation
    # What a thin book left of that exit gets one more attempt at a pair, and else waits for the next run.
    rest = floor_to_step(min(_held(situation)[lot], wanted), situation.instrument.step_size)
    if resting(situation.orders, lot) or not is_tradable(rest, position.stop_price, situation.instrument):
        return situation
    return _replace_lot(ports, situation, lot, rest, look, may_exit=False)


def _was_refused(situation: Situation, lot: int) -> bool:
    newest = next_generation(situation.orders, lot) - 1
    return any(
        order.lot == lot and order.generation == newest and order.state is OrderState.REJECTED
        for order in situation.orders
    )


def _leave_bare(ports: Ports, situation: Situation, lot: int, look: Look) -> Situation:
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
        if is_fine(own, lot, wanted, *_rules(situation)):
            return generation
    return None


def _place(
    ports: Ports, situation: Situation, lot: int, wanted: Decimal, reason: str, deadline: float
) -> tuple[Situation, bool]:
    """Send a new pair; refused by rules that have changed since they were read it is sent once more by today's."""
    target = _target_price(ports, situation, lot)
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
        known = ports.exchange.instruments([instrument.symbol]).get(instrument.symbol, instrument)
        if known == instrument or any(row.state is not OrderState.REJECTED for row in rows):
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
        time.sleep(_POLL_S)
        rows = [ask(ports, row) for row in rows]
    return rows


def _target_price(ports: Ports, situation: Situation, lot: int) -> Decimal:
    """The lot's own target, as it was decided; an adopted position has one for all."""
    if situation.position.position_id.startswith(ADOPTED):
        return situation.position.target_price
    decided = ports.trading_store.intent(situation.position.position_id).lots
    return next((own.target_price for own in decided if own.lot == lot), situation.position.target_price)


# ---------------------------------------------------------------------------------------------------------------- exit
def exit_position(ports: Ports, situation: Situation, reason: str) -> Situation:
    """Leave at market, lot by lot: each loses its protection only when its own exit is about to be sent.

    What could not be sold is protected again, so that a failed exit never leaves it naked. Returns the situation after.
    Raises ProtectionPending, with every reason, where something could not be sold or protected and was left.
    """
    store = ports.trading_store
    position = situation.position
    if situation.is_over:
        return situation
    if position.status is not PositionStatus.CLOSING:
        position = replace(position, status=PositionStatus.CLOSING, exit_reason=reason)
        store.save_position(position, "closing", ports.clock.now(), reason=reason)
        situation = replace(situation, position=position)
    look = Look(ports, position.symbol)
    for lot in sorted(situation.lots):
        situation = leave_lot(ports, situation, lot, position.exit_reason, look)
    if not situation.is_over:
        situation = _converge(ports, _await_legs(ports, situation), look)
    _raise_problems(look)
    return situation


# ------------------------------------------------------------------------------------------------------------- measure
def _keep_span(ports: Ports, situation: Situation, look: Look) -> None:
    """A span goes on while there is something that a stop could hold and none does; else it is over."""
    position = situation.position
    if not situation.is_over and bare(situation.orders, _held(situation), position, situation.instrument):
        ports.trading_store.start_unprotected(position.position_id, "unprotected", ports.wall.now())
        if look.problems:
            ports.alerts.raise_alert(
                "critical",
                f"bare-{position.position_id}",
                f"{position.symbol} is held without a stop, and none can be placed",
                f"{position.position_id}: {'; '.join(look.problems)}. It is tried at every look.",
            )
        return
    seconds = ports.trading_store.end_unprotected(position.position_id, ports.wall.now())
    if seconds is None:
        return
    ports.metrics.timing_ms("tradewind.positions.unprotected", seconds * 1000, symbol=position.symbol)
    if seconds > ports.params.protection_deadline_s:
        ports.alerts.raise_alert(
            "warning",
            f"unprotected-{position.position_id}",
            f"{position.symbol} was without a stop for {seconds:.1f} s",
            f"The bound is {ports.params.protection_deadline_s:.0f} s; the position is {position.position_id}.",
        )


def _raise_problems(look: Look) -> None:
    if look.problems:
        raise ProtectionPending("; ".join(look.problems))
