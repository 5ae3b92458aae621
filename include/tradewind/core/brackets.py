"""From an intent to the order rows: the bracket of an entry, the protection of what is held, the exit.

An entry is one bracket list a lot: a marketable LIMIT, filled whole or not at all (FOK), whose fill places a STOP_LOSS
(market, so that it cannot be jumped over) and a LIMIT_MAKER target as one-cancels-other. Where both lots exceed the
minimum notional there are two, the first with its target at +1R, so that the partial take-profit rests at the exchange.

Everything here is exact: prices on the tick, quantities on the step, both `Decimal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache
from typing import Final

from .orders import client_order_id, list_client_id
from .params import Geometry, StrategyParams
from .ports import BracketLegs
from .positions import round_to_tick, sign_of
from .prices import is_price
from .types import BookTop, BracketLot, Instrument, Intent, Order, OrderRole, OrderState, Position, Side

ENTRY_TYPE: Final = "LIMIT"  # the adapter sends it with timeInForce FOK
STOP_TYPE: Final = "STOP_LOSS"
TARGET_TYPE: Final = "LIMIT_MAKER"
EXIT_TYPE: Final = "MARKET"
# On futures both legs wait for their price and leave at market; neither knows of the other.
MARGIN_STOP_TYPE: Final = "STOP_MARKET"
MARGIN_TARGET_TYPE: Final = "TAKE_PROFIT_MARKET"

ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)


@lru_cache(maxsize=1024, typed=True)  # the strategy's thresholds are asked for at every decision
def decimal_of(value: float) -> Decimal:
    """The decimal a float prints as: 0.1 gives 0.1, not its binary expansion."""
    return Decimal(repr(value))


def floor_to_step(quantity: Decimal, step_size: Decimal) -> Decimal:
    """The largest multiple of the step that is not above `quantity`, exact; never below zero."""
    if quantity <= 0:
        return ZERO
    return (quantity / step_size).to_integral_value(ROUND_FLOOR) * step_size


def held_after_fee(quantity: Decimal, instrument: Instrument) -> Decimal:
    """What can be sold of a bought `quantity` once the taker commission has been taken from it, floored to the step.

    On futures commissions are paid in quote: all of it.
    """
    kept = ONE if instrument.margin is not None else ONE - instrument.taker_fee_frac
    return floor_to_step(quantity * kept, instrument.step_size)


# -------------------------------------------------------------------------------------------------------------- prices
def entry_limit_price(
    side: Side, reference: Decimal, atr_quote: float, params: StrategyParams, instrument: Instrument
) -> Decimal:
    """`entry_through_atr_frac` of an ATR through the reference price, rounded to the tick that is less far through."""
    through = decimal_of(atr_quote) * decimal_of(params.entry_through_atr_frac)
    price = reference + sign_of(side) * through
    return round_to_tick(price, instrument.tick_size, up=side is Side.SHORT)


def initial_stop_price(
    side: Side, reference: Decimal, atr_quote: float, geometry: Geometry, instrument: Instrument
) -> Decimal:
    """`stop_atr` ATR against the reference, rounded away from it. May be <= 0 for absurd ATRs: sizing refuses that."""
    distance = decimal_of(atr_quote) * decimal_of(geometry.stop_atr)
    return round_to_tick(reference - sign_of(side) * distance, instrument.tick_size, up=side is Side.SHORT)


def target_price(side: Side, reference: Decimal, stop: Decimal, target_r: float, instrument: Instrument) -> Decimal:
    """`target_r` times the distance between reference and stop beyond the reference, rounded away from it."""
    distance = abs(reference - stop) * decimal_of(target_r)
    return round_to_tick(reference + sign_of(side) * distance, instrument.tick_size, up=side is Side.LONG)


def on_tick(
    side: Side, stop: Decimal, target: Decimal, book: BookTop, instrument: Instrument
) -> tuple[Decimal, Decimal]:
    """Stop and target on the tick of today: an exchange makes ticks coarser while orders of the old one rest.

    The stop goes towards profit, and only where that would put it onto or through the price the other way: a change of
    the tick must move it, and sell nothing. The target goes away from the price, as when it was decided.
    """
    is_long, tick = side is Side.LONG, instrument.tick_size
    nearer = round_to_tick(stop, tick, up=is_long)
    if is_price(book.bid, book.ask) and (nearer >= book.bid if is_long else nearer <= book.ask):
        nearer = round_to_tick(stop, tick, up=not is_long)
    return nearer, round_to_tick(target, tick, up=is_long)


# ---------------------------------------------------------------------------------------------------------------- lots
def is_tradable(quantity: Decimal, price: Decimal, instrument: Instrument, *, opens: bool = False) -> bool:
    """Does the exchange take an order of this quantity at this price? The one test of what is too small.

    On futures only what `opens` a position has a least notional; what reduces one, as all else does that is sent here,
    has none, so that its price is not looked at.
    """
    if quantity <= 0 or quantity < instrument.min_quantity:
        return False
    return (instrument.margin is not None and not opens) or quantity * price >= instrument.min_notional_quote


def can_be_opened(quantity: Decimal, entry: Decimal, stop: Decimal, instrument: Instrument) -> bool:
    """Does the exchange take an entry of this quantity at its limit, and then a stop for what is left of it after the
    commission? On spot the stop is the lowest price that any of its orders has.
    """
    held = held_after_fee(quantity, instrument)
    return is_tradable(quantity, entry, instrument, opens=True) and is_tradable(held, stop, instrument)


def slices(quantity: Decimal, instrument: Instrument) -> list[Decimal]:
    """A quantity (on the step) in as few even parts as the exchange takes at market; they add up to it exactly."""
    step = instrument.step_size
    most = max(int(instrument.max_market_quantity / step), 1)
    steps = int(quantity / step)
    count = -(-steps // most)
    return [(steps // count + (number < steps % count)) * step for number in range(count)]


def split_lots(
    quantity: Decimal,
    side: Side,
    reference: Decimal,
    entry: Decimal,
    stop: Decimal,
    geometry: Geometry,
    params: StrategyParams,
    instrument: Instrument,
) -> tuple[BracketLot, ...]:
    """One lot, or two where each can be opened and protected on its own: each is an entry with a stop of its own.

    One where targets do not rest at the exchange: two lots would be watched instead of being left to it. Targets are
    measured from `reference`, `entry` is the limit price.
    """
    final_target = target_price(side, reference, stop, geometry.target_r, instrument)
    whole = (BracketLot(0, quantity, final_target),)
    if not instrument.target_rests:
        return whole
    first = floor_to_step(quantity * decimal_of(params.partial_frac), instrument.step_size)
    second = quantity - first
    if not all(can_be_opened(part, entry, stop, instrument) for part in (first, second)):
        return whole
    first_target = target_price(side, reference, stop, params.partial_target_r, instrument)
    if first_target == final_target:
        return whole
    return (BracketLot(0, first, first_target), BracketLot(1, second, final_target))


# -------------------------------------------------------------------------------------------------------------- orders
def _order(
    *,
    owner: Intent | Position,
    role: OrderRole,
    is_buy: bool,
    lot: int,
    generation: int,
    order_type: str,
    quantity: Decimal,
    price: Decimal | None,
    stop_price: Decimal | None,
    list_id: str | None,
    now: datetime,
    reason: str = "",
) -> Order:
    names = (owner.account, owner.strategy_version, owner.symbol, owner.bar)
    return Order(
        client_order_id=client_order_id(*names, lot, role, generation),
        account=owner.account,
        position_id=owner.intent_id if isinstance(owner, Intent) else owner.position_id,
        symbol=owner.symbol,
        role=role,
        is_buy=is_buy,
        lot=lot,
        generation=generation,
        order_type=order_type,
        quantity=quantity,
        price=price,
        stop_price=stop_price,
        list_client_id=list_id,
        state=OrderState.PLANNED,
        exchange_order_id=None,
        filled_quantity=ZERO,
        planned_at=now,
        sent_at=None,
        updated_at=now,
        reason=reason,
    )


def plan_entry(intent: Intent, instrument: Instrument, now: datetime) -> list[BracketLegs]:
    """The bracket lists of an intent, one a lot, generation 0: rows to commit before anything is sent.

    The legs' quantity is what can be sold after the commission; where the exchange sizes them itself from the proceeds
    (OPOCO) it is the expected one, and the fills decide.
    """
    is_buy = intent.side is Side.LONG
    lists = []
    for lot in intent.lots:
        list_id = list_client_id(intent.account, intent.strategy_version, intent.symbol, intent.bar, lot.lot, 0)
        legs = {}
        held = held_after_fee(lot.quantity, instrument)
        for role, order_type, quantity, price, stop in (
            (OrderRole.ENTRY, ENTRY_TYPE, lot.quantity, intent.entry_limit_price, None),
            *((*leg[:2], held, *leg[2:]) for leg in _protective_legs(intent.stop_price, lot.target_price, instrument)),
        ):
            legs[role] = _order(
                owner=intent,
                role=role,
                is_buy=is_buy if role is OrderRole.ENTRY else not is_buy,
                lot=lot.lot,
                generation=0,
                order_type=order_type,
                quantity=quantity,
                price=price,
                stop_price=stop,
                list_id=list_id if instrument.margin is None else None,
                now=now,
            )
        lists.append(BracketLegs(list_id, legs[OrderRole.ENTRY], legs[OrderRole.STOP], legs[OrderRole.TARGET]))
    return lists


def plan_protection(
    position: Position,
    lot: int,
    quantity: Decimal,
    stop_price: Decimal,
    target: Decimal,
    generation: int,
    book: BookTop,
    instrument: Instrument,
    now: datetime,
    reason: str = "",
) -> tuple[Order, Order] | None:
    """A new pair (stop, target) for `quantity` of one lot, floored to the step: on spot one cancels the other.

    Where targets do not rest the stop is an order on its own, and the target only says what is watched. Prices go onto
    today's tick, by `on_tick`.

    `quantity` comes from fills. None when it is too small for the exchange to hold.
    """
    amount = floor_to_step(quantity, instrument.step_size)
    stop_price, target = on_tick(position.side, stop_price, target, book, instrument)
    if not is_tradable(amount, min(stop_price, target), instrument):
        return None
    list_id = None
    if instrument.margin is None and instrument.target_rests:
        list_id = list_client_id(
            position.account, position.strategy_version, position.symbol, position.bar, lot, generation
        )
    pair = [
        _order(
            owner=position,
            role=role,
            is_buy=position.side is Side.SHORT,
            lot=lot,
            generation=generation,
            order_type=order_type,
            quantity=amount,
            price=price,
            stop_price=stop,
            list_id=list_id,
            now=now,
            reason=reason,
        )
        for role, order_type, price, stop in _protective_legs(stop_price, target, instrument)
    ]
    return pair[0], pair[1]


def _protective_legs(
    stop_price: Decimal, target: Decimal, instrument: Instrument
) -> tuple[tuple[OrderRole, str, Decimal | None, Decimal | None], ...]:
    """(role, order type, limit price, trigger price) of stop and target."""
    if instrument.margin is not None:
        return (OrderRole.STOP, MARGIN_STOP_TYPE, None, stop_price), (
            OrderRole.TARGET,
            MARGIN_TARGET_TYPE,
            None,
            target,
        )
    return (OrderRole.STOP, STOP_TYPE, None, stop_price), (OrderRole.TARGET, TARGET_TYPE, target, None)


def plan_exit(
    position: Position,
    lot: int,
    quantity: Decimal,
    price: Decimal,
    generation: int,
    instrument: Instrument,
    now: datetime,
    reason: str,
) -> Order | None:
    """A market order that leaves `quantity` of one lot; `price` (the bid, or the ask for a short) only tells dust.

    None when what is held is too small for the exchange to trade.
    """
    amount = floor_to_step(quantity, instrument.step_size)
    if not is_tradable(amount, price, instrument):
        return None
    return _order(
        owner=position,
        role=OrderRole.EXIT,
        is_buy=position.side is Side.SHORT,
        lot=lot,
        generation=generation,
        order_type=EXIT_TYPE,
        quantity=amount,
        price=None,
        stop_price=None,
        list_id=None,
        now=now,
        reason=reason,
    )


def next_generation(orders: Sequence[Order], lot: int) -> int:
    """The generation after the newest one of a lot, over all its orders: ids are never used twice."""
    return max((order.generation for order in orders if order.lot == lot), default=-1) + 1
