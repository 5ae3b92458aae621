"""What one lot needs at the exchange and what is done about it: the same answer for the live ledger and its replay.

Protection is never made smaller. A new pair takes the place of what rests only where the exchange can take it and where
it covers at least what the old one covered of what is held; else what rests stays, with words that say why. No price
takes protection away: too small is a matter of the quantity, at the prices that were paid and wanted::

    nothing held, or no order could ever hold it ──────────────► CLEAR   nothing may rest
    rests as wanted, or nothing better could be placed ─────────► KEEP
    the price is through the wanted stop or target ─────────────► LEAVE   at market
    else ───────────────────────────────────────────────────────► PLACE   a new pair in place of what rests
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from .brackets import ZERO, floor_to_step, is_tradable, on_tick
from .ledger import is_dust
from .orders import AT_EXCHANGE, UNDECIDED
from .prices import is_price
from .types import Balance, BookTop, Instrument, Order, OrderRole, OrderState, Position, Side

_LEGS: Final = (OrderRole.STOP, OrderRole.TARGET)


class Move(StrEnum):
    """What is done about one lot."""

    KEEP = "keep"
    CLEAR = "clear"
    LEAVE = "leave"
    PLACE = "place"


@dataclass(frozen=True, slots=True)
class Step:
    """One lot's move: `quantity` is what a new pair is for; `words` say why what rests is not as it should be."""

    move: Move
    quantity: Decimal = ZERO
    words: str = ""


# --------------------------------------------------------------------------------------------------------- what rests
def resting(orders: Iterable[Order], lot: int, role: OrderRole | None = None) -> list[Order]:
    """The lot's stops and targets (or those of one role) that rest at the exchange."""
    roles = _LEGS if role is None else (role,)
    return [order for order in orders if order.lot == lot and order.state in AT_EXCHANGE and order.role in roles]


def covered(orders: Iterable[Order], lot: int) -> Decimal:
    """How much the stops that rest for a lot would still sell."""
    return sum((stop.quantity - stop.filled_quantity for stop in resting(orders, lot, OrderRole.STOP)), ZERO)


def leave_together(lots: Mapping[int, Decimal], position: Position, instrument: Instrument) -> bool:
    """True if each lot is too small for an order by today's rules, and all of them together are not."""

    def could_rest(held: Decimal) -> bool:
        return is_tradable(_on_step(held, instrument), position.stop_price, instrument)

    return len(lots) > 1 and not any(map(could_rest, lots.values())) and could_rest(sum(lots.values(), ZERO))


def pooled(lots: Mapping[int, Decimal], position: Position, instrument: Instrument) -> dict[int, Decimal]:
    """What each lot holds (nothing where more was sold than bought); all of it counts as the largest one's where lots
    can only leave together.
    """
    if not leave_together(lots, position, instrument):
        return {lot: max(held, ZERO) for lot, held in lots.items()}
    largest = max(lots, key=lambda lot: lots[lot])
    return {lot: sum(lots.values(), ZERO) if lot == largest else ZERO for lot in lots}


def to_protect(
    lots: Mapping[int, Decimal], position: Position, instrument: Instrument, orders: Sequence[Order]
) -> dict[int, Decimal]:
    """What a stop is wanted for, by lot: less what an exit that is at the exchange is about to sell. Each lot keeps its
    own as long as the stop of one of them rests.
    """
    rests = any(resting(orders, lot, OrderRole.STOP) for lot in lots)
    held = {lot: max(own, ZERO) for lot, own in lots.items()} if rests else pooled(lots, position, instrument)
    return {lot: max(own - unresolved(orders, lot, AT_EXCHANGE), ZERO) for lot, own in held.items()}


def bare(orders: Sequence[Order], lots: Mapping[int, Decimal], position: Position, instrument: Instrument) -> bool:
    """Is there a lot of which a stop could hold more than one holds?"""
    return any(
        is_tradable(_on_step(held - covered(orders, lot), instrument), position.stop_price, instrument)
        for lot, held in lots.items()
    )


