"""A simulated account: our orders on the matching engine, our fills in our ledger, as they would be at an exchange.

The rows are the live chain's: `core.brackets` plans them, `core.ledger` makes positions of their fills. Only the
exchange is another: `core.matching`, called directly instead of over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from tradewind.core import matching_types as engine_types
from tradewind.core.brackets import (
    floor_to_step,
    is_tradable,
    next_generation,
    plan_entry,
    plan_exit,
    plan_protection,
)
from tradewind.core.ledger import apply_fills, lot_quantities, total
from tradewind.core.matching import Engine
from tradewind.core.matching_book import BarTicks, MatchingSettings, best_ask, best_bid
from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_rules import SymbolRules, amount, atoms
from tradewind.core.matching_types import ListKind, NewOrder, OrderKind, OrderSide, OrderStatus, Refusal, TimeInForce
from tradewind.core.orders import is_final
from tradewind.core.params import StrategyParams
from tradewind.core.protection import is_fine, is_through, resting, worst_price
from tradewind.core.types import (
    BookTop,
    BracketSupport,
    Fill,
    Instrument,
    Intent,
    Order,
    OrderRole,
    OrderState,
    Position,
    PositionStatus,
    RegimeFamily,
)

from .signals import moment

ZERO = Decimal(0)
EXIT_ROUNDS = 3  # as often as live sends what a thin book left of a market order

STATES: Mapping[OrderStatus, OrderState] = {
    OrderStatus.PENDING_NEW: OrderState.WORKING,
    OrderStatus.NEW: OrderState.WORKING,
    OrderStatus.PARTIALLY_FILLED: OrderState.PARTIAL,
    OrderStatus.FILLED: OrderState.FILLED,
    OrderStatus.CANCELED: OrderState.CANCELLED,
    OrderStatus.EXPIRED: OrderState.EXPIRED,
    OrderStatus.REJECTED: OrderState.REJECTED,
}


def rules_of(instrument: Instrument) -> SymbolRules:
    """The engine's view of an instrument."""
    step = instrument.step_size
    return SymbolRules(
        symbol=instrument.symbol,
        base=instrument.base,
        quote=instrument.quote,
        tick=instrument.tick_size,
        step=step,
        min_lots=max(int(instrument.min_quantity / step), 1),
        max_lots=int(instrument.max_quantity / step),
        max_market_lots=int(instrument.max_quantity / step),
        min_notional=instrument.min_notional_quote,
        max_notional=Decimal(10**12),
        max_algo_orders=200,
    )


def matching_settings(params: StrategyParams) -> MatchingSettings:
    """The strategy's cost assumptions as the engine's."""
    return MatchingSettings(
        half_spread_ppm=round(params.spread_bps / 2 * 100), slippage_ppm=round(params.slippage_bps * 100)
    )


@dataclass(slots=True)
class Holding:
    """A position with its orders, fills and the stops it has had."""

    position: Position
    intent: Intent
    regime: str
    orders: dict[str, Order] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    stop_path: list[tuple[int, float]] = field(default_factory=list)
    cash_quote: Decimal = Decimal(0)
    fine_above: Decimal | None = None  # while nothing changes, its protection is known to be fine at bids from here on

    @property
    def is_live(self) -> bool:
        return self.position.status in (PositionStatus.OPENING, PositionStatus.OPEN, PositionStatus.CLOSING)

    def managed(self, best_close: Decimal, bar: datetime) -> None:
        """Keep what the position rule saw at a close."""
        self.position = replace(self.position, best_close=best_close, managed_bar=bar)


