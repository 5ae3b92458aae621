"""What the engine remembers: accounts, orders, lists, the market's last quote, and what each order reserves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from tradewind.core.matching_book import MatchingSettings
from tradewind.core.matching_conditions import MarketConditions
from tradewind.core.matching_ledger import AccountBook, LockKey
from tradewind.core.matching_rules import ATOM_DECIMALS, SymbolRules, amount, atoms, check_filters
from tradewind.core.matching_types import (
    NO_LIST,
    Account,
    Fill,
    NewOrder,
    Order,
    OrderKind,
    OrderList,
    OrderSide,
    OrderStatus,
    PreventedMatch,
    Refusal,
    RejectReason,
)

PriceOf = Callable[[str, int], int | None]
"""The last price of a symbol in ticks at a moment, None where there is none."""


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
    prevented: list[PreventedMatch] = field(default_factory=list)
    balances: set[tuple[str, str]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.orders or self.lists or self.fills or self.balances)


class EngineState:
    """State and look-ups. Subclasses change it; nothing outside the engine does."""

    def __init__(
        self,
        rules: Iterable[SymbolRules],
        settings: MatchingSettings | None = None,
        conditions: MarketConditions | None = None,
        price_of: PriceOf | None = None,
    ) -> None:
        """`price_of` values the asset that fees are paid in; without it the prices that the engine has seen do."""
        self.rules: dict[str, SymbolRules] = {r.symbol: r for r in rules}
        decimals = {r.atom_decimals for r in self.rules.values()} or {ATOM_DECIMALS}
        if len(decimals) != 1:
            raise ValueError("the markets of one engine must count money equally finely")
        self.atom_decimals = decimals.pop()
        self.settings = settings or MatchingSettings()
        self.conditions = conditions or MarketConditions()
        self._price_of = price_of or self._seen_price
        self._quoted: dict[str, MatchingSettings] = {}
        self.book = AccountBook()
        self.quotes: dict[str, Quote] = {}
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
        self.next_match_id = 0

    @property
    def halted(self) -> set[str]:
        """Symbols in which nothing trades and nothing new is accepted."""
        return self.conditions.halted

    def atoms(self, value: Decimal) -> int:
        """An amount of any asset as this engine counts it, rounded down."""
        return atoms(value, self.atom_decimals)

    def amount(self, atom_count: int) -> Decimal:
        """What this engine has counted, as an exact amount."""
        return amount(atom_count, self.atom_decimals)

    # ------------------------------------------------------------------------------------------------- accounts, views
    def restore(
        self,
        orders: Iterable[Order],
        lists: Iterable[OrderList],
        trade_ids: Mapping[str, int],
        last_order_id: int = 0,
        last_list_id: int = 0,
    ) -> None:
        """Take over saved orders and lists; accounts must be open already. The ids are the last that were used."""
        self._next_order_id, self._next_list_id = last_order_id + 1, last_list_id + 1
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

    def forget_closed(self, keep: int) -> list[Order]:
        """Drop the oldest closed orders and keep about `keep`; returns what was dropped. A list goes whole or stays."""
        closed = [order for order in self.orders.values() if not order.is_open]
        gone: dict[int, Order] = {}
        for order in closed[: max(0, len(closed) - keep)]:
            if order.list_id == NO_LIST:
                gone[order.order_id] = order
            elif (order_list := self.lists.get(order.list_id)) is not None and order_list.is_done:
                gone.update((i, self.orders[i]) for i in order_list.order_ids)
                del self.lists[order_list.list_id]
                _drop(self._list_by_client_id, (order_list.account_id, order_list.client_id), order_list.list_id)
        for order_id, order in gone.items():
            del self.orders[order_id]
            _drop(self._by_client_id, (order.account_id, order.client_id), order_id)
        return list(gone.values())

    @property
    def has_changed(self) -> bool:
        """Anything of orders, lists or fills since the last drain?"""
        return bool(self._changes)

    def drain(self) -> Changes:
        """What changed since the last call."""
        changes = self._changes
        changes.balances = self.book.changed
        self._changes = Changes()
        self.book.changed = set()
        return changes

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
        needed = 0
        if key[0] == "order":
            if order.is_open and order.status is not OrderStatus.PENDING_NEW:
                needed = self._need_atoms(order, rules)
        else:
            order_list = self.lists[key[1]]
            if not order_list.is_activated:
                return
            for leg_id in order_list.pending_ids:
                leg = self.orders[leg_id]
                if leg.is_open and leg.status is not OrderStatus.PENDING_NEW:
                    needed = max(needed, self._need_atoms(leg, rules))
        asset = rules.quote if order.side is OrderSide.BUY else rules.base
        self.book.lock(key, order.account_id, asset, needed)

    def _need_atoms(self, order: Order, rules: SymbolRules) -> int:
        if order.side is OrderSide.SELL:
            return order.remaining_lots * rules.base_atoms_per_lot
        if order.kind is OrderKind.MARKET:
            return 0
        price = order.price_ticks or order.stop_ticks or order.reserve_ticks or order.trailing_extreme_ticks
        return order.remaining_lots * price * rules.quote_atoms_per_ticklot

    def _lock_proceeds(self, order_list: OrderList) -> None:
        rules = self.rules[order_list.symbol]
        key: LockKey = ("list", order_list.list_id)
        self.book.lock(key, order_list.account_id, rules.base, order_list.proceeds_atoms)
        self._changes.lists[order_list.list_id] = order_list

    # ---------------------------------------------------------------------------------------------------------- helpers
    def settings_of(self, symbol: str) -> MatchingSettings:
        """The settings, with the spread that was observed for the symbol where there is one."""
        return self._quoted.get(symbol, self.settings)

    def quote_spread(self, symbol: str, half_spread_ticks: int) -> None:
        """From now on the best prices of the symbol lie so far from the last price, at least one tick."""
        half_spread_ticks = max(1, half_spread_ticks)
        if self.settings_of(symbol).quoted_half_spread_ticks != half_spread_ticks:
            self._quoted[symbol] = replace(self.settings, quoted_half_spread_ticks=half_spread_ticks)
            self._bounds = {k: v for k, v in self._bounds.items() if k[1] != symbol}

    def _quote(self, symbol: str) -> Quote:
        if symbol not in self.rules:
            raise Refusal(RejectReason.UNKNOWN_SYMBOL)
        quote = self.quotes.get(symbol)
        if symbol in self.conditions.cancel_only:
            raise Refusal(RejectReason.CANCEL_ONLY)
        if quote is None or symbol in self.halted:
            raise Refusal(RejectReason.MARKET_CLOSED)
        return quote

    def _seen_price(self, symbol: str, now_ms: int) -> int | None:
        quote = self.quotes.get(symbol)
        return quote.last_ticks if quote is not None else None

    def check_rules(self, new: NewOrder, average_ticks: int) -> None:
        """Raise Refusal for the first of today's rules that the order breaks: the filters, a coarser grid, and the
        limit of what is bought or sold at any price, which a stop without a price is under as a market order is.
        """
        rules, grid = self.rules[new.symbol], self.conditions.grid(new.symbol)
        if new.price_ticks % grid.ticks or new.stop_ticks % grid.ticks:
            raise Refusal(RejectReason.FILTER_PRICE)
        if new.lots % grid.lots:
            raise Refusal(RejectReason.FILTER_LOT_SIZE, "off the grid")
        check_filters(rules, new, average_ticks)
        if not new.kind.has_price and new.lots > rules.max_market_lots:
            raise Refusal(RejectReason.FILTER_MARKET_LOT_SIZE)

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


def _drop(index: dict[tuple[str, str], int], key: tuple[str, str], pointed_at: int) -> None:
    """Remove an entry unless it already points at something newer."""
    if index.get(key) == pointed_at:
        del index[key]
