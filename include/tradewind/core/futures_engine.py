"""Matching for linear futures: the spot engine's orders, book and bar paths over accounts with margin.

What differs from spot: nothing is owned, so nothing is locked by asset; an order that opens needs margin, one that is
reduce-only never opens; a position whose margin is used up is liquidated where the price first reaches that level,
after the orders that lie nearer on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .futures_accounts import Bracket, FuturesAccount, Income, IncomeKind, bracket_at
from .matching import Engine
from .matching_book import BarPath, BarTicks, MatchingSettings, best_bid, walk_book
from .matching_lists import check_composition
from .matching_rules import PPM, SymbolRules, check_filters
from .matching_types import (
    Account,
    NewOrder,
    Order,
    OrderKind,
    OrderSide,
    OrderStatus,
    Refusal,
    RejectReason,
    TimeInForce,
)
from .types import MaintenanceBracket

REDUCE_ONLY = "reduceOnly"
CLOSE_POSITION = "closePosition"
LIQUIDATION_FEE_PPM = 12_500
_RATE_UNITS = 100_000_000


class FuturesEngine(Engine):
    """One-way mode, isolated margin. `reduceOnly` and `closePosition` are tags of an order; `quote` is what all settle
    in. `drain_futures` hands out changed accounts, incomes and the results of trades beside what `drain` does."""

    def __init__(
        self,
        rules: Iterable[SymbolRules],
        brackets: Mapping[str, Sequence[MaintenanceBracket]],
        settings: MatchingSettings | None = None,
    ) -> None:
        super().__init__(rules, settings)
        self.brackets = {symbol: tuple(Bracket.of(b) for b in found) for symbol, found in brackets.items()}
        self.margins: dict[str, FuturesAccount] = {}
        self.changed_accounts: set[str] = set()
        self.incomes: list[Income] = []
        self.results: dict[tuple[str, int], int] = {}  # (symbol, trade id) -> realised atoms, of trades not drained yet
        self.next_income_id = 1

    # ------------------------------------------------------------------------------------------------------- accounts
    def open_account(
        self, account_id: str, balances: Mapping[str, int], *, maker_fee_ppm: int = 200, taker_fee_ppm: int = 500
    ) -> Account:
        """Open an account whose wallet holds what `balances` has of the settlement asset."""
        account = super().open_account(account_id, {}, maker_fee_ppm=maker_fee_ppm, taker_fee_ppm=taker_fee_ppm)
        self.margins[account_id] = FuturesAccount(account_id)
        self.changed_accounts.add(account_id)
        for held in balances.values():
            self.transfer(account_id, held, 0)
        return account

    def transfer(self, account_id: str, amount_atoms: int, now_ms: int) -> None:
        """Move money in, or out (negative). Raises Refusal(INSUFFICIENT_MARGIN) beyond what is free."""
        if amount_atoms < 0 and self.available_atoms(account_id) + amount_atoms < 0:
            raise Refusal(RejectReason.INSUFFICIENT_MARGIN)
        self.margins[account_id].wallet_atoms += amount_atoms
        self._income(account_id, "", IncomeKind.TRANSFER, amount_atoms, now_ms)

    def restore_account(self, account: FuturesAccount) -> None:
        """Take over a saved account; it must be open. Call before `restore`."""
        self.margins[account.account_id] = account
        for position in account.positions.values():
            self._keep_watch(account.account_id, position.symbol)

    def available_atoms(self, account_id: str) -> int:
        """What is neither margin of a position nor held back for open orders."""
        account = self.margins[account_id]
        symbols = {s for s, accounts in self._open.items() if account_id in accounts}
        held_back = sum(self.order_margin_atoms(account_id, symbol) for symbol in symbols)
        return account.wallet_atoms - account.margins_atoms - held_back

    def order_margin_atoms(
        self, account_id: str, symbol: str, also: NewOrder | None = None, price_ticks: int = 0
    ) -> int:
        """Margin and commission that the symbol's open orders (and `also`, at a price) may need: the dearer side's."""
        per_ticklot = self.rules[symbol].quote_atoms_per_ticklot
        position = self.margins[account_id].position(symbol)
        lots, notional = {OrderSide.BUY: 0, OrderSide.SELL: 0}, {OrderSide.BUY: 0, OrderSide.SELL: 0}
        for order in self._open.get(symbol, {}).get(account_id, {}).values():
            if order.awaits_trigger or order.status is OrderStatus.PENDING_NEW or is_reducing(order):
                continue
            lots[order.side] += order.remaining_lots
            notional[order.side] += order.remaining_lots * order.price_ticks * per_ticklot
        if also is not None:
            lots[also.side] += also.lots
            notional[also.side] += also.lots * price_ticks * per_ticklot
        fee_ppm = self.book.accounts[account_id].taker_fee_ppm
        needs = [0]
        for side in OrderSide:
            opening = max(0, lots[side] - max(0, -side * position.lots))
            if opening:
                opened = -(-notional[side] * opening // lots[side])
                needs.append(-(-opened // position.leverage) - (-notional[side] * fee_ppm // PPM))
        return max(needs)

    def set_leverage(self, account_id: str, symbol: str, leverage: int) -> None:
        """Raises Refusal(POSITION_LIMIT) when the position is too large for it, or is open and would get less."""
        position = self.margins[account_id].position(symbol)
        quote = self._quote(symbol)
        brackets = self.brackets[symbol]
        if leverage > bracket_at(position.notional_atoms(quote.last_ticks, self.rules[symbol]), brackets).leverage:
            raise Refusal(RejectReason.POSITION_LIMIT)
        if position.lots and leverage < position.leverage:
            raise Refusal(RejectReason.POSITION_LIMIT)
        position.leverage = leverage
        self.changed_accounts.add(account_id)

    def move_margin(self, account_id: str, symbol: str, amount_atoms: int) -> None:
        """Add free money to a position's margin, or take some back (negative).

        Raises Refusal(INSUFFICIENT_MARGIN) when it is not free, or when what stays were under the initial margin.
        """
        position = self.margins[account_id].position(symbol)
        mark = self._quote(symbol).last_ticks
        if not position.lots or amount_atoms > self.available_atoms(account_id):
            raise Refusal(RejectReason.INSUFFICIENT_MARGIN)
        left = position.margin_atoms + amount_atoms
        needed = -(-position.notional_atoms(mark, self.rules[symbol]) // position.leverage)
        if amount_atoms < 0 and left + min(0, position.pnl_atoms(mark, self.rules[symbol])) < needed:
            raise Refusal(RejectReason.INSUFFICIENT_MARGIN)
        position.margin_atoms = left
        self._bounds.pop((account_id, symbol), None)
        self.changed_accounts.add(account_id)

    def settle_funding(self, symbol: str, mark_ticks: int, rate_units: int, now_ms: int) -> None:
        """Longs pay shorts `rate_units` × 1e-8 of the notional; a payment is rounded against the account."""
        per_ticklot = self.rules[symbol].quote_atoms_per_ticklot
        for account_id in sorted(self._open.get(symbol, {})):
            account = self.margins[account_id]
            position = account.position(symbol)
            if not position.lots:
                continue
            payment = -position.lots * mark_ticks * per_ticklot * rate_units // _RATE_UNITS
            account.wallet_atoms += payment
            self._income(account_id, symbol, IncomeKind.FUNDING_FEE, payment, now_ms)
            self._cover(account, symbol, now_ms)
            self._bounds.pop((account_id, symbol), None)

    def drain_futures(self) -> tuple[set[str], list[Income], dict[tuple[str, int], int]]:
        """(accounts that changed, incomes, realised results by trade) since the last call."""
        found = self.changed_accounts, self.incomes, self.results
        self.changed_accounts, self.incomes, self.results = set(), [], {}
        return found

    # --------------------------------------------------------------------------------------------------------- checks
    def check(self, account_id: str, new: NewOrder) -> None:
        """Raise Refusal if `place` would; changes nothing. What reduces may be smaller than the least notional."""
        quote = self._quote(new.symbol)
        check_composition(new)
        try:
            check_filters(self.rules[new.symbol], new, quote.average_ticks)
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
        quote = self.quotes[new.symbol]
        taken = self._taken.get((account_id, new.symbol, new.side), 0)
        crosses = not new.kind.has_price or self._crosses(new.side, new.price_ticks, last, new.symbol)
        fills = (
            walk_book(last, new.side, new.lots, new.price_ticks, quote.level_lots, taken, self.settings_of(new.symbol))
            if crosses
            else []
        )
        if new.kind is OrderKind.MARKET and not fills:
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

    def _reducible_lots(self, account_id: str, symbol: str, side: OrderSide) -> int:
        return max(0, -side * self.margins[account_id].position(symbol).lots)

    # -------------------------------------------------------------------------------------------------- life of orders
    def _relock(self, order: Order) -> None:
        """Nothing is locked by asset: what open orders hold back is counted when it is asked for."""

    def _affordable(self, order: Order, fills: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return fills

    def _fillable_lots(self, order: Order) -> int:
        if not is_reducing(order):
            return order.remaining_lots
        return min(order.remaining_lots, self._reducible_lots(order.account_id, order.symbol, order.side))

    def _trigger(self, order: Order, last: int, now_ms: int) -> None:
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
        fees = self.book.accounts[order.account_id]
        commission = quote_atoms * (fees.maker_fee_ppm if maker else fees.taker_fee_ppm) // PPM
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

    def _keep_watch(self, account_id: str, symbol: str) -> None:
        """Prices concern an account while it has orders or a position: both are kept in the book of open orders."""
        accounts = self._open.setdefault(symbol, {})
        if self.margins[account_id].position(symbol).lots:
            accounts.setdefault(account_id, {})
        elif not accounts.get(account_id, True):
            del accounts[account_id]
        self._bounds.pop((account_id, symbol), None)

    def _income(
        self, account_id: str, symbol: str, kind: IncomeKind, amount_atoms: int, now_ms: int, trade_id: int = 0
    ) -> None:
        self.incomes.append(Income(self.next_income_id, account_id, symbol, kind, amount_atoms, now_ms, trade_id))
        self.next_income_id += 1
        self.changed_accounts.add(account_id)

    def _cover(self, account: FuturesAccount, symbol: str, now_ms: int) -> None:
        insured = account.cover(symbol)
        if insured:
            self._income(account.account_id, symbol, IncomeKind.INSURANCE_CLEAR, insured, now_ms)

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


def is_reducing(order: Order | NewOrder) -> bool:
    """Whether the order may never open or enlarge a position."""
    tags = dict(order.tags)
    return bool(tags.get(REDUCE_ONLY) or tags.get(CLOSE_POSITION))
