"""One position brought up to date: its orders as the exchange reports them, its figures from its fills.

Everything here runs under the position's lock and may be repeated at any point: orders are observed or asked for, fills
are inserted once by their trade id, figures are recomputed from all fills. None of it needs a price.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from tradewind.core.brackets import floor_to_step, is_tradable
from tradewind.core.ledger import apply_fills, closing_reason, lot_quantities, net_r
from tradewind.core.orders import AT_EXCHANGE, is_final
from tradewind.core.ports import Ports
from tradewind.core.protection import resting
from tradewind.core.types import (
    BookTop,
    ExchangeOrder,
    Fill,
    Instrument,
    Order,
    OrderRole,
    OrderState,
    Position,
    PositionStatus,
)
from tradewind.errors import LedgerMismatch, MissingData
from tradewind.jobs.adopting import adopt_sales
from tradewind.jobs.orders import ask, observe, withdraw
from tradewind.jobs.pricing import value_fees

OVER: Final = (PositionStatus.CLOSED, PositionStatus.DUST)
# Our clock and the exchange's differ a little; asking for a few known fills again costs nothing.
_FILLS_MARGIN: Final = timedelta(seconds=60)
_FILL_READS: Final = 4
_PAUSE_BETWEEN_READS_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Figures:
    """A position as its orders and fills make it: `lots` is what is held of each lot."""

    position: Position
    orders: tuple[Order, ...]
    lots: Mapping[int, Decimal]


@dataclass(frozen=True, slots=True)
class Situation:
    """A position as it is now: `lots` is what is held of each lot, from fills; `book` the price it was judged at."""

    position: Position
    orders: tuple[Order, ...]
    lots: Mapping[int, Decimal]
    instrument: Instrument
    book: BookTop

    @property
    def is_over(self) -> bool:
        return self.position.status in OVER


def refresh(
    ports: Ports,
    position_id: str,
    instrument: Instrument,
    book: BookTop,
    listed: Mapping[str, ExchangeOrder] | None = None,
) -> Situation:
    """`settle`, seen at a price."""
    figures = settle(ports, position_id, instrument, listed)
    return Situation(figures.position, figures.orders, figures.lots, instrument, book)


def settle(
    ports: Ports, position_id: str, instrument: Instrument, listed: Mapping[str, ExchangeOrder] | None = None
) -> Figures:
    """Observe the position's orders (`listed` are the open ones, if just read), take in its fills, save its figures.

    Raises LedgerMismatch when the exchange executed more than its trade list shows, even after waiting for it.
    """
    rested = {order.client_order_id for order in _stops(ports.trading_store.orders_of(position_id))}
    _observe_orders(ports, position_id, listed or {})
    orders, foreign = _take_fills(ports, position_id)
    figures = _apply(ports, position_id, orders, instrument)
    if foreign and figures.position.status not in OVER and adopt_sales(ports, figures.position, foreign, instrument):
        figures = _apply(ports, position_id, ports.trading_store.orders_of(position_id), instrument)
    _measure_ended_stops(ports, figures, rested, instrument)
    return figures


def _stops(orders: Sequence[Order]) -> list[Order]:
    return [order for order in orders if order.role is OrderRole.STOP and order.state in AT_EXCHANGE]


def _measure_ended_stops(ports: Ports, figures: Figures, rested: Collection[str], instrument: Instrument) -> None:
    """Begin the unprotected span of a stop that the exchange ended, at the last moment it was seen to rest."""
    position = figures.position
    gone_since = [
        order.seen_at or order.sent_at
        for order in figures.orders
        if order.client_order_id in rested
        and is_final(order.state)
        and order.filled_quantity < order.quantity
        and not resting(figures.orders, order.lot, OrderRole.STOP)
        and is_tradable(floor_to_step(figures.lots[order.lot], instrument.step_size), position.stop_price, instrument)
    ]
    moments = [moment for moment in gone_since if moment is not None]
    if moments and position.status not in OVER:
        ports.trading_store.start_unprotected(position.position_id, "stop ended by the exchange", min(moments))


def _observe_orders(ports: Ports, position_id: str, listed: Mapping[str, ExchangeOrder]) -> None:
    for order in ports.trading_store.orders_of(position_id):
        if is_final(order.state):
            continue
        if order.state is OrderState.PLANNED:
            # We hold the lock: whoever planned it is gone, and nothing has left.
            withdraw(ports, [order], OrderState.EXPIRED, "planned, never sent", ports.clock.now())
        elif order.client_order_id in listed:
            observe(ports, listed[order.client_order_id])
        else:
            ask(ports, order)


def _take_fills(ports: Ports, position_id: str) -> tuple[list[Order], list[Fill]]:
    """Insert the executions that the exchange lists; returns the position's orders, whose fills are then complete, and
    the executions since then that no order of ours made."""
    store = ports.trading_store
    orders = store.orders_of(position_id)
    sent = [order for order in orders if order.sent_at is not None]
    if not sent:
        return orders, []
    missing: list[str] = []
    for number in range(_FILL_READS):
        if number:
            time.sleep(_PAUSE_BETWEEN_READS_S)
        begun = min(order.planned_at for order in sent)
        foreign = ingest_fills(ports, sent[0].symbol, since=begun - _FILLS_MARGIN)
        filled = _filled_by_order(store.fills_of(position_id))
        missing = [
            order.client_order_id
            for order in orders
            if filled.get(order.client_order_id, Decimal(0)) < order.filled_quantity
        ]
        if not missing:
            return orders, [fill for fill in foreign if fill.at >= begun]
    raise LedgerMismatch(
        f"{position_id}: the exchange executed orders {missing} and does not list the trades; asked {_FILL_READS} times"
    )


def ingest_fills(ports: Ports, symbol: str, *, since: datetime) -> list[Fill]:
    """Insert our executions in one market from the newest known one on; returns those that no order of ours made.

    `since` is where to begin while none is known. The same window is always read to its end, so none is jumped over.
    """
    store = ports.trading_store
    newest = store.last_fill_at([symbol]).get(symbol)
    start = since if newest is None else max(since, newest - _FILLS_MARGIN)
    fills = ports.exchange.fills_since(symbol, start)
    # Orders of a person that were adopted are in the ledger too.
    known = {client_id for client_id in {fill.client_order_id for fill in fills} if store.order(client_id) is not None}
    ours = [fill for fill in fills if fill.client_order_id in known]
    store.insert_fills(ours)
    taken = {fill.trade_id for fill in ours}
    return [fill for fill in fills if fill.trade_id not in taken]


def _filled_by_order(fills: Sequence[Fill]) -> dict[str, Decimal]:
    filled: dict[str, Decimal] = {}
    for fill in fills:
        filled[fill.client_order_id] = filled.get(fill.client_order_id, Decimal(0)) + fill.quantity
    return filled


def _apply(ports: Ports, position_id: str, orders: Sequence[Order], instrument: Instrument) -> Figures:
    store = ports.trading_store
    before = store.position(position_id)
    if before is None:
        raise LedgerMismatch(f"orders of {position_id} have no position row")
    fills = store.fills_of(position_id)
    rates = _fee_rates(ports, position_id, fills, instrument)
    after = apply_fills(before, fills, orders, instrument, rates)
    if after.status in OVER and not after.exit_reason:
        after = replace(after, exit_reason=closing_reason(fills, orders))
    if after != before:
        event = after.status.value if after.status is not before.status else "filled"
        store.save_position(after, event, ports.clock.now(), quantity=after.quantity, reason=after.exit_reason)
        if after.status in OVER and before.status not in OVER:
            say_closed(ports, after)
    lots = lot_quantities(orders, fills, after.side, instrument)
    return Figures(after, tuple(orders), lots)


def price_of(ports: Ports, symbol: str) -> BookTop:
    """Best bid and ask at this moment. Raises MissingData where there is no price."""
    book = ports.exchange.book_tops([symbol]).get(symbol)
    if book is None:
        raise MissingData(f"{symbol} has no price at the moment")
    return book


def _fee_rates(ports: Ports, position_id: str, fills: Sequence[Fill], instrument: Instrument) -> dict[str, Decimal]:
    """Prices in quote of the third assets that fees were taken in, as equity counts them."""
    if not {fill.fee_asset for fill in fills} - {instrument.base, instrument.quote}:
        return {}
    value_fees(ports, instrument.quote)
    return ports.trading_store.fee_rates(position_id)


def say_closed(ports: Ports, position: Position) -> None:
    ports.metrics.count("tradewind.positions.closed", reason=position.exit_reason)
    ports.metrics.gauge("tradewind.positions.result_quote", float(position.realised_quote), symbol=position.symbol)
    if position.entry_price is not None:
        ports.metrics.gauge("tradewind.positions.result_r", net_r(position), symbol=position.symbol)