class SimulatedAccount:
    """One account on its own engine. Quotes must be fed (`feed_price`, `feed_bar`) before orders are placed."""

    def __init__(
        self,
        account_id: str,
        instruments: Mapping[str, Instrument],
        capital_quote: Decimal,
        settings: MatchingSettings,
        base_held: Mapping[str, Decimal] | None = None,
        baseline: Mapping[str, Decimal] | None = None,
    ) -> None:
        self.baseline = dict(baseline or {})
        self.account_id = account_id
        self.instruments = dict(instruments)
        self.engine = self._make_engine(instruments, settings)
        quotes = {instrument.quote for instrument in instruments.values()}
        if len(quotes) != 1:
            raise ValueError(f"one account counts in one quote asset, not in {', '.join(sorted(quotes))}")
        self.quote_asset = quotes.pop()
        fees = {(instrument.maker_fee_frac, instrument.taker_fee_frac) for instrument in instruments.values()}
        if len(fees) != 1:
            raise ValueError("the instruments of one account must share their fees")
        maker, taker = fees.pop()
        self.engine.open_account(
            account_id,
            {
                **{asset: atoms(held) for asset, held in (base_held or {}).items() if asset != self.quote_asset},
                self.quote_asset: atoms(capital_quote),
            },
            maker_fee_ppm=round(maker * 1_000_000),
            taker_fee_ppm=round(taker * 1_000_000),
        )
        self.holdings: dict[str, Holding] = {}
        self._holding_of: dict[str, str] = {}

    def _make_engine(self, instruments: Mapping[str, Instrument], settings: MatchingSettings) -> Engine:
        return Engine([rules_of(instrument) for instrument in instruments.values()], settings)

    def _prepare(self, symbol: str) -> None:
        """What an exchange needs to be told before an entry; nothing on spot."""

    # ---------------------------------------------------------------------------------------------------------- market
    def feed_price(self, symbol: str, price: float, volume: float, bar_ms: int, at_ms: int) -> list[Holding]:
        """The market trades at `price`; returns the holdings that changed."""
        rules = self.engine.rules[symbol]
        ticks = round(price / float(rules.tick))
        self.engine.on_price(symbol, ticks, int(volume / float(rules.step)), bar_ms, at_ms)
        return self._settle()

    def feed_bar(
        self, symbol: str, prices: tuple[float, float, float, float], volume: float, bar_ms: int, at_ms: int
    ) -> list[Holding]:
        """The market trades through a bar (open, high, low, close); returns the holdings that changed."""
        rules = self.engine.rules[symbol]
        ticks = [round(price / float(rules.tick)) for price in prices]
        bar = BarTicks(ticks[0], ticks[1], ticks[2], ticks[3], int(volume / float(rules.step)))
        self.engine.on_bar(symbol, bar, bar_ms, at_ms)
        return self._settle()

    def book(self, symbol: str, at: datetime) -> BookTop:
        """Bid and ask around the last price."""
        rules, quote = self.engine.rules[symbol], self.engine.quotes[symbol]
        bid = rules.price(best_bid(quote.last_ticks, self.engine.settings))
        ask = rules.price(best_ask(quote.last_ticks, self.engine.settings))
        return BookTop(symbol, bid, ask, at)

    @property
    def free_quote(self) -> Decimal:
        return amount(self.engine.book.accounts[self.account_id].balance(self.quote_asset).free)

    def live(self) -> list[Holding]:
        """Holdings that are not over, oldest first."""
        return [holding for holding in self.holdings.values() if holding.is_live]

    # ---------------------------------------------------------------------------------------------------------- orders
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
        holding = self.holdings[intent.intent_id] = Holding(position, intent, regime)
        holding.stop_path.append((at_ms, float(intent.stop_price)))
        self._prepare(intent.symbol)
        sized_from_proceeds = instrument.bracket is BracketSupport.OPOCO
        kind = ListKind.OPOCO if sized_from_proceeds else ListKind.OTOCO
        refused = ""
        for legs in plan_entry(intent, instrument, now):
            orders = (legs.entry, *sorted((legs.stop, legs.target), key=_level, reverse=True))
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
                self.engine.place_list(
                    self.account_id, NewOrderList(kind, intent.symbol, legs.list_client_id, requests), at_ms
                )
            except Refusal as refusal:
                self._reject(holding, orders, refusal, now)
            self._settle()
            state = holding.orders[legs.entry.client_order_id].state
            refused = "" if state is OrderState.FILLED else f"the first lot is {state.value}"
        self._rebuild(holding)
        self.converge(holding, at_ms)
        return holding

    def protect(self, holding: Holding, stop_price: Decimal, at_ms: int, reason: str) -> None:
        """Let one stop at `stop_price` and the lot's own target rest for every lot; `converge` does it."""
        if stop_price != holding.position.stop_price:
            holding.position = replace(holding.position, stop_price=stop_price)
            holding.fine_above = None
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
        orders = tuple(sorted(pair, key=_level, reverse=True))
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

    def held_lots(self, holding: Holding) -> dict[int, Decimal]:
        """Held quantity by lot, only those with something held."""
        instrument = self.instruments[holding.position.symbol]
        lots = lot_quantities(list(holding.orders.values()), holding.fills, holding.position.side, instrument)
        return {lot: quantity for lot, quantity in lots.items() if quantity > 0}

    def unprotected(self, holding: Holding) -> bool:
        """Does anything but what should rest for its lots?"""
        return not self._all_fine(holding, self.engine.quotes[holding.position.symbol].time_ms)

    # --------------------------------------------------------------------------------------------------------- details
    def _lots(self, holding: Holding) -> dict[int, Decimal]:
        instrument = self.instruments[holding.position.symbol]
        return lot_quantities(list(holding.orders.values()), holding.fills, holding.position.side, instrument)

    def _all_fine(self, holding: Holding, at_ms: int) -> bool:
        if holding.fine_above is not None:
            bid = self.book(holding.position.symbol, moment(at_ms)).bid
            if bid >= holding.fine_above:
                return True
        lots = self._lots(holding)
        fine = all(self._is_fine(holding, lot, held, at_ms) for lot, held in lots.items())
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
        total_held = amount(self.engine.book.accounts[self.account_id].balance(base).total)
        return max(min(holding.position.quantity, total_held - self.baseline.get(base, ZERO)), ZERO)

    def _leave_lot(self, holding: Holding, lot: int, at_ms: int, reason: str) -> None:
        """Sell a lot at market; what a thin book leaves is sent again, a few times."""
        now, symbol = moment(at_ms), holding.position.symbol
        instrument = self.instruments[symbol]
        for _ in range(EXIT_ROUNDS):
            bid = self.book(symbol, now).bid
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

    def _remember(self, holding: Holding, orders: Iterable[Order]) -> None:
        holding.fine_above = None
        for order in orders:
            holding.orders[order.client_order_id] = order
            self._holding_of[order.client_order_id] = holding.position.position_id

    def _reject(self, holding: Holding, orders: Iterable[Order], refusal: Refusal, now: datetime) -> None:
        for order in orders:
            holding.orders[order.client_order_id] = replace(
                order, state=OrderState.REJECTED, updated_at=now, reason=str(refusal)
            )
        self._rebuild(holding)

    def _request(self, order: Order, *, without_quantity: bool = False) -> NewOrder:
        rules = self.engine.rules[order.symbol]
        return NewOrder(
            symbol=order.symbol,
            side=OrderSide.BUY if order.is_buy else OrderSide.SELL,
            kind=OrderKind(order.order_type),
            client_id=order.client_order_id,
            lots=0 if without_quantity else rules.lots(order.quantity),
            price_ticks=rules.ticks(order.price) if order.price is not None else 0,
            stop_ticks=rules.ticks(order.stop_price) if order.stop_price is not None else 0,
            time_in_force=TimeInForce.FOK if order.role is OrderRole.ENTRY else TimeInForce.GTC,
        )

    def _settle(self) -> list[Holding]:
        """Carry the engine's changes into orders, fills and positions; returns the holdings that changed."""
        changes = self.engine.drain()
        touched: dict[str, Holding] = {}
        for changed in changes.orders.values():
            holding = self.holdings[self._holding_of[changed.client_id]]
            rules = self.engine.rules[changed.symbol]
            ours = holding.orders[changed.client_id]
            holding.orders[changed.client_id] = replace(
                ours,
                state=STATES[changed.status],
                exchange_order_id=str(changed.order_id),
                quantity=rules.quantity(changed.lots) if changed.lots else ours.quantity,
                filled_quantity=rules.quantity(changed.filled_lots),
                updated_at=moment(changed.updated_ms),
                reason=changed.reject_reason or ours.reason,
            )
            touched[holding.position.position_id] = holding
        for fill in changes.fills:
            client_id = self.engine.orders[fill.order_id].client_id
            holding = self.holdings[self._holding_of[client_id]]
            holding.fills.append(self._fill(fill, client_id))
            touched[holding.position.position_id] = holding
        for holding in touched.values():
            self._rebuild(holding)
        return list(touched.values())

    def _fill(self, fill: engine_types.Fill, client_id: str) -> Fill:
        rules = self.engine.rules[fill.symbol]
        return Fill(
            account=self.account_id,
            symbol=fill.symbol,
            trade_id=str(fill.trade_id),
            client_order_id=client_id,
            is_buy=fill.side is OrderSide.BUY,
            quantity=rules.quantity(fill.lots),
            price=rules.price(fill.price_ticks),
            fee=amount(fill.commission_atoms),
            fee_asset=fill.commission_asset,
            is_maker=fill.is_maker,
            at=moment(fill.time_ms),
        )

    def _rebuild(self, holding: Holding) -> None:
        position, instrument = holding.position, self.instruments[holding.position.symbol]
        holding.fine_above = None
        bid = self.book(position.symbol, position.bar).bid
        was = position.status
        holding.position = apply_fills(position, holding.fills, list(holding.orders.values()), instrument, bid)
        holding.cash_quote = total(holding.fills, position.side, instrument).cash_quote
        ended = not holding.is_live and was is not holding.position.status
        if ended and holding.fills and not holding.position.exit_reason:
            last = max(holding.fills, key=lambda fill: fill.at)
            holding.position = replace(holding.position, exit_reason=holding.orders[last.client_order_id].role.value)


def _level(order: Order) -> Decimal:
    """Where a leg stands: the engine takes the one above first."""
    price = order.price if order.price is not None else order.stop_price
    assert price is not None
    return price
