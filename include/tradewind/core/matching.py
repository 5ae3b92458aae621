"""How orders meet prices: the matching engine that the paper exchange and the backtest share.

The engine holds accounts, orders and lists; commands (`place`, `place_list`, `cancel`, `cancel_list`) and prices
(`on_price`, `on_bar`) change them; `drain` hands out what changed since the last call. It has no clock, no randomness
and no I/O: the same sequence of calls gives the same state, in a server and in a test alike.

Each account meets the market alone: there is nobody else in the book (see `matching_book`). Inside a bar the price
walks a declared path, open → first extreme → second extreme → close, and what it meets first happens first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tradewind.core.matching_book import (
    BarPath,
    BarTicks,
    MatchingSettings,
    best_ask,
    best_bid,
    level_lots,
    limit_touch_ticks,
    walk_book,
)
from tradewind.core.matching_ledger import AccountBook, LockKey
from tradewind.core.matching_lists import NewOrderList, check_composition, check_leg_relation
from tradewind.core.matching_rules import SymbolRules, check_filters
from tradewind.core.matching_triggers import advance_trailing, start_trailing, trigger_ticks, waits_for_fall
from tradewind.core.matching_types import (
    NO_LIST,
    Account,
    Fill,
    ListKind,
    NewOrder,
    Order,
    OrderKind,
    OrderList,
    OrderSide,
    OrderStatus,
    Refusal,
    RejectReason,
    TimeInForce,
)

_NEVER_LOW = -1
_NEVER_HIGH = 1 << 62


@dataclass(slots=True)
class Quote:
    """The market as the engine sees it. `window` names the bar whose volume bounds the liquidity."""

    last_ticks: int
    average_ticks: int
    level_lots: int
    window: int
    time_ms: int


@dataclass(slots=True)
class Changes:
    """What changed since the last drain: the orders and lists as they now are, the trades, the balances touched."""

    orders: dict[int, Order] = field(default_factory=dict)
    lists: dict[int, OrderList] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    balances: set[tuple[str, str]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.orders or self.lists or self.fills or self.balances)


class Engine:
    """Matching for any number of accounts and symbols.

    Every command raises Refusal before it has changed anything, or succeeds wholly.
    """

    def __init__(self, rules: Iterable[SymbolRules], settings: MatchingSettings | None = None) -> None:
        self.rules: dict[str, SymbolRules] = {r.symbol: r for r in rules}
        self.settings = settings or MatchingSettings()
        self.book = AccountBook()
        self.quotes: dict[str, Quote] = {}
        self.halted: set[str] = set()
        self.orders: dict[int, Order] = {}
        self.lists: dict[int, OrderList] = {}
        self._open: dict[str, dict[str, dict[int, Order]]] = {}  # symbol -> account -> order id -> order
        self._by_client_id: dict[tuple[str, str], int] = {}
        self._list_by_client_id: dict[tuple[str, str], int] = {}
        self._taken: dict[tuple[str, str, OrderSide], int] = {}
        self._made: dict[int, int] = {}
        self._bounds: dict[tuple[str, str], tuple[int, int]] = {}
        self._changes = Changes()
        self._next_order_id = 1
        self._next_list_id = 1
        self._next_trade_id: dict[str, int] = {}

    # ------------------------------------------------------------------------------------------------- accounts, views
    def restore(self, orders: Iterable[Order], lists: Iterable[OrderList], trade_ids: Mapping[str, int]) -> None:
        """Take over orders and lists saved earlier; accounts must be open already. `trade_ids`: the last used by symbol."""
        for order in sorted(orders, key=lambda o: o.order_id):
            self.orders[order.order_id] = order
            self._by_client_id[(order.account_id, order.client_id)] = order.order_id
            self._next_order_id = max(self._next_order_id, order.order_id + 1)
            if order.is_open:
                self._open.setdefault(order.symbol, {}).setdefault(order.account_id, {})[order.order_id] = order
        for order_list in sorted(lists, key=lambda x: x.list_id):
            self.lists[order_list.list_id] = order_list
            self._list_by_client_id[(order_list.account_id, order_list.client_id)] = order_list.list_id
            self._next_list_id = max(self._next_list_id, order_list.list_id + 1)
            if order_list.proceeds_atoms:
                self._lock_proceeds(order_list)
        for order in self.orders.values():
            if order.is_open:
                self._relock(order)
        self._next_trade_id = {symbol: last + 1 for symbol, last in trade_ids.items()}
        self.drain()

    def open_account(
        self, account_id: str, balances: Mapping[str, int], *, maker_fee_ppm: int = 1000, taker_fee_ppm: int = 1000
    ) -> Account:
        """Open an account with balances in atoms. Raises ValueError if it exists."""
        return self.book.open(account_id, balances, maker_fee_ppm, taker_fee_ppm)

    def open_orders(self, account_id: str, symbol: str | None = None) -> list[Order]:
        """Open orders (pending legs among them), oldest first."""
        symbols = [symbol] if symbol else list(self._open)
        found = [o for s in symbols for o in self._open.get(s, {}).get(account_id, {}).values()]
        return sorted(found, key=lambda o: o.order_id)

    def find_order(self, account_id: str, symbol: str, order_id: int | None, client_id: str | None) -> Order:
        """The order by id, else the newest with that client id. Raises Refusal(UNKNOWN_ORDER)."""
        if order_id is None and client_id is not None:
            order_id = self._by_client_id.get((account_id, client_id))
        order = self.orders.get(order_id) if order_id is not None else None
        if order is None or order.account_id != account_id or order.symbol != symbol:
            raise Refusal(RejectReason.UNKNOWN_ORDER)
        if client_id is not None and order.client_id != client_id:
            raise Refusal(RejectReason.UNKNOWN_ORDER)
        return order

    def find_list(self, account_id: str, list_id: int | None, client_id: str | None) -> OrderList:
        """The list by id, else the newest with that client id. Raises Refusal(UNKNOWN_ORDER)."""
        if list_id is None and client_id is not None:
            list_id = self._list_by_client_id.get((account_id, client_id))
        found = self.lists.get(list_id) if list_id is not None else None
        if found is None or found.account_id != account_id or (client_id is not None and found.client_id != client_id):
            raise Refusal(RejectReason.UNKNOWN_ORDER)
        return found

    def drain(self) -> Changes:
        """What changed since the last call."""
        changes = self._changes
        changes.balances = self.book.changed
        self._changes = Changes()
        self.book.changed = set()
        return changes

    # ---------------------------------------------------------------------------------------------------------- prices
    def symbols_with_orders(self) -> list[str]:
        return [s for s, accounts in self._open.items() if any(accounts.values())]

    def touch_bounds(self, symbol: str) -> tuple[int, int]:
        """(low, high): a bar with its low > low and its high < high cannot change any order of the symbol.

        This is the cheap test that lets a long history be skipped bar by bar, or vectorised, without a call per bar.
        """
        low, high = _NEVER_LOW, _NEVER_HIGH
        for account_id in self._open.get(symbol, {}):
            account_low, account_high = self._account_bounds(account_id, symbol)
            low, high = max(low, account_low), min(high, account_high)
        return low, high

    def on_price(
        self, symbol: str, last_ticks: int, volume_lots: int, window: int, time_ms: int, average_ticks: int = 0
    ) -> None:
        """The market trades at `last_ticks`. `window` names the bar that bounds liquidity, `volume_lots` its volume."""
        quote = self._enter_window(symbol, last_ticks, volume_lots, window, time_ms, average_ticks)
        quote.last_ticks = last_ticks
        if symbol in self.halted:
            return
        for account_id in sorted(self._open.get(symbol, {})):
            low, high = self._account_bounds(account_id, symbol)
            if last_ticks <= low or last_ticks >= high:
                self._sweep(account_id, symbol, last_ticks, last_ticks, time_ms)

    def on_bar(
        self, symbol: str, bar: BarTicks, window: int, time_ms: int, average_ticks: int = 0, path: BarPath | None = None
    ) -> None:
        """The market trades through a bar. Events inside it carry `time_ms`; afterwards the last price is its close."""
        quote = self._enter_window(symbol, bar.open, bar.volume_lots, window, time_ms, average_ticks)
        if symbol not in self.halted:
            for account_id in sorted(self._open.get(symbol, {})):
                low, high = self._account_bounds(account_id, symbol)
                if bar.low <= low or bar.high >= high:
                    points = self._path(account_id, symbol, bar, path or self.settings.path)
                    for start, stop in zip(points, points[1:], strict=False):
                        self._sweep(account_id, symbol, start, stop, time_ms)
        quote.last_ticks = bar.close

    def _enter_window(
        self, symbol: str, last_ticks: int, volume_lots: int, window: int, time_ms: int, average_ticks: int
    ) -> Quote:
        quote = self.quotes.get(symbol)
        if quote is None:
            quote = self.quotes[symbol] = Quote(last_ticks, last_ticks, 1, window, time_ms)
        if quote.window != window:
            self._taken = {k: v for k, v in self._taken.items() if k[1] != symbol}
            for orders in self._open.get(symbol, {}).values():
                for order_id in orders:
                    self._made.pop(order_id, None)
        quote.window = window
        quote.level_lots = level_lots(volume_lots, self.settings)
        quote.average_ticks = average_ticks or last_ticks
        quote.time_ms = time_ms
        return quote

    def _path(self, account_id: str, symbol: str, bar: BarTicks, path: BarPath) -> list[int]:
        low_first = path is BarPath.LOW_FIRST
        if path is BarPath.ADVERSE_FIRST:
            # What the account holds or is about to hold decides: a resting exit names the position, else the entry does.
            orders = self._open[symbol][account_id].values()
            exits = [o for o in orders if o.kind.is_stop] or [o for o in orders if o.kind.is_contingent]
            if exits:
                low_first = exits[0].side is OrderSide.SELL
            else:
                low_first = next(iter(orders)).side is OrderSide.BUY
        extremes = [bar.low, bar.high] if low_first else [bar.high, bar.low]
        return [bar.open, bar.open, *extremes, bar.close]

    def _account_bounds(self, account_id: str, symbol: str) -> tuple[int, int]:
        bounds = self._bounds.get((account_id, symbol))
        if bounds is None:
            low, high = _NEVER_LOW, _NEVER_HIGH
            for order in self._open.get(symbol, {}).get(account_id, {}).values():
                if order.status is OrderStatus.PENDING_NEW:
                    continue
                if order.awaits_trigger:
                    if order.trailing_bps:
                        low, high = _NEVER_HIGH, _NEVER_LOW  # a trailing order follows every move
                        break
                    level, falling = order.stop_ticks, waits_for_fall(order)
                else:
                    level = limit_touch_ticks(order.price_ticks, order.side, self.settings)
                    falling = order.side is OrderSide.BUY
                low, high = (max(low, level), high) if falling else (low, min(high, level))
            bounds = self._bounds[(account_id, symbol)] = (low, high)
        return bounds

    def _sweep(self, account_id: str, symbol: str, start: int, stop: int, now_ms: int) -> None:
        """Move the price from `start` to `stop`; each order met on the way acts at the price where it is met.

        What already lies beyond `start` (the price gapped over it) acts at `start`. Equal prices: stops before targets.
        """
        position = start
        exhausted: set[int] = set()
        while True:
            best: tuple[int, int, int] | None = None
            chosen: Order | None = None
            for order in self._open.get(symbol, {}).get(account_id, {}).values():
                if order.status is OrderStatus.PENDING_NEW or order.order_id in exhausted:
                    continue
                level = self._met_at(order, position, stop)
                if level is None:
                    continue
                rank = (abs(level - position), 0 if order.awaits_trigger and order.kind.is_stop else 1, order.order_id)
                if best is None or rank < best:
                    best, chosen, met = rank, order, level
            if chosen is None:
                break
            position = self.quotes[symbol].last_ticks = met
            if chosen.awaits_trigger:
                if chosen.trailing_bps and start_trailing(chosen, position, now_ms):
                    self._touch(chosen, now_ms)
                    continue
                self._trigger(chosen, position, now_ms)
            elif not self._make(chosen, now_ms):
                exhausted.add(chosen.order_id)
        for order in self._open.get(symbol, {}).get(account_id, {}).values():
            if order.trailing_bps and order.awaits_trigger and advance_trailing(order, stop):
                self._touch(order, now_ms)

    def _met_at(self, order: Order, position: int, stop: int) -> int | None:
        """Where on the way from `position` to `stop` the order acts, or None."""
        if order.awaits_trigger:
            level, falling = trigger_ticks(order, position)
        else:
            level, falling = (
                limit_touch_ticks(order.price_ticks, order.side, self.settings),
                order.side is OrderSide.BUY,
            )
        if falling:
            return min(position, level) if min(position, stop) <= level else None
        return max(position, level) if max(position, stop) >= level else None

    # ----------------------------------------------------------------------------------------------------- single order
    def place(self, account_id: str, new: NewOrder, now_ms: int, *, take_cap_lots: int | None = None) -> Order:
        """Place one order; it may fill at once. `take_cap_lots` bounds that first fill (for fault injection).

        Raises
        ------
        Refusal
            If the symbol is unknown or halted, a filter fails, the client id is in use, the order would trigger or (for
            LIMIT_MAKER) match at once, or funds do not suffice.
        """
        quote = self._quote(new.symbol)
        self.check(account_id, new)
        order = self._admit(account_id, new, OrderStatus.NEW, now_ms)
        self._start_working(order, quote.last_ticks, now_ms, take_cap_lots)
        return order

    def check(self, account_id: str, new: NewOrder) -> None:
        """Raise Refusal if `place` would; changes nothing."""
        quote = self._quote(new.symbol)
        rules = self.rules[new.symbol]
        check_composition(new)
        check_filters(rules, new, quote.average_ticks)
        self._check_counts(account_id, (new,), lists=0)
        self._check_client_ids(account_id, [new.client_id])
        self._check_working(account_id, new, quote.last_ticks)

    def cancel(self, account_id: str, order_id: int, now_ms: int) -> Order:
        """Cancel an open order, and with it the whole list it belongs to. Raises Refusal(UNKNOWN_ORDER)."""
        order = self.orders.get(order_id)
        if order is None or order.account_id != account_id or not order.is_open:
            raise Refusal(RejectReason.UNKNOWN_ORDER)
        if order.list_id != NO_LIST:
            self.cancel_list(account_id, order.list_id, now_ms)
        else:
            self._close(order, OrderStatus.CANCELED, now_ms)
        return order

    def _check_working(self, account_id: str, new: NewOrder, last: int) -> None:
        """An order about to work: it must not trigger or match when it may not, and must be paid for."""
        rules = self.rules[new.symbol]
        if new.kind.is_contingent and new.stop_ticks and not new.trailing_bps:
            above = (new.side is OrderSide.BUY) == new.kind.is_stop
            if (new.stop_ticks <= last) if above else (new.stop_ticks >= last):
                raise Refusal(RejectReason.WOULD_TRIGGER)
        if new.kind is OrderKind.LIMIT_MAKER and self._crosses(new.side, new.price_ticks, last):
            raise Refusal(RejectReason.WOULD_TAKE)
        if new.kind is OrderKind.MARKET:
            fills = self._market_fills(account_id, new, last)
            if not fills:
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

    def _crosses(self, side: OrderSide, price_ticks: int, last: int) -> bool:
        if side is OrderSide.BUY:
            return price_ticks >= best_ask(last, self.settings)
        return price_ticks <= best_bid(last, self.settings)

    def _market_fills(self, account_id: str, new: NewOrder, last: int) -> list[tuple[int, int]]:
        """What a market order gets now, by quantity or by the money it may spend (or wants to receive)."""
        quote = self.quotes[new.symbol]
        taken = self._taken.get((account_id, new.symbol, new.side), 0)
        if not new.quote_atoms:
            return walk_book(last, new.side, new.lots, 0, quote.level_lots, taken, self.settings)
        per_ticklot = self.rules[new.symbol].quote_atoms_per_ticklot
        everything = quote.level_lots * self.settings.levels
        fills, money = [], new.quote_atoms
        for price, lots in walk_book(last, new.side, everything, 0, quote.level_lots, taken, self.settings):
            affordable = min(lots, money // (price * per_ticklot))
            if affordable:
                fills.append((price, affordable))
                money -= affordable * price * per_ticklot
            if affordable < lots:
                break
        return fills

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
        """Match against the book; what is left rests (GTC with a price) or expires."""
        has_price = order.kind.has_price
        limit = order.price_ticks if has_price else 0
        wanted = order.remaining_lots if cap_lots is None else min(order.remaining_lots, cap_lots)
        key = (order.account_id, order.symbol, order.side)
        fills = (
            []
            if has_price and not self._crosses(order.side, limit, last)
            else walk_book(
                last, order.side, wanted, limit, self.quotes[order.symbol].level_lots, self._taken.get(key, 0),
                self.settings,
            )
        )  # fmt: skip
        if order.side is OrderSide.BUY and not has_price:
            fills = self._affordable(order, fills)
        fills_whole = sum(lots for _, lots in fills) == order.remaining_lots
        if order.time_in_force is not TimeInForce.FOK or fills_whole or not has_price:
            for price, lots in fills:
                self._taken[key] = self._taken.get(key, 0) + lots
                self._fill(order, price, lots, now_ms, maker=False)
        if order.is_open and (not has_price or order.time_in_force is not TimeInForce.GTC):
            self._close(order, OrderStatus.EXPIRED, now_ms)

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
            self._touch(order, now_ms)

    def _make(self, order: Order, now_ms: int) -> bool:
        """Fill a resting limit order at its price, as far as the bar's volume allows. False: nothing left in this bar."""
        allowance = self.quotes[order.symbol].level_lots - self._made.get(order.order_id, 0)
        lots = min(order.remaining_lots, allowance)
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
        commission, asset = self.book.trade(order.account_id, rules, order.side, base_atoms, quote_atoms, maker=maker)
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
                order_list.proceeds_atoms += base_atoms if free_base >= commission else base_atoms - commission
                self._lock_proceeds(order_list)
            if order.status is OrderStatus.FILLED:
                self._activate(order_list, now_ms)
        else:
            self._settle_list(order_list, now_ms)

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
                for leg_id in order_list.pending_ids:  # without a whole fill of the working leg they never work
                    self._close(self.orders[leg_id], status, now_ms)
            self._settle_list(order_list, now_ms)

    # ------------------------------------------------------------------------------------------------------------ lists
    def place_list(
        self, account_id: str, new: NewOrderList, now_ms: int, *, take_cap_lots: int | None = None
    ) -> OrderList:
        """Place a list of dependent orders. Raises Refusal as `place` does; then nothing was placed."""
        quote = self._quote(new.symbol)
        self.check_list(account_id, new)
        list_id = self._next_list_id
        self._next_list_id += 1
        status = OrderStatus.PENDING_NEW if new.kind.has_working_leg else OrderStatus.NEW
        orders = [
            self._admit(account_id, leg, OrderStatus.NEW if i == 0 else status, now_ms, list_id)
            for i, leg in enumerate(new.orders)
        ]
        order_list = OrderList(
            list_id, account_id, new.symbol, new.kind, new.client_id, tuple(o.order_id for o in orders), now_ms, now_ms
        )
        self.lists[list_id] = order_list
        self._list_by_client_id[(account_id, new.client_id)] = list_id
        self._changes.lists[list_id] = order_list
        if new.kind.has_working_leg:
            self._start_working(orders[0], quote.last_ticks, now_ms, take_cap_lots)
        else:
            order_list.is_activated = True
            for order in orders:
                self._start_working(order, quote.last_ticks, now_ms)
        return order_list

    def check_list(self, account_id: str, new: NewOrderList) -> None:
        """Raise Refusal if `place_list` would; changes nothing."""
        quote = self._quote(new.symbol)
        rules = self.rules[new.symbol]
        for leg in new.orders:
            check_composition(leg)
            check_filters(rules, leg, quote.average_ticks)
        self._check_counts(account_id, new.orders, lists=1)
        ids = [leg.client_id for leg in new.orders]
        if len(set(ids)) != len(ids):
            raise Refusal(RejectReason.DUPLICATE_CLIENT_ID)
        self._check_client_ids(account_id, ids)
        same = self._list_by_client_id.get((account_id, new.client_id))
        if same is not None and not self.lists[same].is_done:
            raise Refusal(RejectReason.DUPLICATE_CLIENT_ID)
        check_leg_relation(new, quote.last_ticks)
        if new.kind.has_working_leg:
            self._check_working(account_id, new.orders[0], quote.last_ticks)
            return
        for leg in new.orders:
            self._check_working(account_id, leg, quote.last_ticks)

    def cancel_list(self, account_id: str, list_id: int, now_ms: int) -> OrderList:
        """Cancel what is still open of a list. Raises Refusal(UNKNOWN_ORDER) if it is unknown or done."""
        order_list = self.lists.get(list_id)
        if order_list is None or order_list.account_id != account_id or order_list.is_done:
            raise Refusal(RejectReason.UNKNOWN_ORDER)
        for order_id in order_list.order_ids:
            self._close(self.orders[order_id], OrderStatus.CANCELED, now_ms)
        self._settle_list(order_list, now_ms)
        return order_list

    def _activate(self, order_list: OrderList, now_ms: int) -> None:
        """The working order is wholly filled: place the pending legs, or reject them all when they cannot stand."""
        rules = self.rules[order_list.symbol]
        quote = self.quotes[order_list.symbol]
        account_id = order_list.account_id
        legs = [self.orders[i] for i in order_list.pending_ids]
        if order_list.kind.is_sized_from_proceeds:
            for leg in legs:
                leg.lots = min(order_list.proceeds_atoms // rules.base_atoms_per_lot, rules.max_lots)
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
                check_filters(rules, request, quote.average_ticks)
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
        for sibling_id in self.lists[order.list_id].pending_ids:
            if sibling_id != order.order_id and order.order_id in self.lists[order.list_id].pending_ids:
                self._close(self.orders[sibling_id], OrderStatus.EXPIRED, now_ms)

    def _settle_list(self, order_list: OrderList, now_ms: int) -> None:
        if order_list.is_done or any(self.orders[i].is_open for i in order_list.order_ids):
            return
        order_list.is_done = True
        order_list.proceeds_atoms = 0
        order_list.updated_ms = now_ms
        self.book.release(("list", order_list.list_id))
        self._changes.lists[order_list.list_id] = order_list

    # ---------------------------------------------------------------------------------------------------- reservations
    def _lock_key(self, order: Order) -> LockKey:
        if order.list_id != NO_LIST:
            order_list = self.lists.get(order.list_id)
            if order_list is not None and len(order_list.pending_ids) == 2 and order.order_id in order_list.pending_ids:
                return ("list", order.list_id)  # the two legs of a pair are paid for once
        return ("order", order.order_id)

    def _relock(self, order: Order) -> None:
        """Make the reservation what the open part of the order (or of its pair) needs."""
        rules = self.rules[order.symbol]
        key = self._lock_key(order)
        if key[0] == "order":
            orders = [order]
        else:
            orders = [self.orders[i] for i in self.lists[key[1]].pending_ids]
            if not self.lists[key[1]].is_activated:
                return
        needs = [self._need_atoms(o, rules) for o in orders if o.is_open and o.status is not OrderStatus.PENDING_NEW]
        asset = rules.quote if order.side is OrderSide.BUY else rules.base
        self.book.lock(key, order.account_id, asset, max(needs, default=0))

    def _need_atoms(self, order: Order, rules: SymbolRules) -> int:
        if order.side is OrderSide.SELL:
            return order.remaining_lots * rules.base_atoms_per_lot
        if order.kind is OrderKind.MARKET:
            return 0
        price = order.price_ticks or order.stop_ticks or order.trailing_extreme_ticks
        return order.remaining_lots * price * rules.quote_atoms_per_ticklot

    def _lock_proceeds(self, order_list: OrderList) -> None:
        rules = self.rules[order_list.symbol]
        key: LockKey = ("list", order_list.list_id)
        self.book.lock(key, order_list.account_id, rules.base, order_list.proceeds_atoms)
        self._changes.lists[order_list.list_id] = order_list

    # ---------------------------------------------------------------------------------------------------------- helpers
    def _quote(self, symbol: str) -> Quote:
        if symbol not in self.rules:
            raise Refusal(RejectReason.UNKNOWN_SYMBOL)
        quote = self.quotes.get(symbol)
        if quote is None or symbol in self.halted:
            raise Refusal(RejectReason.MARKET_CLOSED)
        return quote

    def _check_client_ids(self, account_id: str, client_ids: Iterable[str]) -> None:
        for client_id in client_ids:
            existing = self._by_client_id.get((account_id, client_id))
            if existing is not None and self.orders[existing].is_open:
                raise Refusal(RejectReason.DUPLICATE_CLIENT_ID)

    def _check_counts(self, account_id: str, new: Iterable[NewOrder], lists: int) -> None:
        new = list(new)
        rules = self.rules[new[0].symbol]
        resting = self._open.get(new[0].symbol, {}).get(account_id, {}).values()
        if len(resting) + len(new) > rules.max_orders:
            raise Refusal(RejectReason.FILTER_MAX_ORDERS)
        algos = sum(o.kind.is_contingent for o in resting) + sum(n.kind.is_contingent for n in new)
        if algos > rules.max_algo_orders and any(n.kind.is_contingent for n in new):
            raise Refusal(RejectReason.FILTER_MAX_ALGO_ORDERS)
        open_lists = {o.list_id for o in resting if o.list_id != NO_LIST}
        if lists and len(open_lists) + lists > rules.max_order_lists:
            raise Refusal(RejectReason.FILTER_MAX_ORDER_LISTS)

    def _touch(self, order: Order, now_ms: int) -> None:
        order.updated_ms = now_ms
        self._changes.orders[order.order_id] = order
        self._bounds.pop((order.account_id, order.symbol), None)
        if not order.is_open:
            self._made.pop(order.order_id, None)
            accounts = self._open.get(order.symbol, {})
            orders = accounts.get(order.account_id)
            if orders is not None:
                orders.pop(order.order_id, None)
                if not orders:
                    del accounts[order.account_id]
