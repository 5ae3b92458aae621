"""Positions out of fills: what is held, what it cost, what it won. Fills are the truth, requests are not.

Everything is a sum over distinct fills, so their order and their repetition change nothing. Fees are taken where the
exchange took them: in base they shrink what is held, in quote they shrink the cash, in a third asset they are kept
apart and valued at a given rate. The cash moved by all fills of a position, once nothing (or dust) is held, is its
result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final, Protocol

from .brackets import ZERO, floor_to_step, is_tradable
from .orders import is_final
from .positions import r_distance, sign_of
from .types import (
    ClosedTrade,
    Fill,
    Instrument,
    Minimums,
    Order,
    OrderRole,
    Position,
    PositionStatus,
    Side,
)
from .values import changed

NOT_FILLED: Final = "not_filled"
WRITTEN_OFF: Final = "written_off"


class Pair(Protocol):
    """The two assets of a market: an instrument, or what is left of one that is not listed any more."""

    @property
    def base(self) -> str: ...
    @property
    def quote(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Assets:
    """The pair of a symbol, without any rules."""

    base: str
    quote: str

    @classmethod
    def of(cls, symbol: str) -> Assets:
        """From a symbol such as BTC/USDT."""
        base, quote = symbol.split("/")
        return cls(base, quote)


def in_time(fill: Fill) -> tuple[datetime, int, str]:
    """Sorts fills by time, and those of one millisecond as the exchange numbered them: its ids are mostly numbers."""
    return fill.at, len(fill.trade_id), fill.trade_id


@dataclass(frozen=True, slots=True)
class FillTotals:
    """Sums over the fills of one position. Quantities in base units and not negative, money in quote.

    `cash_quote` is what all fills moved, quote fees included: negative while a long is held. `fees_quote` values every
    fee in quote (base fees at their own fill's price), for information; only quote fees are part of the cash.
    """

    entry_quantity: Decimal
    entry_notional_quote: Decimal
    exit_quantity: Decimal
    exit_notional_quote: Decimal
    base_fees: Decimal
    quote_fees: Decimal
    entry_quote_fees: Decimal  # the part of them that the entry paid
    base_fees_quote: Decimal
    other_fees: Mapping[str, Decimal]
    cash_quote: Decimal
    first_entry_at: datetime | None
    last_exit_at: datetime | None
    last_at: datetime | None

    @property
    def entry_price(self) -> Decimal | None:
        """Average price of the entry's fills, before fees."""
        return self.entry_notional_quote / self.entry_quantity if self.entry_quantity > 0 else None

    @property
    def exit_price(self) -> Decimal | None:
        """Average price of the exits' fills, before fees."""
        return self.exit_notional_quote / self.exit_quantity if self.exit_quantity > 0 else None

    @property
    def held(self) -> Decimal:
        """What is left of the position, net of base fees. Negative only when more was sold than bought."""
        return self.entry_quantity - self.exit_quantity - self.base_fees


def distinct(fills: Iterable[Fill]) -> list[Fill]:
    """Each execution once, by (account, symbol, trade id), oldest first.

    Raises ValueError when two fills of one id differ: the exchange's history was misread.
    """
    found: dict[tuple[str, str, str], Fill] = {}
    for fill in fills:
        key = (fill.account, fill.symbol, fill.trade_id)
        known = found.setdefault(key, fill)
        if known is not fill and known != fill:
            raise ValueError(f"two different fills are called {fill.trade_id} in {fill.symbol}")
    return sorted(found.values(), key=in_time) if len(found) > 1 else list(found.values())


def total(fills: Iterable[Fill], side: Side, pair: Pair) -> FillTotals:
    """The exact sums over the distinct fills of one position."""
    entry = exit_ = entry_notional = exit_notional = ZERO
    base_fees = quote_fees = entry_quote_fees = base_fees_quote = cash = ZERO
    other: dict[str, Decimal] = {}
    first_entry_at = last_exit_at = last_at = None
    for fill in distinct(fills):
        notional = fill.quantity * fill.price
        cash += -notional if fill.is_buy else notional
        enters = fill.is_buy is (side is Side.LONG)
        if enters:
            entry, entry_notional = entry + fill.quantity, entry_notional + notional
            first_entry_at = first_entry_at or fill.at
        else:
            exit_, exit_notional = exit_ + fill.quantity, exit_notional + notional
            last_exit_at = fill.at
        last_at = fill.at
        if fill.fee_asset == pair.quote:
            quote_fees, cash = quote_fees + fill.fee, cash - fill.fee
            entry_quote_fees += fill.fee if enters else ZERO
        elif fill.fee_asset == pair.base:
            base_fees, base_fees_quote = base_fees + fill.fee, base_fees_quote + fill.fee * fill.price
        else:
            other[fill.fee_asset] = other.get(fill.fee_asset, ZERO) + fill.fee
    return FillTotals(
        entry_quantity=entry,
        entry_notional_quote=entry_notional,
        exit_quantity=exit_,
        exit_notional_quote=exit_notional,
        base_fees=base_fees,
        quote_fees=quote_fees,
        entry_quote_fees=entry_quote_fees,
        base_fees_quote=base_fees_quote,
        other_fees=other,
        cash_quote=cash,
        first_entry_at=first_entry_at,
        last_exit_at=last_exit_at,
        last_at=last_at,
    )


def other_fees_quote(fees: Mapping[str, Decimal], rates_quote: Mapping[str, Decimal]) -> Decimal:
    """Third-asset fees in quote. Raises KeyError naming the asset whose rate is missing: a fee never counts as zero."""
    missing = [asset for asset in fees if asset not in rates_quote]
    if missing:
        raise KeyError(f"no rate in quote for the fee asset {', '.join(missing)}: pass its price")
    return sum((amount * rates_quote[asset] for asset, amount in fees.items()), ZERO)


def realised_quote(
    totals: FillTotals, side: Side, rates_quote: Mapping[str, Decimal] | None = None, *, closed: bool
) -> Decimal:
    """What the closed part has won, all fees included.

    For a position that is over (`closed`) it is the cash its fills moved: what is left as dust is written off. For a
    part, the entry's cost and fee are taken in the proportion in which what was received has left again.
    """
    other = other_fees_quote(totals.other_fees, rates_quote or {})
    if closed:
        return totals.cash_quote - other
    leaving = totals.exit_quantity
    if leaving == 0 or totals.entry_quantity == 0:
        return ZERO
    received = totals.entry_quantity - totals.base_fees
    share = min(leaving / received, Decimal(1)) if received > 0 else Decimal(1)
    won = (totals.exit_notional_quote - totals.entry_notional_quote * share) * sign_of(side)
    exit_fees = totals.quote_fees - totals.entry_quote_fees
    return won - exit_fees - totals.entry_quote_fees * share - other


def apply_fills(
    position: Position,
    fills: Iterable[Fill],
    orders: Sequence[Order],
    instrument: Instrument,
    rates_quote: Mapping[str, Decimal] | None = None,
) -> Position:
    """The position as its fills make it; stop, target and management fields stay as they are.

    `orders` are the position's own: while one of its entries may still fill it is never closed, and while one of its
    exits may, it is never dust. Idempotent.

    Status: OPENING → OPEN with the first fill, CLOSED when nothing is held, DUST when what is held was no order's worth
    at the entry's price; an entry that ended without a fill is CLOSED with the reason "not_filled". A CLOSING position
    stays so until then, and one that was written off stays CLOSED, whatever is held of it.
    """
    working = [order for order in orders if not is_final(order.state)]
    entering = any(order.role is OrderRole.ENTRY for order in working)
    leaving = any(order.role is not OrderRole.ENTRY for order in working)
    ended_at = None
    if not entering and any(order.role is OrderRole.ENTRY for order in orders):
        ended_at = max(order.updated_at for order in orders)
    totals = total(fills, position.side, instrument)
    return after_totals(position, totals, entering, leaving, ended_at, instrument, rates_quote)


def closing_reason(fills: Sequence[Fill], orders: Collection[Order]) -> str:
    """What ended a position: the role of the order that executed last, for an exit its reason; never an entry where
    anything was let go.

    `fills` stand in time; those of one millisecond may stand in any order where the exchange's ids are no numbers.
    """
    if not fills:
        return NOT_FILLED
    by_id = {order.client_order_id: order for order in orders}
    made = [by_id.get(fill.client_order_id) for fill in fills]
    last = ([order for order in made if order is None or order.role is not OrderRole.ENTRY] or made)[-1]
    if last is None:
        return OrderRole.EXIT.value
    return last.reason if last.role is OrderRole.EXIT and last.reason else last.role.value


def after_totals(
    position: Position,
    totals: FillTotals,
    entering: bool,
    leaving: bool,
    ended_at: datetime | None,
    instrument: Instrument,
    rates_quote: Mapping[str, Decimal] | None = None,
) -> Position:
    """`apply_fills` where the sums are known: whether an entry or an exit may still fill, and when the last order of
    an entry that may not had news (None while it may).
    """
    status, closed_at, exit_reason = position.status, position.closed_at, position.exit_reason
    if status is PositionStatus.CLOSED and exit_reason == WRITTEN_OFF:
        pass
    elif totals.entry_quantity == 0:
        if ended_at is not None:
            status, closed_at, exit_reason = PositionStatus.CLOSED, closed_at or ended_at, exit_reason or NOT_FILLED
    elif not entering and totals.held <= 0:
        status, closed_at = PositionStatus.CLOSED, totals.last_at
    elif not entering and not leaving and is_dust(totals.held, totals.entry_price, instrument, position.minimums):
        status, closed_at = PositionStatus.DUST, totals.last_at
    elif status is not PositionStatus.CLOSING:
        status, closed_at = PositionStatus.OPEN, None
    closed = status in (PositionStatus.CLOSED, PositionStatus.DUST)
    other = other_fees_quote(totals.other_fees, rates_quote or {})
    return changed(
        position,
        status=status,
        opened_at=totals.first_entry_at,
        closed_at=closed_at,
        quantity=totals.held,
        entry_quantity=totals.entry_quantity,
        entry_price=totals.entry_price,
        realised_quote=realised_quote(totals, position.side, rates_quote, closed=closed),
        fees_quote=totals.quote_fees + totals.base_fees_quote + other,
        exit_reason=exit_reason,
    )


def written_off(position: Position, fills: Iterable[Fill], settled_quote: Decimal, at: datetime) -> Position:
    """The position given up at a moment: closed with what is held, its result the cash that its fills moved and what
    the exchange paid for it (`settled_quote`).

    Needs no rules of its market, which may be gone. Third-asset fees stay what they were last valued at.
    """
    totals = total(fills, position.side, Assets.of(position.symbol))
    other = position.fees_quote - totals.quote_fees - totals.base_fees_quote
    return changed(
        position,
        status=PositionStatus.CLOSED,
        closed_at=at,
        realised_quote=totals.cash_quote + settled_quote - other,
        exit_reason=WRITTEN_OFF,
    )


def is_dust(
    held: Decimal, entry_price: Decimal | None, instrument: Instrument, minimums: Minimums | None = None
) -> bool:
    """Something is held, and at the price that was paid for it the exchange would not trade it: neither by today's
    rules, nor as an order to open it by the `minimums` of its opening.

    Never judged by the present price: a book without bids, or a crash, would turn any position into dust, which is not
    chased any more.
    """
    if held <= 0 or is_tradable(floor_to_step(held, instrument.step_size), entry_price or ZERO, instrument):
        return False
    if minimums is None:
        return True
    opened = replace(
        instrument,
        step_size=minimums.step_size,
        min_quantity=minimums.min_quantity,
        min_notional_quote=minimums.min_notional_quote,
    )
    # What only reduces a contract has no least notional: without one, each rest below today's step would stay for ever.
    return not is_tradable(floor_to_step(held, opened.step_size), entry_price or ZERO, opened, opens=True)


def lot_quantities(
    orders: Sequence[Order], fills: Iterable[Fill], side: Side, instrument: Instrument
) -> dict[int, Decimal]:
    """What is held of each lot, net of base fees: the sizes that protection and exits are made for.

    Fills of orders that are not in `orders` are left out: they belong to nobody's lot.
    """
    lots = {order.client_order_id: order.lot for order in orders}
    by_lot: dict[int, list[Fill]] = {lot: [] for lot in lots.values()}
    for fill in fills:
        if fill.client_order_id in lots:
            by_lot[lots[fill.client_order_id]].append(fill)
    return {lot: total(own, side, instrument).held for lot, own in sorted(by_lot.items())}


def net_r(position: Position) -> float:
    """The realised result in R: over the planned distance to the first stop times the quantity entered.

    Costs are in the result, not in R: a stop that fills as planned is a little worse than −1. Zero without a fill.
    """
    distance = r_distance(position)
    if distance is None or distance == 0 or position.entry_quantity == 0:
        return 0.0
    return float(position.realised_quote / (distance * position.entry_quantity))


def closed_trade(position: Position) -> ClosedTrade | None:
    """The closed position as cooldown and loss counting see it; None while it is open or when it never filled."""
    if position.status not in (PositionStatus.CLOSED, PositionStatus.DUST) or position.closed_at is None:
        return None
    if position.entry_quantity == 0:
        return None
    return ClosedTrade(
        position.position_id, position.symbol, position.closed_at, net_r(position), position.realised_quote
    )


def signed_quantity(position: Position) -> Decimal:
    """Held quantity, negative for a short: what marks and balances add up."""
    return position.quantity * sign_of(position.side)
