"""How orders meet prices: the matching engine that the paper exchange and the backtest share.

The engine holds accounts, orders and lists; commands (`place`, `place_list`, `cancel`, `cancel_list`) and prices
(`on_price`, `on_bar`) change them; `drain` hands out what changed since the last call. It has no clock, no randomness
and no I/O: the same sequence of calls gives the same state, in a server and in a test alike.

Each account meets the market alone: there is nobody else in the book (see `matching_book`). Inside a bar the price
walks a declared path, open → first extreme → second extreme → close, and what it meets first happens first.
"""

from __future__ import annotations

import itertools

from tradewind.core.matching_amend import Amending
from tradewind.core.matching_book import BarPath, BarTicks, level_lots, limit_touch_ticks
from tradewind.core.matching_conditions import ExpiryReason
from tradewind.core.matching_lists import NewOrderList, check_composition, check_leg_relation
from tradewind.core.matching_state import Changes, Quote
from tradewind.core.matching_triggers import advance_trailing, start_trailing, trigger_ticks, waits_for_fall
from tradewind.core.matching_types import (
    NEVER_MS,
    NO_LIST,
    NewOrder,
    Order,
    OrderList,
    OrderSide,
    OrderStatus,
    Refusal,
    RejectReason,
)

__all__ = ["Changes", "Engine", "Quote"]

_NEVER_LOW = -1
_NEVER_HIGH = 1 << 62


