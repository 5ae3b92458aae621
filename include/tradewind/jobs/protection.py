"""What rests at the exchange for one position, brought to what the ledger wants: stops, targets, exits.

The wanted state is committed before anything is touched (the position's stop price, or CLOSING), and what rests is then
converged to it, so that a task killed at any line is finished by the next one. What is done about a lot is decided by
`core.protection.next_step` before anything is cancelled; `jobs.replacing` and `jobs.leaving` do it.

What could not be brought to what is wanted raises `ProtectionPending` once everything else is done. The time without a
stop is measured for each such time and alerted over its bound.
"""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tradewind.core.ports import Ports
from tradewind.core.protection import Move, Step, bare, covered, is_fine, next_step, resting, target_passed
from tradewind.core.types import Order, OrderRole, PositionStatus
from tradewind.errors import ProtectionPending
from tradewind.jobs.leaving import UNRESOLVED, Look, after_cancel, again, cancel_resting, leave_lot, shares
from tradewind.jobs.orders import ask
from tradewind.jobs.replacing import POLL_S, leave_bare, replace_lot, rules_of, target_price, wanted_lots
from tradewind.jobs.settling import Situation

ZERO: Final = Decimal(0)


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
            held = wanted_lots(situation)[lot]
            step = _step(ports, situation, lot, held, share, over)
            share = max(share - held, ZERO)
            over = max(over - max(covered(situation.orders, lot) - held, ZERO), ZERO)
            situation = _take(ports, situation, lot, step, look)
    _keep_span(ports, situation, look)
    return situation


def _is_fine(situation: Situation) -> bool:
    return all(
        is_fine(situation.orders, lot, held, *rules_of(situation)) for lot, held in wanted_lots(situation).items()
    )


def _step(ports: Ports, situation: Situation, lot: int, held: Decimal, share: Decimal, over: Decimal) -> Step:
    target = target_price(ports, situation, lot)
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
        return leave_bare(ports, situation, lot, look)
    return replace_lot(ports, situation, lot, step.quantity, look) if step.move is Move.PLACE else situation


def _leave_at_watched_targets(ports: Ports, situation: Situation, look: Look) -> Situation:
    """Leave the lots whose target does not rest and has been reached."""
    for lot in sorted(situation.lots):
        rests = resting(situation.orders, lot, OrderRole.TARGET)
        if situation.lots[lot] <= 0 or rests or situation.is_over:
            continue
        if target_passed(situation.position, target_price(ports, situation, lot), situation.book):
            situation = leave_lot(ports, situation, lot, OrderRole.TARGET.value, look)
    return situation


def _await_legs(ports: Ports, situation: Situation) -> Situation:
    """Legs whose entry just filled are placed within moments: wait for them, at most for the deadline."""
    deadline = time.monotonic() + ports.params.protection_deadline_s
    while _awaited_stops(situation) and time.monotonic() < deadline:
        ports.trading_store.start_unprotected(situation.position.position_id, "legs awaited", ports.wall.now())
        time.sleep(POLL_S)
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
    if not situation.is_over and bare(situation.orders, wanted_lots(situation), position, situation.instrument):
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
