"""A simulated account: our orders on the matching engine, protected and left as live does it.

The rows are the live chain's: `core.brackets` plans them, `core.ledger` makes positions of their fills (`booking`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from tradewind.core.brackets import (
    floor_to_step,
    is_tradable,
    next_generation,
    plan_entry,
    plan_exit,
    plan_protection,
)
from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_types import ListKind, Refusal
from tradewind.core.orders import is_final
from tradewind.core.protection import is_fine, is_through, resting, worst_price
from tradewind.core.types import (
    BracketSupport,
    Intent,
    Order,
    OrderRole,
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
        """What live's `converge_protection` does: nothing where all is fine, else cancel and place anew, lot by lot.

        A lot whose new protection cannot be placed (the price is already through) leaves at market.
        """
        instrument = self.instruments[holding.position.symbol]
        if not holding.is_live or self._all_fine(holding, at_ms):
            return
        lots = self._lots(holding)
        share = self._share(holding)
        for lot in sorted(lots):
            wanted = floor_to_step(min(max(self._lots(holding)[lot], ZERO), share), instrument.step_size)
            share -= wanted
            if not self._is_fine(holding, lot, wanted, at_ms):
                self._replace_lot(holding, lot, wanted, at_ms, reason)
        self._settle()

    def _replace_lot(
        self, holding: Holding, lot: int, wanted: Decimal, at_ms: int, reason: str, *, may_exit: bool = True
    ) -> None:
        now, symbol = moment(at_ms), holding.position.symbol
        instrument, book = self.instruments[symbol], self.book(symbol, now)
        self._cancel_lot(holding, lot, at_ms)
        if not holding.is_live or not is_tradable(wanted, worst_price(holding.position, book), instrument):
            return
        target = next(own.target_price for own in holding.intent.lots if own.lot == lot)
        if not is_through(holding.position, target, book):
            generation = next_generation(list(holding.orders.values()), lot)
            pair = plan_protection(
                holding.position, lot, wanted, holding.position.stop_price, target, generation, instrument, now, reason
            )
            if pair is not None and self._place_pair(holding, pair, at_ms):
                return
        if not may_exit:
            return
        self._leave_lot(holding, lot, at_ms, "stop_through")
        rest = floor_to_step(min(max(self._lots(holding)[lot], ZERO), wanted), instrument.step_size)
        if holding.is_live and is_tradable(rest, worst_price(holding.position, book), instrument):
            self._replace_lot(holding, lot, rest, at_ms, reason, may_exit=False)

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
        return not self._all_fine(holding, self.engine.quotes[holding.position.symbol].time_ms)

    # --------------------------------------------------------------------------------------------------------- details
    def _all_fine(self, holding: Holding, at_ms: int) -> bool:
        symbol = holding.position.symbol
        if holding.fine_above is not None and self.bid(symbol) >= holding.fine_above:
            return True
        lots, orders = self._lots(holding), list(holding.orders.values())
        book, instrument = self.book(symbol, moment(at_ms)), self.instruments[symbol]
        fine = all(is_fine(orders, lot, held, holding.position, book, instrument) for lot, held in lots.items())
        holding.fine_above = self._fine_above(holding, lots) if fine else None
        return fine

    def _fine_above(self, holding: Holding, lots: Mapping[int, Decimal]) -> Decimal | None:
        """From which bid on every lot that is protected stays large enough to be; None where a price may change that.

        Only for lots protected to the last step: what a minimum alone excuses may be tradable at another price.
        """
        instrument = self.instruments[holding.position.symbol]
        orders, least = list(holding.orders.values()), ZERO
        for lot, held in lots.items():
            stops = resting(orders, lot, OrderRole.STOP)
            covered = sum((stop.quantity - stop.filled_quantity for stop in stops), ZERO)
            if held - covered >= instrument.step_size or (held > 0 and covered < instrument.min_quantity):
                return None
            if covered > 0:
                least = max(least, instrument.min_notional_quote / covered)
        return least

    def _is_fine(self, holding: Holding, lot: int, wanted: Decimal, at_ms: int) -> bool:
        symbol = holding.position.symbol
        book = self.book(symbol, moment(at_ms))
        return is_fine(list(holding.orders.values()), lot, wanted, holding.position, book, self.instruments[symbol])

    def _share(self, holding: Holding) -> Decimal:
        """How much of the position the account really holds."""
        base = self.instruments[holding.position.symbol].base
        total_held = self.engine.amount(self.engine.book.accounts[self.account_id].balance(base).total)
        return max(min(holding.position.quantity, total_held - self.baseline.get(base, ZERO)), ZERO)

    def _leave_lot(self, holding: Holding, lot: int, at_ms: int, reason: str) -> None:
        """Sell a lot at market; what a thin book leaves is sent again, a few times."""
        now, symbol = moment(at_ms), holding.position.symbol
        instrument = self.instruments[symbol]
        for _ in range(EXIT_ROUNDS):
            bid = self.bid(symbol)
            held = floor_to_step(max(self._lots(holding)[lot], ZERO), instrument.step_size)
            if not holding.is_live or not is_tradable(held, bid, instrument):
                break
            share = self._share(holding)
            self._cancel_lot(holding, lot, at_ms)
            wanted = floor_to_step(min(max(self._lots(holding)[lot], ZERO), share), instrument.step_size)
            generation = next_generation(list(holding.orders.values()), lot)
            order = plan_exit(holding.position, lot, wanted, bid, generation, instrument, now, reason)
            if order is None:
                break
            self._remember(holding, (order,))
            try:
                self.engine.place(self.account_id, self._request(order), at_ms)
            except Refusal as refusal:
                self._reject(holding, (order,), refusal, now)
                break
            self._settle()
            if holding.orders[order.client_order_id].filled_quantity == 0:
                break

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