def unresolved(
    orders: Iterable[Order], lot: int | None = None, states: Collection[OrderState] = AT_EXCHANGE | UNDECIDED
) -> Decimal:
    """What exits of a lot (of all lots: None) that are not known to be over may still sell."""
    return sum(
        (
            order.quantity - order.filled_quantity
            for order in orders
            if order.role is OrderRole.EXIT and order.state in states and (lot is None or order.lot == lot)
        ),
        ZERO,
    )


# ---------------------------------------------------------------------------------------------------- what is there
def sellable(
    position: Position,
    orders: Sequence[Order],
    balance: Balance | None,
    baseline: Decimal,
    others: Decimal,
    instrument: Instrument,
) -> Decimal:
    """How much of a position can be sold or protected: what fills prove to be ours, as far as it is there.

    The position comes before the `baseline` (what the account held before us, in base units): coins that are missing
    are the baseline's first. Only while an order of ours may still turn out to have sold them are they taken for its
    doing. `others` is what the account's other live positions hold of the same asset: what is missing of all of them is
    missing of each in proportion. On spot coins that a person's own orders lock are not there. On futures the
    contract's net quantity is what can be reduced.
    """
    quantity = max(position.quantity, ZERO)
    total = balance.total if balance is not None else ZERO
    if instrument.margin is not None:
        return max(min(quantity, total if position.side is Side.LONG else -total), ZERO)
    reachable = min(total, _left(orders, AT_EXCHANGE) + (balance.free if balance is not None else ZERO))
    if (doubtful := unresolved(orders) + _left(orders, UNDECIDED)) > 0:
        quantity = max(quantity - doubtful, min(quantity, total - baseline))
    if quantity + others > total > 0:
        reachable = min(reachable, total * quantity / (quantity + others))
    return max(min(quantity, reachable), ZERO)


def spare(
    balance: Balance | None, baseline: Decimal, bought: Decimal, held: Decimal, instrument: Instrument
) -> Decimal:
    """What is ours of an asset beside the `held` of all live positions: dust of those that are over.

    `bought` is what all our fills have left of it. A stop may sell that dust too: where the exchange sizes it itself,
    it takes an entry's commission from there. Whatever else lies in the account is somebody's.
    """
    if balance is None or instrument.margin is not None:
        return ZERO
    return max(min(bought, balance.total - max(baseline, ZERO)) - held, ZERO)


def _left(orders: Iterable[Order], states: Collection[OrderState]) -> Decimal:
    """What stops and targets in these states would still sell; those of one list sell the same coins."""
    by_list: dict[str, Decimal] = {}
    for order in orders:
        if order.role in _LEGS and order.state in states:
            name = order.list_client_id or order.client_order_id
            by_list[name] = max(by_list.get(name, ZERO), order.quantity - order.filled_quantity)
    return sum(by_list.values(), ZERO)


# -------------------------------------------------------------------------------------------------------------- judge
def holds_nothing(held: Decimal, position: Position, instrument: Instrument) -> bool:
    """Is nothing held, or what the ledger calls dust? No order could hold it, whatever the price of today."""
    return held <= 0 or is_dust(held, position.entry_price, instrument, position.minimums)


def _is_over(orders: Sequence[Order], lot: int, held: Decimal, position: Position, instrument: Instrument) -> bool:
    """Is there nothing left to protect? A lot whose stop rests is not dust because a minimum or a step has grown."""
    steps = [instrument.step_size, *([] if position.minimums is None else [position.minimums.step_size])]
    if floor_to_step(held, min(steps)) <= 0:
        return True
    if resting(orders, lot, OrderRole.STOP) and not holds_nothing(position.quantity, position, instrument):
        return False
    return holds_nothing(held, position, instrument)