class Engine(Amending):
    """Matching for any number of accounts and symbols.

    Every command raises Refusal before it has changed anything, or succeeds wholly.
    """

    # ---------------------------------------------------------------------------------------------------------- prices
    def symbols_with_orders(self) -> list[str]:
        return [symbol for symbol, accounts in self._open.items() if accounts]

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
        if self.conditions.stands_still(symbol):
            return
        for account_id in self._accounts_in(symbol):
            low, high = self._account_bounds(account_id, symbol)
            if last_ticks <= low or last_ticks >= high:
                self._sweep(account_id, symbol, last_ticks, last_ticks, time_ms)

    def on_bar(
        self, symbol: str, bar: BarTicks, window: int, time_ms: int, average_ticks: int = 0, path: BarPath | None = None
    ) -> None:
        """The market trades through a bar. Events inside it carry `time_ms`; afterwards the last price is its close."""
        quote = self._enter_window(symbol, bar.open, bar.volume_lots, window, time_ms, average_ticks)
        if not self.conditions.stands_still(symbol):
            for account_id in self._accounts_in(symbol):
                low, high = self._account_bounds(account_id, symbol)
                if bar.low <= low or bar.high >= high:
                    points = self._path(account_id, symbol, bar, path or self.settings.path)
                    for start, stop in itertools.pairwise(points):
                        self._sweep(account_id, symbol, start, stop, time_ms)
        quote.last_ticks = bar.close

    def _accounts_in(self, symbol: str) -> list[str]:
        """Accounts with open orders, always in the same order; a copy, because meeting them changes the original."""
        accounts = self._open.get(symbol)
        if not accounts:
            return []
        return sorted(accounts) if len(accounts) > 1 else list(accounts)

    def _enter_window(
        self, symbol: str, last_ticks: int, volume_lots: int, window: int, time_ms: int, average_ticks: int
    ) -> Quote:
        quote = self.quotes.get(symbol)
        if quote is None:
            quote = self.quotes[symbol] = Quote(last_ticks, last_ticks, 1, window, time_ms)
        if quote.window != window:
            if self._taken:
                self._taken = {k: v for k, v in self._taken.items() if k[1] != symbol}
            if self._made:
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
            # What the account holds or is about to hold decides: a resting exit names the position, else the entry
            # does.
            orders = self._open[symbol][account_id].values()
            exits = [o for o in orders if o.kind.is_stop] or [o for o in orders if o.kind.is_contingent]
            low_first = exits[0].side is OrderSide.SELL if exits else next(iter(orders)).side is OrderSide.BUY
        extremes = [bar.low, bar.high] if low_first else [bar.high, bar.low]
        return [bar.open, bar.open, *extremes, bar.close]

    def _account_bounds(self, account_id: str, symbol: str) -> tuple[int, int]:
        bounds = self._bounds.get((account_id, symbol))
        if bounds is None:
            low, high = _NEVER_LOW, _NEVER_HIGH
            for order in self._open.get(symbol, {}).get(account_id, {}).values():
                if order.is_dormant:
                    continue
                if order.awaits_trigger:
                    if order.trailing_bps:
                        if order.trailing_ms == NEVER_MS:
                            low, high = _NEVER_HIGH, _NEVER_LOW  # its start may lie on either side
                            break
                        extreme, falling = order.trailing_extreme_ticks, waits_for_fall(order)
                        ahead = extreme + 1 if falling else extreme - 1  # where it begins to follow again
                        low, high = (low, min(high, ahead)) if falling else (max(low, ahead), high)
                        level, falling = trigger_ticks(order, extreme)
                    else:
                        level, falling = order.stop_ticks, waits_for_fall(order)
                else:
                    level = limit_touch_ticks(order.price_ticks, order.side, self.settings_of(symbol))
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
                if order.is_dormant or order.order_id in exhausted:
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
            if order.trailing_bps and order.awaits_trigger and not order.hangs and advance_trailing(order, stop):
                self._touch(order, now_ms)

    def _met_at(self, order: Order, position: int, stop: int) -> int | None:
        """Where on the way from `position` to `stop` the order acts, or None."""
        if order.awaits_trigger:
            level, falling = trigger_ticks(order, position)
        else:
            level, falling = (
                limit_touch_ticks(order.price_ticks, order.side, self.settings_of(order.symbol)),
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
        self.check(account_id, new)
        return self.place_checked(account_id, new, now_ms, take_cap_lots=take_cap_lots)

    def place_checked(self, account_id: str, new: NewOrder, now_ms: int, *, take_cap_lots: int | None = None) -> Order:
        """Place an order that `check` has just let pass, with nothing in between."""
        order = self._admit(account_id, new, OrderStatus.NEW, now_ms)
        self._start_working(order, self.quotes[new.symbol].last_ticks, now_ms, take_cap_lots)
        return order

    def check(self, account_id: str, new: NewOrder) -> None:
        """Raise Refusal if `place` would; changes nothing."""
        quote = self._quote(new.symbol)
        check_composition(new)
        self.check_rules(new, quote.average_ticks)
        self._check_counts(account_id, (new,), lists=0)
        self._check_client_ids(account_id, [new.client_id])
        self._check_working(account_id, new, quote.last_ticks)

    def cancel(self, account_id: str, order_id: int, now_ms: int) -> Order:
        """Cancel an open order, and with it the whole list it belongs to. Raises Refusal(UNKNOWN_ORDER)."""
        order = self.orders.get(order_id)
        if order is None or order.account_id != account_id or not order.is_open or order.hangs:
            raise Refusal(RejectReason.UNKNOWN_ORDER)
        if order.list_id != NO_LIST:
            self.cancel_list(account_id, order.list_id, now_ms)
        else:
            self._close(order, OrderStatus.CANCELED, now_ms)
        return order

    def expire(self, order: Order, now_ms: int, status: OrderStatus = OrderStatus.EXPIRED) -> None:
        """The exchange itself ends an order, and with it the list it belongs to; one that is over stays as it is."""
        reason = "" if status is OrderStatus.EXPIRED_IN_MATCH else ExpiryReason.EXCHANGE_CANCELED.value
        self._close(order, status, now_ms, reason)
        if order.list_id != NO_LIST:
            for leg_id in self.lists[order.list_id].order_ids:
                self._close(self.orders[leg_id], OrderStatus.EXPIRED, now_ms, ExpiryReason.EXCHANGE_CANCELED.value)

    def expire_all(self, symbol: str, now_ms: int) -> None:
        """Every open order in the symbol expires, whosever it is."""
        for account_id in self._accounts_in(symbol):
            for order in list(self._open[symbol].get(account_id, {}).values()):
                self.expire(order, now_ms)

    def fill_resting(self, order: Order, lots: int, now_ms: int) -> None:
        """A taker meets a resting limit order for so many lots, wherever the price is.

        Raises Refusal(UNKNOWN_ORDER) for an order that does not rest, or has less left.
        """
        if not order.is_open or order.is_dormant or order.awaits_trigger or not 0 < lots <= self._fillable_lots(order):
            raise Refusal(RejectReason.UNKNOWN_ORDER)
        self._fill(order, order.price_ticks, lots, now_ms, maker=True)

    # ------------------------------------------------------------------------------------------------------------ lists
    def place_list(
        self, account_id: str, new: NewOrderList, now_ms: int, *, take_cap_lots: int | None = None
    ) -> OrderList:
        """Place a list of dependent orders. Raises Refusal as `place` does; then nothing was placed."""
        self.check_list(account_id, new)
        return self.place_checked_list(account_id, new, now_ms, take_cap_lots=take_cap_lots)

    def place_checked_list(
        self, account_id: str, new: NewOrderList, now_ms: int, *, take_cap_lots: int | None = None
    ) -> OrderList:
        """Place a list that `check_list` has just let pass, with nothing in between."""
        quote = self.quotes[new.symbol]
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
        for leg in new.orders:
            check_composition(leg)
            self.check_rules(leg, quote.average_ticks)
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
