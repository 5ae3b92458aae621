"""What rests at the exchange for one position, brought to what the ledger wants: stops, targets, exits.

The wanted state is committed before anything is touched (the position's stop price, or CLOSING), and what rests is then
converged to it, so that a task killed at any line is finished by the next one. For one lot::

    rests as wanted ──► nothing to do
    else ──► cancel what rests ──► new OCO ──► rests
                                      ├── already through, refused, or not in place in time ──► market exit
                                      └── too small to trade ──► dust

Spot has no atomic replacement, so the time between is measured for each one and alerted over its bound.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tradewind.core.brackets import floor_to_step, is_tradable, next_generation, plan_protection
from tradewind.core.orders import ADOPTED, AT_EXCHANGE
from tradewind.core.ports import Ports
from tradewind.core.protection import is_fine, is_through, resting, target_passed, worst_price
from tradewind.core.types import Order, OrderRole, Position, PositionStatus
from tradewind.jobs.leaving import (
    UNRESOLVED,
    after_cancel,
    again,
    cancel_resting,
    leave_lot,
    reread,
    sellable_share,
)
from tradewind.jobs.orders import ask, submit
from tradewind.jobs.settling import Situation

ZERO: Final = Decimal(0)
_POLL_S: Final = 0.2


# ------------------------------------------------------------------------------------------------------------- protect
def converge_protection(ports: Ports, situation: Situation) -> Situation:
    """Make one stop and target of the right price and size rest for every lot; returns the situation after it."""
    situation = _await_legs(ports, situation)
    if not situation.instrument.target_rests:
        situation = _leave_at_watched_targets(ports, situation)
    if all(_is_fine(situation, lot, held) for lot, held in situation.lots.items()):
        _end_span(ports, situation.position)
        return situation
    share = sellable_share(ports, situation)
    for lot in sorted(situation.lots):
        wanted = floor_to_step(min(max(situation.lots[lot], ZERO), share), situation.instrument.step_size)
        share -= wanted
        if not _is_fine(situation, lot, wanted):
            situation = _replace_lot(ports, situation, lot, wanted)
    return situation


def _leave_at_watched_targets(ports: Ports, situation: Situation) -> Situation:
    """Leave the lots whose target does not rest and has been reached."""
    for lot in sorted(situation.lots):
        rests = resting(situation.orders, lot, OrderRole.TARGET)
        if situation.lots[lot] <= 0 or rests or situation.is_over:
            continue
        if target_passed(situation.position, _target_price(ports, situation, lot), situation.book):
            situation = leave_lot(ports, situation, lot, OrderRole.TARGET.value)
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


def _is_fine(situation: Situation, lot: int, wanted: Decimal) -> bool:
    return is_fine(situation.orders, lot, wanted, situation.position, situation.book, situation.instrument)


def _worst_price(situation: Situation) -> Decimal:
    return worst_price(situation.position, situation.book)


def _replace_lot(ports: Ports, situation: Situation, lot: int, wanted: Decimal, *, may_exit: bool = True) -> Situation:
    """Cancel what rests for a lot and place a new pair; a market exit when that is not in place in time.

    On futures the new pair comes first and the old one goes then: both are reduce-only, so that they sell once.
    What a thin book leaves of that exit gets one more attempt at a pair, and else waits for the next run.
    """
    position, store = situation.position, ports.trading_store
    deadline = time.monotonic() + ports.params.replacement_deadline_s
    held_before = situation.lots[lot]
    rests = resting(situation.orders, lot)
    overlaps = _may_overlap(situation, rests, wanted)
    if overlaps and (right := _right_generation(situation, lot, wanted)) is not None:
        # Somebody died between the two steps: only the second is left.
        cancel_resting(ports, [order for order in rests if order.generation != right])
        _end_span(ports, position)
        return after_cancel(ports, situation, rests)
    if not overlaps:
        if not situation.is_over:
            cause = "replacement" if rests else "unprotected"
            store.start_unprotected(position.position_id, cause, ports.wall.now())
        if not cancel_resting(ports, rests):
            return situation  # nobody knows whether the old pair still rests: the next run looks again
        situation = after_cancel(ports, situation, rests)
    wanted = min(wanted, wanted - (held_before - situation.lots[lot]))
    if situation.is_over or not is_tradable(wanted, _worst_price(situation), situation.instrument):
        _end_span(ports, situation.position)
        return situation
    target = _target_price(ports, situation, lot)
    if not is_through(situation.position, target, situation.book):
        pair = plan_protection(
            situation.position,
            lot,
            wanted,
            situation.position.stop_price,
            target,
            next_generation(situation.orders, lot),
            situation.instrument,
            ports.clock.now(),
            "replacement" if rests else "healed",
        )
        if pair is not None and _place_pair(ports, situation, pair, deadline):
            _end_span(ports, situation.position)
            if not overlaps:
                return reread(ports, situation)
            cancel_resting(ports, rests)  # what could not be cancelled is for the next run
            return after_cancel(ports, situation, rests)
    if not may_exit:
        return again(ports, situation)
    ports.alerts.raise_alert(
        "warning",
        f"market-exit-{position.position_id}-{lot}",
        f"{position.symbol} left at market: no stop could be placed",
        f"Lot {lot} of {position.position_id} ({wanted}) had no stop in place in time or the price was through it.",
    )
    situation = leave_lot(ports, reread(ports, situation), lot, "unprotected")
    rest = floor_to_step(min(max(situation.lots[lot], ZERO), wanted), situation.instrument.step_size)
    if situation.is_over or not is_tradable(rest, _worst_price(situation), situation.instrument):
        _end_span(ports, situation.position)
        return situation
    return _replace_lot(ports, situation, lot, rest, may_exit=False)


def _may_overlap(situation: Situation, rests: Sequence[Order], wanted: Decimal) -> bool:
    """May a new pair be placed beside what rests? Only what reduces and nothing else may, and only if it is needed."""
    return (
        situation.instrument.margin is not None
        and any(order.role is OrderRole.STOP for order in rests)
        and is_tradable(wanted, _worst_price(situation), situation.instrument)
    )


def _right_generation(situation: Situation, lot: int, wanted: Decimal) -> int | None:
    """The newest pair among what rests that is all that is wanted, by its generation."""
    position, book, instrument = situation.position, situation.book, situation.instrument
    for generation in sorted({order.generation for order in resting(situation.orders, lot)}, reverse=True):
        own = [order for order in situation.orders if order.generation == generation]
        if is_fine(own, lot, wanted, position, book, instrument):
            return generation
    return None


def _place_pair(ports: Ports, situation: Situation, pair: tuple[Order, Order], deadline: float) -> bool:
    """Send a pair (the stop alone where targets are watched) and see it rest before the deadline."""
    instrument = situation.instrument
    if instrument.target_rests:
        ports.trading_store.plan_orders(pair)
        rows = submit(ports, pair, lambda: ports.exchange.send_protection(*pair, instrument))
    else:
        ports.trading_store.plan_orders(pair[:1])
        rows = submit(ports, pair[:1], lambda: [ports.exchange.send_order(pair[0], instrument)])
    while any(row.state in UNRESOLVED for row in rows) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        rows = [ask(ports, row) for row in rows]
    return all(row.state in AT_EXCHANGE for row in rows)


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
    """
    store = ports.trading_store
    position = situation.position
    if situation.is_over:
        return situation
    if position.status is not PositionStatus.CLOSING:
        position = replace(position, status=PositionStatus.CLOSING, exit_reason=reason)
        store.save_position(position, "closing", ports.clock.now(), reason=reason)
        situation = replace(situation, position=position)
    for lot in sorted(situation.lots):
        situation = leave_lot(ports, situation, lot, position.exit_reason)
    if not situation.is_over:
        situation = converge_protection(ports, situation)
    return situation


def _end_span(ports: Ports, position: Position) -> None:
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