def is_fine(
    orders: Sequence[Order],
    lot: int,
    wanted: Decimal,
    position: Position,
    instrument: Instrument,
    over: Decimal = ZERO,
) -> bool:
    """One stop at the wanted price for all that is `wanted` (less what could not be traded), and for at most `over`
    more; nothing for dust, and anything for what is more than dust and too little for a stop.
    """
    if _is_over(orders, lot, wanted, position, instrument):
        return not resting(orders, lot)
    if not is_tradable(_on_step(wanted, instrument), position.stop_price, instrument):
        return True
    stops = resting(orders, lot, OrderRole.STOP)
    if len(stops) != 1 or not _is_at(stops[0], position.stop_price, instrument):
        return False
    if instrument.target_rests and not resting(orders, lot, OrderRole.TARGET):
        return False
    left = wanted - covered(orders, lot)
    return left >= -over and not is_tradable(_on_step(left, instrument), position.stop_price, instrument)


def next_step(
    orders: Sequence[Order],
    lot: int,
    held: Decimal,
    share: Decimal,
    position: Position,
    target: Decimal,
    book: BookTop,
    instrument: Instrument,
    over: Decimal = ZERO,
) -> Step:
    """What is done about one lot that holds `held`, of which `share` is there to be protected.

    `target` is the lot's own, `book` the market's price, or what came in its place, `over` what a stop may cover beyond
    `held`.
    """
    amount, wanted = _on_step(held, instrument), _on_step(min(held, share), instrument)
    rests = resting(orders, lot)
    if _is_over(orders, lot, held, position, instrument):
        return Step(Move.CLEAR if rests else Move.KEEP)
    if is_fine(orders, lot, min(held, share), position, instrument, over):
        return Step(Move.KEEP)
    protected = min(covered(orders, lot), amount)
    if wanted < protected:
        return Step(
            Move.KEEP,
            words=f"a new stop would cover {wanted} of the {amount} {instrument.base} held, the old one covers "
            f"{protected} and is left: are coins missing, or locked by an order of your own?",
        )
    if not is_tradable(wanted, position.stop_price, instrument):
        missing = wanted < amount
        return Step(Move.KEEP, words=f"of {amount} {instrument.base} only {wanted} are there" if missing else "")
    if wanted > min(instrument.max_quantity, instrument.max_market_quantity):
        words = f"a new stop for {wanted} {instrument.base} is more than the exchange takes in one: the old one is left"
        return Step(Move.KEEP, words=words) if rests else Step(Move.LEAVE)
    if not is_price(book.bid, book.ask):
        return Step(Move.KEEP, words=no_price(instrument)) if rests else Step(Move.PLACE, wanted)
    stop, target = on_tick(position.side, position.stop_price, target, book, instrument)
    return Step(Move.LEAVE) if is_through(position.side, stop, target, book) else Step(Move.PLACE, wanted)


def no_price(instrument: Instrument) -> str:
    """Why nothing is decided."""
    return f"{instrument.symbol} has no price that could be believed: what rests is left"


def is_through(side: Side, stop: Decimal, target: Decimal, book: BookTop) -> bool:
    """Has the price passed the stop or the target already, so that neither could be placed?"""
    if side is Side.LONG:
        return book.bid <= stop or book.bid >= target
    return book.ask >= stop or book.ask <= target


def target_passed(position: Position, target: Decimal, book: BookTop) -> bool:
    """Has the price reached a target that is watched because it does not rest?"""
    return book.bid >= target if position.side is Side.LONG else book.ask <= target


def _is_at(stop: Order, price: Decimal, instrument: Instrument) -> bool:
    """Less than a tick of today from the wanted price: it may rest on a finer one of yesterday."""
    return stop.stop_price is not None and abs(stop.stop_price - price) < instrument.tick_size


def _on_step(quantity: Decimal, instrument: Instrument) -> Decimal:
    return floor_to_step(quantity, instrument.step_size)
