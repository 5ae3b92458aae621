"""Does what rests at the exchange for one lot protect it? The same answer for the live ledger and for its replay."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from .brackets import floor_to_step, is_tradable
from .orders import AT_EXCHANGE
from .types import BookTop, Instrument, Order, OrderRole, Position, Side


def resting(orders: Sequence[Order], lot: int, role: OrderRole | None = None) -> list[Order]:
    """The lot's stops and targets (or those of one role) that rest at the exchange."""
    roles = (OrderRole.STOP, OrderRole.TARGET) if role is None else (role,)
    return [order for order in orders if order.lot == lot and order.state in AT_EXCHANGE and order.role in roles]


def worst_price(position: Position, book: BookTop) -> Decimal:
    """The lower of stop and bid: by it a quantity is too small to trade or not."""
    return min(position.stop_price, book.bid)


def is_fine(
    orders: Sequence[Order], lot: int, wanted: Decimal, position: Position, book: BookTop, instrument: Instrument
) -> bool:
    """One stop at the wanted price for all that is wanted (less what could not be traded), or nothing for dust."""
    price = worst_price(position, book)
    stops = resting(orders, lot, OrderRole.STOP)
    if not is_tradable(floor_to_step(wanted, instrument.step_size), price, instrument):
        return not resting(orders, lot)
    if len(stops) != 1 or stops[0].stop_price != position.stop_price:
        return False
    if instrument.target_rests and not resting(orders, lot, OrderRole.TARGET):
        return False
    bare = wanted - (stops[0].quantity - stops[0].filled_quantity)
    return bare >= 0 and not is_tradable(bare, price, instrument)


def is_through(position: Position, target: Decimal, book: BookTop) -> bool:
    """Has the price passed the stop or the target already, so that neither could be placed?"""
    if position.side is Side.LONG:
        return book.bid <= position.stop_price or book.bid >= target
    return book.ask >= position.stop_price or book.ask <= target


def target_passed(position: Position, target: Decimal, book: BookTop) -> bool:
    """Has the price reached a target that is watched because it does not rest?"""
    return book.bid >= target if position.side is Side.LONG else book.ask <= target
