"""Matching for linear futures: the spot engine's orders, book and bar paths over accounts with margin.

What differs from spot: nothing is owned, so nothing is locked by asset; an order that opens needs margin, one that is
reduce-only never opens; a position whose margin is used up is liquidated where the price first reaches that level,
after the orders that lie nearer on the way.
"""

from __future__ import annotations

from .futures_accounts import IncomeKind, bracket_at
from .futures_state import CLOSE_POSITION, REDUCE_ONLY, FuturesState, is_reducing
from .matching_arithmetic import PPM
from .matching_book import BarPath, BarTicks, best_bid, walk_book
from .matching_lists import check_composition
from .matching_prevention import prevention_mode
from .matching_rules import fee_ppm_of
from .matching_types import NewOrder, Order, OrderKind, OrderSide, OrderStatus, Refusal, RejectReason, TimeInForce

__all__ = ["CLOSE_POSITION", "REDUCE_ONLY", "FuturesEngine", "is_reducing"]

LIQUIDATION_FEE_PPM = 12_500
_SETTLEMENT = "settlement"


class FuturesEngine(FuturesState):
    """`reduceOnly` and `closePosition` are tags of an order."""

    # --------------------------------------------------------------------------------------------------------- checks
    def check(self, account_id: str, new: NewOrder) -> None:
        """Raise Refusal if `place` would; changes nothing. What reduces may be smaller than the least notional."""
        quote = self._quote(new.symbol)
        check_composition(new)
        try:
            self.check_rules(new, quote.average_ticks)
        except Refusal as refusal:
            if refusal.reason is not RejectReason.FILTER_NOTIONAL or not is_reducing(new):
                raise
        self._check_counts(account_id, (new,), lists=0)
        self._check_client_ids(account_id, [new.client_id])
        self._check_working(account_id, new, quote.last_ticks)

    def _check_working(self, account_id: str, new: NewOrder, last: int) -> None:
        if new.kind.is_contingent:
            # Margin and position are looked at when it triggers.
            above = (new.side is OrderSide.BUY) == new.kind.is_stop
            if (
                new.stop_ticks
                and not new.trailing_bps
                and ((new.stop_ticks <= last) if above else (new.stop_ticks >= last))
            ):
                raise Refusal(RejectReason.WOULD_TRIGGER)
            return
        if new.kind is OrderKind.LIMIT_MAKER and self._crosses(new.side, new.price_ticks, last, new.symbol):
            raise Refusal(RejectReason.WOULD_TAKE)
        if is_reducing(new) and not self._reducible_lots(account_id, new.symbol, new.side):
            raise Refusal(RejectReason.REDUCE_ONLY)
        crosses = not new.kind.has_price or self._crosses(new.side, new.price_ticks, last, new.symbol)
        fills = self._offered(account_id, new.symbol, new.side, new.lots, new.price_ticks, last) if crosses else []
        if new.kind is OrderKind.MARKET and not fills and not self.conditions.leaves_takers_unfilled(new.symbol):
            raise Refusal(RejectReason.NO_LIQUIDITY)
        if new.time_in_force is TimeInForce.FOK and sum(lots for _, lots in fills) < new.lots:
            raise Refusal(RejectReason.FOK_UNFILLED)
        if is_reducing(new):
            return
        # A sell fills at its limit or above: what it may cost then is what the best bid says.
        dearest = max([new.price_ticks, *(price for price, _ in fills)])
        if new.side is OrderSide.SELL:
            dearest = max(dearest, best_bid(last, self.settings_of(new.symbol)))
        self._require_margin(account_id, new, dearest)

    def _require_margin(self, account_id: str, new: NewOrder, price_ticks: int) -> None:
        symbol = new.symbol
        position = self.margins[account_id].position(symbol)
        after = abs(position.lots + new.side * new.lots) * price_ticks * self.rules[symbol].quote_atoms_per_ticklot
        if bracket_at(after, self.brackets[symbol]).leverage < position.leverage and after > position.notional_atoms(
            price_ticks, self.rules[symbol]
        ):
            raise Refusal(RejectReason.POSITION_LIMIT)
        before = self.order_margin_atoms(account_id, symbol)
        extra = self.order_margin_atoms(account_id, symbol, new, price_ticks) - before
        if extra > max(0, self.available_atoms(account_id)):
            raise Refusal(RejectReason.INSUFFICIENT_MARGIN)

    # -------------------------------------------------------------------------------------------------- life of orders
    def _relock(self, order: Order) -> None:
        """Nothing is locked by asset: what open orders hold back is counted when it is asked for."""

    def _affordable(self, order: Order, fills: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return fills

    def _fillable_lots(self, order: Order) -> int:
        if not is_reducing(order):
            return order.remaining_lots
        return min(order.remaining_lots, self._reducible_lots(order.account_id, order.symbol, order.side))

    def _prevention_of(self, order: Order) -> str:
        return prevention_mode(order, "EXPIRE_MAKER")

    def release(self, order: Order, now_ms: int) -> None:
        """A conditional order that hung since it was triggered reaches the matching engine at last."""
        order.hangs = False
        self._trigger(order, self.quotes[order.symbol].last_ticks, now_ms)

    def _trigger(self, order: Order, last: int, now_ms: int) -> None:
        if order.symbol in self.conditions.hanging and order.kind.is_contingent:
            order.hangs = True
            order.working_ms = now_ms
            self._touch(order, now_ms)
            return
        reducible = self._reducible_lots(order.account_id, order.symbol, order.side)
        if is_reducing(order) and not reducible:
            self._close(order, OrderStatus.EXPIRED, now_ms, RejectReason.REDUCE_ONLY.value)
            return
        if dict(order.tags).get(CLOSE_POSITION):
            order.lots = reducible
        if not is_reducing(order):
            request = NewOrder(order.symbol, order.side, order.kind, order.client_id, order.lots)
            try:
                self._require_margin(order.account_id, request, max(last, order.price_ticks))
            except Refusal as refusal:
                self._close(order, OrderStatus.REJECTED, now_ms, refusal.reason.value)
                return
        super()._trigger(order, last, now_ms)

    def _book_trade(self, order: Order, lots: int, quote_atoms: int, now_ms: int, *, maker: bool) -> tuple[int, str]:
        rules, account = self.rules[order.symbol], self.margins[order.account_id]
        trade_id = self._next_trade_id.get(order.symbol, 1)
        price_ticks = quote_atoms // (lots * rules.quote_atoms_per_ticklot)
        realised = account.trade(order.symbol, order.side * lots, price_ticks, rules, now_ms)
        account_fees = self.book.accounts[order.account_id]
        is_settlement = dict(order.tags).get(_SETTLEMENT)
        fee_ppm = 0 if is_settlement else fee_ppm_of(rules, account_fees, maker=maker)
        commission = quote_atoms * fee_ppm // PPM
        account.wallet_atoms -= commission
        self.results[(order.symbol, trade_id)] = realised
        if realised:
            self._income(order.account_id, order.symbol, IncomeKind.REALIZED_PNL, realised, now_ms, trade_id)
        self._income(order.account_id, order.symbol, IncomeKind.COMMISSION, -commission, now_ms, trade_id)
        self._cover(account, order.symbol, now_ms)
        return commission, rules.quote

    def _fill(self, order: Order, price_ticks: int, lots: int, now_ms: int, *, maker: bool) -> None:
        super()._fill(order, price_ticks, lots, now_ms, maker=maker)
        if not self.margins[order.account_id].position(order.symbol).lots:
            resting = list(self._open.get(order.symbol, {}).get(order.account_id, {}).values())
            for other in resting:  # what may only reduce has nothing left to reduce
                if is_reducing(other) and not other.awaits_trigger and other.status is not OrderStatus.PENDING_NEW:
                    self._close(other, OrderStatus.EXPIRED, now_ms, RejectReason.REDUCE_ONLY.value)
        self._keep_watch(order.account_id, order.symbol)

    def _touch(self, order: Order, now_ms: int) -> None:
        super()._touch(order, now_ms)
        self._keep_watch(order.account_id, order.symbol)

    # ---------------------------------------------------------------------------------------------------------- prices
    def symbols_with_orders(self) -> list[str]:
        """Symbols in which an account has orders or a position."""
        return [symbol for symbol, accounts in self._open.items() if accounts]

    def _account_bounds(self, account_id: str, symbol: str) -> tuple[int, int]:
        cached = self._bounds.get((account_id, symbol))
        if cached is not None:
            return cached
        low, high = super()._account_bounds(account_id, symbol)
        position = self.margins[account_id].position(symbol)
        level = position.liquidation_ticks(self.rules[symbol], self.brackets[symbol])
        if level is not None:
            low, high = (max(low, level), high) if position.sign > 0 else (low, min(high, level))
        self._bounds[(account_id, symbol)] = (low, high)
        return low, high

    def _path(self, account_id: str, symbol: str, bar: BarTicks, path: BarPath) -> list[int]:
        sign = self.margins[account_id].position(symbol).sign
        if path is BarPath.ADVERSE_FIRST and sign:
            path = BarPath.LOW_FIRST if sign > 0 else BarPath.HIGH_FIRST
        return super()._path(account_id, symbol, bar, path)

    def _sweep(self, account_id: str, symbol: str, start: int, stop: int, now_ms: int) -> None:
        """As on spot; a position is liquidated where its level lies on the way, after the orders before it."""
        position = self.margins[account_id].position(symbol)
        while True:
            level = position.liquidation_ticks(self.rules[symbol], self.brackets[symbol])
            falls = position.sign > 0
            if level is None or (min(start, stop) > level if falls else max(start, stop) < level):
                super()._sweep(account_id, symbol, start, stop, now_ms)
                return
            met = min(start, level) if falls else max(start, level)
            held = position.lots
            super()._sweep(account_id, symbol, start, met, now_ms)
            start = met
            if position.lots == held:
                self._liquidate(account_id, symbol, met, now_ms)

    def settle(self, symbol: str, mark_ticks: int, now_ms: int) -> None:
        """The contract ends: every order in it expires, every position is closed at the mark price, without a fee."""
        self.expire_all(symbol, now_ms)
        for account_id in self._accounts_in(symbol):
            position = self.margins[account_id].position(symbol)
            if position.lots:
                side = OrderSide.SELL if position.sign > 0 else OrderSide.BUY
                client_id = f"settlement_autoclose-{now_ms}"
                tags = ((REDUCE_ONLY, 1), (_SETTLEMENT, 1))
                request = NewOrder(symbol, side, OrderKind.MARKET, client_id, abs(position.lots), tags=tags)
                order = self._admit(account_id, request, OrderStatus.NEW, now_ms)
                order.working_ms = now_ms
                self._fill(order, mark_ticks, order.lots, now_ms, maker=False)

    def _liquidate(self, account_id: str, symbol: str, ticks: int, now_ms: int) -> None:
        """Close a position that its margin no longer carries: at the book's prices down to bankruptcy, the rest there.

        The clearance fee is taken from what is left of the margin; a loss beyond the margin is the insurance's.
        """
        account, rules, quote = self.margins[account_id], self.rules[symbol], self.quotes[symbol]
        position = account.position(symbol)
        for order in list(self._open.get(symbol, {}).get(account_id, {}).values()):
            self._close(order, OrderStatus.EXPIRED, now_ms, "liquidation")
        quote.last_ticks = ticks
        side = OrderSide.SELL if position.sign > 0 else OrderSide.BUY
        margin, bankrupt, lots = position.margin_atoms, position.bankruptcy_ticks(rules), abs(position.lots)
        wallet_before = account.wallet_atoms
        client_id = f"autoclose-{now_ms}{self._next_order_id % 1000:03d}"
        request = NewOrder(symbol, side, OrderKind.MARKET, client_id, lots, tags=((REDUCE_ONLY, 1),))
        order = self._admit(account_id, request, OrderStatus.NEW, now_ms)
        order.working_ms = now_ms
        fills = walk_book(ticks, side, lots, bankrupt, quote.level_lots, 0, self.settings_of(symbol))
        left = lots - sum(n for _, n in fills)
        for price, n in [*fills, *([(bankrupt, left)] if left else [])]:
            self._fill(order, price, n, now_ms, maker=False)
        lost = wallet_before - account.wallet_atoms
        if lost > margin:
            account.wallet_atoms += lost - margin
            account.insured_atoms += lost - margin
            self._income(account_id, symbol, IncomeKind.INSURANCE_CLEAR, lost - margin, now_ms)
            return
        clearance = min(margin - lost, order.filled_quote_atoms * LIQUIDATION_FEE_PPM // PPM)
        if clearance:
            account.wallet_atoms -= clearance
            account.insured_atoms -= clearance
            self._income(account_id, symbol, IncomeKind.INSURANCE_CLEAR, -clearance, now_ms)
