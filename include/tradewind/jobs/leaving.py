"""Leaving: one lot sold at market, in slices that the exchange takes, and what rests for it out of the way.

On spot what rests has locked the coins: it is cancelled first, and only where the market trades and its price says that
the exchange takes the exit. On futures an exit only ever reduces: it goes out while the stop still rests, whether or
not that can be cancelled, and what is left of the pair is cancelled after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tradewind.core.brackets import floor_to_step, is_tradable, next_generation, plan_exit, slices
from tradewind.core.orders import AT_EXCHANGE, UNDECIDED
from tradewind.core.ports import Ports
from tradewind.core.prices import is_price
from tradewind.core.protection import (
    holds_nothing,
    leave_together,
    no_price,
    pooled,
    resting,
    sellable,
    spare,
    unresolved,
)
from tradewind.core.types import Instrument, MarketStatus, Order, OrderState, Position, Side
from tradewind.errors import OrderRejected, OutcomeUnknown, RetryError
from tradewind.jobs.orders import ask, observe, submit
from tradewind.jobs.settling import Situation, refresh

ZERO: Final = Decimal(0)
UNRESOLVED: Final = tuple(sorted(UNDECIDED))
# A market order may be filled in part where the book is thin; the rest is sent again, a few times in one run.
_EXIT_ROUNDS: Final = 3


class Look:
    """One look at one position: what is asked for once in it, and what could not be done, in words."""

    def __init__(self, ports: Ports, symbol: str) -> None:
        self._ports = ports
        self._symbol = symbol
        self._status: MarketStatus | None = None
        self.problems: list[str] = []

    def may_trade(self) -> bool:
        """Does the market trade? Asked of the exchange right before anything is cancelled or sent for a lot.

        A market that did not trade when it was asked is not asked again in the same look.
        """
        if self._status in (None, MarketStatus.TRADING):
            self._status = self._ports.exchange.market_status(self._symbol)
        if self._status is not MarketStatus.TRADING:
            self.say(f"{self._symbol} is {self._status.value} at the exchange: what rests is left, and asked for again")
        return self._status is MarketStatus.TRADING

    def say(self, words: str) -> None:
        """Keep why something was left as it is."""
        if words and words not in self.problems:
            self.problems.append(words)


# --------------------------------------------------------------------------------------------------------------- leave
def leave_lot(ports: Ports, situation: Situation, lot: int, reason: str, look: Look) -> Situation:
    """Sell what a lot holds, as far as it can be sold now; returns the situation after it."""
    for _ in range(_EXIT_ROUNDS):
        if situation.is_over:
            break
        wanted = _may_be_sold(ports, situation, lot)
        if not _takes(situation, lot, wanted, look) or not look.may_trade():
            break
        lots = situation.lots if leave_together(*_rules(situation)) else (lot,)
        rests = [order for own in lots for order in resting(situation.orders, own)]
        if situation.instrument.margin is None:
            position_id = situation.position.position_id
            ports.trading_store.start_unprotected(position_id, f"exit: {reason}"[:80], ports.wall.now())
            if not cancel_resting(ports, rests):
                break
            situation = after_cancel(ports, situation, rests)
            wanted = min(wanted, _uncommitted(situation, lot))
        situation, is_sold = _sell(ports, situation, lot, wanted, reason)
        if situation.instrument.margin is not None and _is_empty(situation, lot):
            cancel_resting(ports, rests)  # what could not be cancelled is for the next run: it can only reduce
            situation = after_cancel(ports, situation, rests)
        if not is_sold:
            break
    return again(ports, situation)


def held_of(situation: Situation, lot: int) -> Decimal:
    """What a lot holds, small rests of others counted with it where they can only leave together."""
    return pooled(*_rules(situation))[lot]


def _rules(situation: Situation) -> tuple[Mapping[int, Decimal], Position, Instrument]:
    return situation.lots, situation.position, situation.instrument


def _is_empty(situation: Situation, lot: int) -> bool:
    return holds_nothing(held_of(situation, lot), situation.position, situation.instrument)


def _uncommitted(situation: Situation, lot: int) -> Decimal:
    """What a lot holds less what its exits may still sell: while the fate of one is unknown it may still arrive, and a
    second one for the same could sell what is not ours."""
    left = held_of(situation, lot) - unresolved(situation.orders, lot)
    return floor_to_step(left, situation.instrument.step_size)


def _may_be_sold(ports: Ports, situation: Situation, lot: int) -> Decimal:
    share, _ = shares(ports, situation)
    return floor_to_step(min(_uncommitted(situation, lot), share), situation.instrument.step_size)


def _takes(situation: Situation, lot: int, wanted: Decimal, look: Look) -> bool:
    """Does the exchange take an exit of this quantity? Asked before anything is cancelled for it."""
    instrument, book = situation.instrument, situation.book
    if _is_empty(situation, lot) or wanted < instrument.min_quantity:
        return False
    if instrument.margin is not None:
        return True
    if not is_price(book.bid, book.ask):
        look.say(no_price(instrument))
        return False
    if is_tradable(wanted, _leaves_at(situation), instrument):
        return True
    if not unresolved(situation.orders, lot):
        look.say(
            f"{wanted} {instrument.base} are worth less than the exchange's least order "
            f"({instrument.min_notional_quote} {instrument.quote}) at {_leaves_at(situation)}: what rests is left. "
            "They were bought for more and are no dust: wait for a better price, or "
            f"./tradewind write-off {situation.position.position_id} --reason TEXT"
        )
    return False


def _leaves_at(situation: Situation) -> Decimal:
    return situation.book.bid if situation.position.side is Side.LONG else situation.book.ask


def _sell(ports: Ports, situation: Situation, lot: int, quantity: Decimal, reason: str) -> tuple[Situation, bool]:
    """Send market orders for a quantity, slice by slice until one is not filled whole; True when some was executed.

    Each slice is an order of its own generation, planned once the one before it is over: who dies between two finds in
    the ledger what was sold, and goes on with the rest.
    """
    store, instrument = ports.trading_store, situation.instrument
    is_sold, row = False, None
    for part in slices(quantity, instrument):
        orders = store.orders_of(situation.position.position_id)
        order = plan_exit(
            situation.position,
            lot,
            part,
            _leaves_at(situation),
            next_generation(orders, lot),
            instrument,
            ports.clock.now(),
            reason,
        )
        if order is None:
            break
        store.plan_orders([order])
        (row,) = submit(ports, [order], lambda order=order: [ports.exchange.send_order(order, instrument)])  # type: ignore[misc]
        is_sold |= row.filled_quantity > 0
        if row.state is not OrderState.FILLED:
            break
    situation = again(ports, situation)
    if row is not None and row.state is OrderState.REJECTED and not situation.is_over:
        ports.alerts.raise_alert(
            "critical",
            f"exit-refused-{row.position_id}",
            f"{row.symbol}: the exchange refused to sell",
            f"Exit of {row.quantity} ({reason}) was refused: {row.reason}. It is tried again every minute.",
        )
    return situation, is_sold


# ----------------------------------------------------------------------------------------------------- what is there
def shares(ports: Ports, situation: Situation) -> tuple[Decimal, Decimal]:
    """How much of the position is there to be sold or protected, and what dust of earlier ones lies beside it."""
    position, instrument = situation.position, situation.instrument
    baseline = (ports.trading_store.baseline() or {}).get(instrument.base, ZERO)
    balance = ports.exchange.balances().get(instrument.base)
    others = sum(
        (
            max(other.quantity, ZERO)
            for other in ports.trading_store.live_positions()
            if other.position_id != position.position_id and other.symbol.split("/")[0] == instrument.base
        ),
        ZERO,
    )
    share = sellable(position, situation.orders, balance, baseline, others, instrument)
    total = ports.trading_store.ledger_totals().get(position.symbol)
    bought = total.base_quantity if total is not None else ZERO
    return share, spare(balance, baseline, bought, position.quantity + others, instrument)


# -------------------------------------------------------------------------------------------------------------- cancel
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
        except (OutcomeUnknown, RetryError, OrderRejected):
            reports = []  # refused, or no answer: what became of each is asked for below
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
