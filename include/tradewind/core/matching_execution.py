"""What happens to an order in the book: it takes, rests, triggers, fills, expires, and pulls its list along."""

from __future__ import annotations

from tradewind.core.matching_book import best_ask, best_bid, walk_book
from tradewind.core.matching_conditions import ExpiryReason, why_unfilled
from tradewind.core.matching_ledger import discounted_fee
from tradewind.core.matching_lists import NewOrderList, check_leg_relation
from tradewind.core.matching_prevention import NO_PREVENTION, own_order_ahead, prevented_lots, prevention_mode
from tradewind.core.matching_state import EngineState
from tradewind.core.matching_triggers import start_trailing
from tradewind.core.matching_types import (
    NO_LIST,
    Fill,
    ListKind,
    NewOrder,
    Order,
    OrderKind,
    OrderList,
    OrderSide,
    OrderStatus,
    PreventedMatch,
    Refusal,
    RejectReason,
    TimeInForce,
)


class Execution(EngineState):
    """The life of orders and lists after they were admitted."""

    def _check_working(self, account_id: str, new: NewOrder, last: int) -> None:
        """An order about to work: it must not trigger or match when it may not, and must be paid for."""
        rules = self.rules[new.symbol]
        if new.kind.is_contingent and new.stop_ticks and not new.trailing_bps:
            above = (new.side is OrderSide.BUY) == new.kind.is_stop
            if (new.stop_ticks <= last) if above else (new.stop_ticks >= last):
                raise Refusal(RejectReason.WOULD_TRIGGER)
        if new.kind is OrderKind.LIMIT_MAKER and self._crosses(new.side, new.price_ticks, last, new.symbol):
            raise Refusal(RejectReason.WOULD_TAKE)
        if new.kind is OrderKind.MARKET:
            fills = self._market_fills(account_id, new, last)
            if not fills and (new.quote_atoms or not self.conditions.leaves_takers_unfilled(new.symbol)):
                raise Refusal(RejectReason.NO_LIQUIDITY)
            lots = sum(f[1] for f in fills) if new.quote_atoms else new.lots
            cost = sum(p * n for p, n in fills) * rules.quote_atoms_per_ticklot
        else:
            lots, price = new.lots, new.price_ticks or new.stop_ticks or last
            cost = price * lots * rules.quote_atoms_per_ticklot
            if cost == 0 and lots:
                raise Refusal(RejectReason.ZERO_NOTIONAL)
        if new.side is OrderSide.BUY:
            self.book.require_free(account_id, rules.quote, cost)
        else:
            self.book.require_free(account_id, rules.base, lots * rules.base_atoms_per_lot)

    def _crosses(self, side: OrderSide, price_ticks: int, last: int, symbol: str = "") -> bool:
        settings = self.settings_of(symbol)
        if side is OrderSide.BUY:
            return price_ticks >= best_ask(last, settings)
        return price_ticks <= best_bid(last, settings)

    def _market_fills(self, account_id: str, new: NewOrder, last: int) -> list[tuple[int, int]]:
        """What a market order gets now, by quantity or by the money it may spend (or wants to receive)."""
        quote = self.quotes[new.symbol]
        everything = quote.level_lots * self.settings.levels
        offered = self._offered(account_id, new.symbol, new.side, new.lots or everything, 0, last)
        offered = self.conditions.within_range(new.symbol, quote.average_ticks, offered)
        if not new.quote_atoms:
            return offered
        per_ticklot = self.rules[new.symbol].quote_atoms_per_ticklot
        fills, money = [], new.quote_atoms
        for price, lots in offered:
            affordable = min(lots, money // (price * per_ticklot))
            if affordable:
                fills.append((price, affordable))
                money -= affordable * price * per_ticklot
            if affordable < lots:
                break
        return fills

    def _offered(
        self, account_id: str, symbol: str, side: OrderSide, wanted_lots: int, limit_ticks: int, last: int
    ) -> list[tuple[int, int]]:
        """What the book has for a taker now: (price in ticks, lots), best first. A limit of 0 means any price."""
        if side in self.conditions.dry.get(symbol, ()):
            return []
        taken = self._taken.get((account_id, symbol, side), 0)
        level_lots = self.quotes[symbol].level_lots
        return walk_book(last, side, wanted_lots, limit_ticks, level_lots, taken, self.settings_of(symbol))

    def _admit(self, account_id: str, new: NewOrder, status: OrderStatus, now_ms: int, list_id: int = NO_LIST) -> Order:
        order = Order(
            self._next_order_id, account_id, new.symbol, new.side, new.kind, new.client_id, new.lots, new.price_ticks,
            new.stop_ticks, new.trailing_bps, new.quote_atoms, new.iceberg_lots, new.time_in_force, new.tags, status,
            now_ms, now_ms, list_id,
        )  # fmt: skip
        self._next_order_id += 1
        self.orders[order.order_id] = order
        self._open.setdefault(order.symbol, {}).setdefault(account_id, {})[order.order_id] = order
        self._by_client_id[(account_id, order.client_id)] = order.order_id
        self._touch(order, now_ms)
        return order

    def _start_working(self, order: Order, last: int, now_ms: int, take_cap_lots: int | None = None) -> None:
        """The order enters the book: it waits for its trigger, or takes what it may and rests with the remainder."""
        if order.kind.is_contingent:
            if order.trailing_bps and not order.stop_ticks:
                order.reserve_ticks = last
                start_trailing(order, last, now_ms)
            self._relock(order)
            self._touch(order, now_ms)
            return
        order.working_ms = now_ms
        if order.kind is OrderKind.MARKET and order.quote_atoms:
            self._take_quote_order(order, last, now_ms)
            return
        self._relock(order)
        self._take(order, last, now_ms, take_cap_lots)

    def _trigger(self, order: Order, last: int, now_ms: int) -> None:
        order.triggered = True
        order.working_ms = now_ms
        self._touch(order, now_ms)
        self._expire_siblings(order, now_ms)
        self._take(order, last, now_ms, None)

    def _take(self, order: Order, last: int, now_ms: int, cap_lots: int | None) -> None:
        """Match against the book; what is left rests (GTC with a price) or expires.

        It never meets an order of its own account that it may not meet, nor a price that the execution rules forbid:
        what it would have traded there expires.
        """
        has_price = order.kind.has_price
        limit = order.price_ticks if has_price else 0
        wanted = self._fillable_lots(order)
        if cap_lots is not None:
            wanted = min(wanted, cap_lots)
        offered = (
            []
            if has_price and not self._crosses(order.side, limit, last, order.symbol)
            else self._offered(order.account_id, order.symbol, order.side, wanted, limit, last)
        )
        fills = self.conditions.within_range(order.symbol, self.quotes[order.symbol].average_ticks, offered)
        is_beyond = len(fills) < len(offered)
        if order.side is OrderSide.BUY and not has_price:
            fills = self._affordable(order, fills)
        own = None
        if cap_lots is None and self._prevention_of(order) != NO_PREVENTION:
            resting = self._open.get(order.symbol, {}).get(order.account_id, {}).values()
            own = own_order_ahead(order, resting, limit, fills)
        if own is not None:
            fills = [(price, lots) for price, lots in fills if (price - own.price_ticks) * order.side <= 0]
        fills_whole = sum(lots for _, lots in fills) == order.remaining_lots
        if order.time_in_force is not TimeInForce.FOK or fills_whole or not has_price:
            key = (order.account_id, order.symbol, order.side)
            for price, lots in fills:
                self._taken[key] = self._taken.get(key, 0) + lots
                self._fill(order, price, lots, now_ms, maker=False)
        if own is not None and order.is_open:
            self._prevent(order, own, now_ms)
            if order.is_open:
                self._take(order, last, now_ms, None)
        elif order.is_open and (is_beyond or not has_price or order.time_in_force is not TimeInForce.GTC):
            self._close(order, OrderStatus.EXPIRED, now_ms, why_unfilled(order, is_beyond=is_beyond).value)

    def _prevention_of(self, order: Order) -> str:
        """The self-trade prevention mode of a taker."""
        return prevention_mode(order)

    def _prevent(self, taker: Order, maker: Order, now_ms: int) -> None:
        """Keep two orders of one account from trading: the taker's mode says which of them expires."""
        mode, match_id = self._prevention_of(taker), self.next_match_id
        self.next_match_id += 1
        shares = prevented_lots(mode, taker, maker)
        self._changes.prevented.append(
            PreventedMatch(
                match_id, taker.account_id, taker.symbol, taker.order_id, maker.order_id, mode, maker.price_ticks,
                *shares, now_ms,
            )
        )  # fmt: skip
        for order, lots in zip((taker, maker), shares, strict=True):
            if not lots:
                continue
            order.prevented_lots += lots
            order.prevented_match_id = match_id
            if order.remaining_lots == 0:
                self._expire_siblings(order, now_ms)
                self._close(order, OrderStatus.EXPIRED_IN_MATCH, now_ms)
            else:
                self._relock(order)
                self._touch(order, now_ms)

    def _affordable(self, order: Order, fills: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """A triggered market buy may cost more than was reserved at its stop price: it gets what the money buys."""
        rules = self.rules[order.symbol]
        balance = self.book.accounts[order.account_id].balance(rules.quote)
        money = balance.free + self.book.locked_by(self._lock_key(order))
        kept = []
        for price, lots in fills:
            lots = min(lots, money // (price * rules.quote_atoms_per_ticklot))
            if lots == 0:
                break
            money -= lots * price * rules.quote_atoms_per_ticklot
            kept.append((price, lots))
        return kept

    def _take_quote_order(self, order: Order, last: int, now_ms: int) -> None:
        rules = self.rules[order.symbol]
        new = NewOrder(order.symbol, order.side, order.kind, order.client_id, quote_atoms=order.quote_atoms)
        fills = self._market_fills(order.account_id, new, last)
        order.lots = sum(lots for _, lots in fills)
        key = (order.account_id, order.symbol, order.side)
        left = order.quote_atoms - sum(p * n for p, n in fills) * rules.quote_atoms_per_ticklot
        ran_dry = left >= (fills[-1][0] + 1) * rules.quote_atoms_per_ticklot
        for price, lots in fills:
            self._taken[key] = self._taken.get(key, 0) + lots
            self._fill(order, price, lots, now_ms, maker=False)
        if ran_dry:
            order.status = OrderStatus.EXPIRED
            order.reject_reason = ExpiryReason.INSUFFICIENT_LIQUIDITY.value
            self._touch(order, now_ms)

    def _make(self, order: Order, now_ms: int) -> bool:
        """Fill a resting limit order at its price, as far as the bar's volume allows. False: nothing is left of it."""
        allowance = self.quotes[order.symbol].level_lots - self._made.get(order.order_id, 0)
        lots = min(self._fillable_lots(order), allowance)
        if lots <= 0:
            return False
        self._made[order.order_id] = self._made.get(order.order_id, 0) + lots
        self._fill(order, order.price_ticks, lots, now_ms, maker=True)
        return True

    def _fill(self, order: Order, price_ticks: int, lots: int, now_ms: int, *, maker: bool) -> None:
        self._expire_siblings(order, now_ms)
        rules = self.rules[order.symbol]
        quote_atoms = price_ticks * lots * rules.quote_atoms_per_ticklot
        base_atoms = lots * rules.base_atoms_per_lot
        free_base = self.book.accounts[order.account_id].balance(rules.base).free
        commission, asset = self._book_trade(order, lots, quote_atoms, now_ms, maker=maker)
        order.filled_lots += lots
        order.filled_quote_atoms += quote_atoms
        order.status = OrderStatus.FILLED if order.remaining_lots == 0 else OrderStatus.PARTIALLY_FILLED
        trade_id = self._next_trade_id.get(order.symbol, 1)
        self._next_trade_id[order.symbol] = trade_id + 1
        self._changes.fills.append(
            Fill(
                trade_id, order.order_id, order.list_id, order.account_id, order.symbol, order.side, price_ticks, lots,
                quote_atoms, commission, asset, maker, now_ms,
            )
        )  # fmt: skip
        self._relock(order)
        self._touch(order, now_ms)
        if order.list_id == NO_LIST:
            return
        order_list = self.lists[order.list_id]
        if order_list.kind.has_working_leg and order.order_id == order_list.order_ids[0]:
            if order_list.kind.is_sized_from_proceeds:
                # The commission is paid from what was free before, when that suffices: the legs then sell all of it.
                # Not so where the received asset is the one that fees are paid in.
                fee_asset = self.book.accounts[order.account_id].fee_asset
                is_spared = asset != rules.base or (free_base >= commission and asset != fee_asset)
                order_list.proceeds_atoms += base_atoms if is_spared else base_atoms - commission
                self._lock_proceeds(order_list)
            if order.status is OrderStatus.FILLED:
                self._activate(order_list, now_ms)
        else:
            self._settle_list(order_list, now_ms)

    def _fillable_lots(self, order: Order) -> int:
        """How much of the order may fill now."""
        return order.remaining_lots

    def _book_trade(self, order: Order, lots: int, quote_atoms: int, now_ms: int, *, maker: bool) -> tuple[int, str]:
        """Move the money of one trade; returns (commission atoms, its asset)."""
        rules = self.rules[order.symbol]
        base_atoms = lots * rules.base_atoms_per_lot
        account = self.book.accounts[order.account_id]
        discounted = None
        if account.fee_asset:
            pair = self.rules.get(account.fee_asset + rules.quote)
            ticks = self._price_of(pair.symbol, now_ms) if pair is not None else None
            discounted = discounted_fee(account, rules, order.side, base_atoms, quote_atoms, pair, ticks, maker=maker)
        return self.book.trade(
            order.account_id, rules, order.side, base_atoms, quote_atoms, maker=maker, discounted=discounted
        )

    def _close(self, order: Order, status: OrderStatus, now_ms: int, reason: str = "") -> None:
        if not order.is_open:
            return
        order.status = status
        order.reject_reason = reason
        self._relock(order)
        self._touch(order, now_ms)
        if order.list_id != NO_LIST:
            order_list = self.lists[order.list_id]
            if order_list.kind.has_working_leg and order.order_id == order_list.order_ids[0]:
                # Without a whole fill of the working leg the others never work.
                is_cancelled = status is OrderStatus.CANCELED
                leg_status = OrderStatus.CANCELED if is_cancelled else OrderStatus.EXPIRED
                why = "" if is_cancelled else ExpiryReason.OTO_PHASE_ONE_EXPIRED.value
                for leg_id in order_list.pending_ids:
                    self._close(self.orders[leg_id], leg_status, now_ms, why)
            self._settle_list(order_list, now_ms)

    def _activate(self, order_list: OrderList, now_ms: int) -> None:
        """The working order is wholly filled: place the pending legs, or reject them all when they cannot stand."""
        rules = self.rules[order_list.symbol]
        quote = self.quotes[order_list.symbol]
        account_id = order_list.account_id
        legs = [self.orders[i] for i in order_list.pending_ids]
        if order_list.kind.is_sized_from_proceeds:
            # What the filters allow of them, also of what will be sold at any price.
            at_any_price = any(not leg.kind.has_price for leg in legs)
            most = min(rules.max_lots, rules.max_market_lots) if at_any_price else rules.max_lots
            lots = min(order_list.proceeds_atoms // rules.base_atoms_per_lot, most)
            lots -= lots % self.conditions.grid(order_list.symbol).lots
            for leg in legs:
                leg.lots = lots
        order_list.proceeds_atoms = 0
        order_list.is_activated = True
        order_list.updated_ms = now_ms
        self._changes.lists[order_list.list_id] = order_list
        self.book.release(("list", order_list.list_id))
        requests = tuple(
            NewOrder(
                leg.symbol, leg.side, leg.kind, leg.client_id, leg.lots, leg.price_ticks, leg.stop_ticks,
                leg.trailing_bps, 0, leg.iceberg_lots, leg.time_in_force, leg.tags,
            )
            for leg in legs
        )  # fmt: skip
        try:
            if not all(r.lots for r in requests):
                raise Refusal(RejectReason.FILTER_LOT_SIZE)
            check_leg_relation(NewOrderList(ListKind.OCO, order_list.symbol, "", requests), quote.last_ticks)
            for request in requests:
                self.check_rules(request, quote.average_ticks)
                self._check_working(account_id, request, quote.last_ticks)
        except Refusal as refusal:
            for leg in legs:
                self._close(leg, OrderStatus.REJECTED, now_ms, refusal.reason.value)
            return
        for leg in legs:
            if ("fault", "reject") in leg.tags:
                self._close(leg, OrderStatus.REJECTED, now_ms, "fault injected")
            elif leg.is_open:
                leg.status = OrderStatus.NEW
                self._touch(leg, now_ms)
                self._start_working(leg, quote.last_ticks, now_ms)

    def _expire_siblings(self, order: Order, now_ms: int) -> None:
        """One leg of an OCO pair has triggered or traded: the other expires."""
        if order.list_id == NO_LIST:
            return
        pair = self.lists[order.list_id].pending_ids
        if order.order_id not in pair:
            return
        for sibling_id in pair:
            if sibling_id != order.order_id:
                self._close(self.orders[sibling_id], OrderStatus.EXPIRED, now_ms, ExpiryReason.OCO_TRIGGER.value)

    def _settle_list(self, order_list: OrderList, now_ms: int) -> None:
        if order_list.is_done or any(self.orders[i].is_open for i in order_list.order_ids):
            return
        order_list.is_done = True
        order_list.proceeds_atoms = 0
        order_list.updated_ms = now_ms
        self.book.release(("list", order_list.list_id))
        self._changes.lists[order_list.list_id] = order_list
