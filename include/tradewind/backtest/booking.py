"""An account's market and books: prices into the matching engine, its changes back into our orders, fills, positions.

Only the exchange is another than live: `core.matching`, called directly instead of over HTTP. Positions are made of
fills by `core.ledger`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from tradewind.core import matching_types as engine_types
from tradewind.core.ledger import after_totals, apply_fills, closing_reason, in_time, lot_quantities, total
from tradewind.core.matching import Engine
from tradewind.core.matching_book import BarTicks, MatchingSettings, best_ask, best_bid
from tradewind.core.matching_rules import ATOM_DECIMALS, SymbolRules, atom_decimals_of
from tradewind.core.matching_types import NewOrder, OrderKind, OrderSide, Refusal, TimeInForce
from tradewind.core.params import StrategyParams
from tradewind.core.types import BookTop, Fill, Instrument, Order, OrderRole, OrderState
from tradewind.core.values import changed

from .holding import Holding
from .signals import moment

ZERO = Decimal(0)


_PPM = 1_000_000
_MOST_LOTS = 10**17  # what an exchange calls no limit at all may be more than 64 bits hold


def decimals_of(instruments: Iterable[Instrument]) -> int:
    """How finely money is counted where these are traded together."""
    return max((atom_decimals_of(i.tick_size, i.step_size) for i in instruments), default=ATOM_DECIMALS)


def rules_of(instrument: Instrument, decimals: int | None = None) -> SymbolRules:
    """The engine's view of an instrument; `decimals` is `decimals_of` all that are traded with it, None: it alone."""
    step = instrument.step_size
    return SymbolRules(
        symbol=instrument.symbol,
        base=instrument.base,
        quote=instrument.quote,
        tick=instrument.tick_size,
        step=step,
        min_lots=max(int(instrument.min_quantity / step), 1),
        max_lots=min(int(instrument.max_quantity / step), _MOST_LOTS),
        max_market_lots=min(int(instrument.max_market_quantity / step), _MOST_LOTS),
        min_notional=instrument.min_notional_quote,
        max_notional=Decimal(10**12),
        max_algo_orders=200,
        atom_decimals=decimals_of([instrument]) if decimals is None else decimals,
        maker_fee_ppm=round(instrument.maker_fee_frac * _PPM),
        taker_fee_ppm=round(instrument.taker_fee_frac * _PPM),
    )


def matching_settings(params: StrategyParams) -> MatchingSettings:
    """The strategy's cost assumptions as the engine's."""
    return MatchingSettings(
        half_spread_ppm=round(params.spread_bps / 2 * 100), slippage_ppm=round(params.slippage_bps * 100)
    )


