"""A simulated account: our orders on the matching engine, protected and left as live does it.

The rows are the live chain's: `core.brackets` plans them, `core.ledger` makes positions of their fills (`booking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from tradewind.core.brackets import (
    floor_to_step,
    is_tradable,
    next_generation,
    plan_entry,
    plan_exit,
    plan_protection,
    slices,
)
from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_types import ListKind, Refusal
from tradewind.core.orders import is_final
from tradewind.core.protection import (
    Move,
    covered,
    holds_nothing,
    is_fine,
    leave_together,
    next_step,
    pooled,
    spare,
    to_protect,
)
from tradewind.core.types import (
    Balance,
    BracketSupport,
    Instrument,
    Intent,
    Order,
    OrderState,
    Position,
    PositionStatus,
    RegimeFamily,
)

from .booking import ZERO, Books
from .holding import Holding
from .signals import moment

EXIT_ROUNDS = 3  # as often as live sends what a thin book left of a market order


class SimulatedAccount(Books):
    """Entries, protection and exits."""

    def _prepare(self, symbol: str) -> None:
        """What an exchange needs to be told before an entry; nothing on spot."""

    def enter(self, intent: Intent, family: RegimeFamily, regime: str, at_ms: int) -> Holding:
        """Send an intent's bracket lists; after a lot that was not filled the next one is not risked, as live.

        A refused or unfilled entry ends as a closed position without a fill.
        """
        now = moment(at_ms)
        instrument = self.instruments[intent.symbol]
        position = Position(
            position_id=intent.intent_id,
            account=self.account_id,
            strategy_version=intent.strategy_version,
            symbol=intent.symbol,
            side=intent.side,
            family=family,
            status=PositionStatus.OPENING,
            bar=intent.bar,
            opened_at=None,
            closed_at=None,
            quantity=Decimal(0),
            entry_quantity=Decimal(0),
            entry_price=None,
            initial_stop_price=intent.stop_price,
            stop_price=intent.stop_price,
            target_price=intent.lots[-1].target_price,
            atr_quote=intent.atr_quote,
            best_close=None,
            managed_bar=None,
            realised_quote=Decimal(0),
            fees_quote=Decimal(0),
        )
        holding = self.holdings[intent.intent_id] = Holding(position, intent, regime, self.engine.rules[intent.symbol])
        holding.stop_path.append((at_ms, float(intent.stop_price)))
        self._prepare(intent.symbol)
        sized_from_proceeds = instrument.bracket is BracketSupport.OPOCO
        kind = ListKind.OPOCO if sized_from_proceeds else ListKind.OTOCO
        alone = instrument.bracket is BracketSupport.EMULATED  # what is filled is protected by `converge`, as live does
        refused = ""
        for legs in plan_entry(intent, instrument, now):
            orders: tuple[Order, ...] = (legs.entry,) if alone else (legs.entry, *_from_above(legs.stop, legs.target))
            if refused:
                orders = tuple(replace(order, state=OrderState.EXPIRED, reason=refused) for order in orders)
            self._remember(holding, orders)
            if refused:
                continue
            requests = tuple(
                self._request(order, without_quantity=sized_from_proceeds and order is not legs.entry)
                for order in orders
            )
            try:
                if alone:
                    self.engine.place(self.account_id, requests[0], at_ms)
                else:
                    new = NewOrderList(kind, intent.symbol, legs.list_client_id, requests)
                    self.engine.place_list(self.account_id, new, at_ms)
            except Refusal as refusal:
                self._reject(holding, orders, refusal, now)
            self._settle()
            state = holding.state_of(legs.entry.client_order_id)
            refused = "" if state is OrderState.FILLED else f"the first lot is {state.value}"
        if refused:
            self._rebuild(holding)
        self.converge(holding, at_ms)
        return holding

    def protect(self, holding: Holding, stop_price: Decimal, at_ms: int, reason: str) -> None:
        """Let one stop at `stop_price` and the lot's own target rest for every lot; `converge` does it."""
        if stop_price != holding.position.stop_price:
            holding.position = replace(holding.position, stop_price=stop_price)
            holding.disturb()
            holding.stop_path.append((at_ms, float(stop_price)))
        self.converge(holding, at_ms, reason)

    def converge(self, holding: Holding, at_ms: int, reason: str = "healed") -> None:
        """What live's `converge_protection` does: nothing where all is fine, else lot by lot what `next_step` says.

        A lot whose new protection cannot be placed (the price is already through) leaves at market.
        """
        if not holding.is_live or self._all_fine(holding):
            return
        symbol = holding.position.symbol
        instrument, book = self.instruments[symbol], self.book(symbol, moment(at_ms))
        share, over = self._share(holding), self._spare(holding)
        for lot in sorted(self._lots(holding)):
            orders = list(holding.orders.values())
            held = self._wanted(holding, orders)[lot]
            step = next_step(
                orders, lot, held, share, holding.position, self._target(holding, lot), book, instrument, over
            )
            share, over = max(share - held, ZERO), max(over - max(covered(orders, lot) - held, ZERO), ZERO)
            if step.move is Move.CLEAR:
                self._cancel_lot(holding, lot, at_ms)
            elif step.move is Move.LEAVE:
                self._leave_lot(holding, lot, at_ms, "stop_through")
            elif step.move is Move.PLACE:
                self._replace_lot(holding, lot, step.quantity, at_ms, reason)
        self._settle()

    def _replace_lot(
        self, holding: Holding, lot: int, wanted: Decimal, at_ms: int, reason: str, *, may_exit: bool = True
    ) -> None:
        now, position = moment(at_ms), holding.position
        instrument, book = self.instruments[position.symbol], self.book(position.symbol, now)
        self._cancel_lot(holding, lot, at_ms)
        generation = next_generation(list(holding.orders.values()), lot)
        target = self._target(holding, lot)
        pair = plan_protection(
            position, lot, wanted, position.stop_price, target, generation, book, instrument, now, reason
        )
        if pair is not None and self._place_pair(holding, pair, at_ms):
            return
        if not may_exit:
            return
        self._leave_lot(holding, lot, at_ms, "stop_through")
        rest = floor_to_step(min(self._held(holding)[lot], wanted), instrument.step_size)
        if holding.is_live and is_tradable(rest, holding.position.stop_price, instrument):
            self._replace_lot(holding, lot, rest, at_ms, reason, may_exit=False)

    def _target(self, holding: Holding, lot: int) -> Decimal:
        return next(own.target_price for own in holding.intent.lots if own.lot == lot)

    def _place_pair(self, holding: Holding, pair: tuple[Order, Order], at_ms: int) -> bool:
        orders = _from_above(*pair)
        self._remember(holding, orders)
        requests = tuple(self._request(order) for order in orders)
        list_id = pair[0].list_client_id or pair[0].client_order_id
        new = NewOrderList(ListKind.OCO, holding.position.symbol, list_id, requests)
        try:
            self.engine.place_list(self.account_id, new, at_ms)
        except Refusal as refusal:
            self._reject(holding, orders, refusal, moment(at_ms))
            return False
        self._settle()
        return True

    def leave(self, holding: Holding, at_ms: int, reason: str) -> None:
        """Cancel what rests and sell what is held at market, lot by lot; protect again what could not be sold."""
        holding.position = replace(holding.position, status=PositionStatus.CLOSING, exit_reason=reason)
        for lot in sorted(self._lots(holding)):
            self._leave_lot(holding, lot, at_ms, reason)
        self.converge(holding, at_ms)

    def unprotected(self, holding: Holding) -> bool:
        """Does anything but what should rest for its lots?"""
        return not self._all_fine(holding)

    # --------------------------------------------------------------------------------------------------------- details
    def _all_fine(self, holding: Holding) -> bool:
        if not holding.is_fine:
            orders = list(holding.orders.values())
            wanted = self._wanted(holding, orders)
            holding.is_fine = all(is_fine(orders, lot, held, *self._rules(holding)) for lot, held in wanted.items())
        return holding.is_fine

    def _held(self, holding: Holding) -> dict[int, Decimal]:
        return pooled(self._lots(holding), *self._rules(holding))

    def _wanted(self, holding: Holding, orders: Sequence[Order]) -> dict[int, Decimal]:
        return to_protect(self._lots(holding), *self._rules(holding), orders)

    def _rules(self, holding: Holding) -> tuple[Position, Instrument]:
        return holding.position, self.instruments[holding.position.symbol]

    def _total(self, holding: Holding) -> Decimal:
        base = self.instruments[holding.position.symbol].base
        return self.engine.amount(self.engine.book.accounts[self.account_id].balance(base).total)

    def _share(self, holding: Holding) -> Decimal:
        """How much of the position the account really holds."""
        return max(min(holding.position.quantity, self._total(holding)), ZERO)

    def _spare(self, holding: Holding) -> Decimal:
        """What dust of earlier positions lies beside it."""
        instrument, total = self.instruments[holding.position.symbol], self._total(holding)
        baseline = self.baseline.get(instrument.base, ZERO)
        balance = Balance(instrument.base, total, ZERO)
        return spare(balance, baseline, total - baseline, holding.position.quantity, instrument)

    def _leave_lot(self, holding: Holding, lot: int, at_ms: int, reason: str) -> None:
        """Sell a lot at market; what a thin book leaves is sent again, a few times."""
        symbol = holding.position.symbol
        instrument = self.instruments[symbol]
        for _ in range(EXIT_ROUNDS):
            wanted = floor_to_step(min(self._held(holding)[lot], self._share(holding)), instrument.step_size)
            if (
                not holding.is_live
                or holds_nothing(self._held(holding)[lot], holding.position, instrument)
                or not is_tradable(wanted, self.bid(symbol), instrument)
            ):
                break
            lots = self._lots(holding)
            for own in lots if leave_together(lots, holding.position, instrument) else (lot,):
                self._cancel_lot(holding, own, at_ms)
            if not self._sell(holding, lot, wanted, at_ms, reason):
                break

    def _sell(self, holding: Holding, lot: int, quantity: Decimal, at_ms: int, reason: str) -> bool:
        """Market orders for a quantity, slice by slice until one is not filled whole; True when some was executed."""
        symbol, now, is_sold = holding.position.symbol, moment(at_ms), False
        instrument = self.instruments[symbol]
        for part in slices(quantity, instrument):
            generation = next_generation(list(holding.orders.values()), lot)
            order = plan_exit(holding.position, lot, part, self.bid(symbol), generation, instrument, now, reason)
            if order is None:
                break
            self._remember(holding, (order,))
            try:
                self.engine.place(self.account_id, self._request(order), at_ms)
            except Refusal as refusal:
                self._reject(holding, (order,), refusal, now)
                break
            self._settle()
            row = holding.orders[order.client_order_id]
            is_sold |= row.filled_quantity > 0
            if row.state is not OrderState.FILLED:
                break
        return is_sold

    def _cancel_lot(self, holding: Holding, lot: int, at_ms: int) -> None:
        for order in list(holding.orders.values()):
            if order.lot == lot and not is_final(order.state) and order.exchange_order_id is not None:
                try:
                    self.engine.cancel(self.account_id, int(order.exchange_order_id), at_ms)
                except Refusal:
                    continue  # its sibling's cancellation took it along
        self._settle()


def _from_above(stop: Order, target: Order) -> tuple[Order, Order]:
    """The engine takes the leg above first."""
    return (stop, target) if _level(stop) >= _level(target) else (target, stop)


def _level(order: Order) -> Decimal:
    """Where a leg stands: the engine takes the one above first."""
    price = order.price if order.price is not None else order.stop_price
    assert price is not None
    return price