class Books:
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
        held = {**(base_held or {}), self.quote_asset: capital_quote}
        self.engine.open_account(account_id, {asset: self.engine.atoms(amount) for asset, amount in held.items()})
        self.holdings: dict[str, Holding] = {}
        self._holding_of: dict[str, Holding] = {}  # by client order id

    def _make_engine(self, instruments: Mapping[str, Instrument], settings: MatchingSettings) -> Engine:
        decimals = decimals_of(instruments.values())
        return Engine([rules_of(instrument, decimals) for instrument in instruments.values()], settings)

    # ---------------------------------------------------------------------------------------------------------- market
    def feed_price(self, symbol: str, last_ticks: int, volume_lots: int, bar_ms: int, at_ms: int) -> list[Holding]:
        """The market trades at a price; returns the holdings that changed."""
        self.engine.on_price(symbol, last_ticks, volume_lots, bar_ms, at_ms)
        return self._settle()

    def feed_bar(self, symbol: str, bar: BarTicks, bar_ms: int, at_ms: int) -> list[Holding]:
        """The market trades through a bar; returns the holdings that changed."""
        self.engine.on_bar(symbol, bar, bar_ms, at_ms)
        return self._settle()

    def book(self, symbol: str, at: datetime) -> BookTop:
        """Bid and ask around the last price."""
        rules, quote = self.engine.rules[symbol], self.engine.quotes[symbol]
        bid = rules.price(best_bid(quote.last_ticks, self.engine.settings))
        ask = rules.price(best_ask(quote.last_ticks, self.engine.settings))
        return BookTop(symbol, bid, ask, at)

    def bid(self, symbol: str) -> Decimal:
        """The best bid alone."""
        rules, quote = self.engine.rules[symbol], self.engine.quotes[symbol]
        return rules.price(best_bid(quote.last_ticks, self.engine.settings))

    @property
    def free_quote(self) -> Decimal:
        return self.engine.amount(self.engine.book.accounts[self.account_id].balance(self.quote_asset).free)

    def base_atoms(self, asset: str) -> int:
        """What the account has of an asset, in atoms."""
        return self.engine.book.accounts[self.account_id].balance(asset).total

    def have(self, assets: Mapping[str, int]) -> None:
        """The account has these atoms and no order: what another loop has left it with."""
        account = self.engine.book.accounts[self.account_id]
        for asset, held in assets.items():
            account.balance(asset).total = held

    def live(self) -> list[Holding]:
        """Holdings that are not over, oldest first."""
        return [holding for holding in self.holdings.values() if holding.is_live]

    def held_lots(self, holding: Holding) -> dict[int, Decimal]:
        """Held quantity by lot, only those with something held."""
        return {lot: quantity for lot, quantity in self._lots(holding).items() if quantity > 0}

    def _lots(self, holding: Holding) -> dict[int, Decimal]:
        totals = holding.totals
        if totals is not None and len(holding.intent.lots) == 1:
            return {holding.intent.lots[0].lot: totals.held}  # one lot holds all there is
        instrument = self.instruments[holding.position.symbol]
        return lot_quantities(list(holding.orders.values()), holding.fills, holding.position.side, instrument)

    # ----------------------------------------------------------------------------------------------------------- books
    def _remember(self, holding: Holding, orders: Iterable[Order]) -> None:
        for order in orders:
            holding.remember(order)
            self._holding_of[order.client_order_id] = holding

    def _reject(self, holding: Holding, orders: Iterable[Order], refusal: Refusal, now: datetime) -> None:
        for order in orders:
            holding.remember(replace(order, state=OrderState.REJECTED, updated_at=now, reason=str(refusal)))
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
        if not self.engine.has_changed:
            return []
        changes = self.engine.drain()
        touched: dict[str, Holding] = {}
        for record in changes.orders.values():
            holding = self._holding_of[record.client_id]
            holding.note(record)
            touched[holding.position.position_id] = holding
        for fill in changes.fills:
            client_id = self.engine.orders[fill.order_id].client_id
            holding = self._holding_of[client_id]
            holding.fills.append(self._fill(fill, client_id))
            touched[holding.position.position_id] = holding
        found = list(touched.values())
        for holding in found:
            self._rebuild(holding)
        return found

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
            fee=self.engine.amount(fill.commission_atoms),
            fee_asset=fill.commission_asset,
            is_maker=fill.is_maker,
            at=moment(fill.time_ms),
        )

    def _rebuild(self, holding: Holding) -> None:
        position, instrument = holding.position, self.instruments[holding.position.symbol]
        holding.disturb()
        was = position.status
        if not holding.fills:
            holding.position = apply_fills(position, (), list(holding.orders.values()), instrument)
            return
        holding.totals = totals = total(holding.fills, position.side, instrument)
        entering, leaving = holding.working()
        holding.position = after_totals(position, totals, entering, leaving, None, instrument)
        holding.cash_quote = totals.cash_quote
        ended = not holding.is_live and was is not holding.position.status
        if ended and not holding.position.exit_reason:
            fills = sorted(holding.fills, key=in_time)
            holding.position = changed(holding.position, exit_reason=closing_reason(fills, holding.orders.values()))
