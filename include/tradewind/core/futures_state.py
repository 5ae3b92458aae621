"""What a futures engine remembers beside orders: wallets, positions, their margin, and what moved them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .futures import RATE_UNITS
from .futures_accounts import Bracket, FuturesAccount, Income, IncomeKind, bracket_at
from .matching import Engine
from .matching_arithmetic import PPM
from .matching_book import MatchingSettings
from .matching_conditions import MarketConditions
from .matching_rules import SymbolRules, fee_ppm_of
from .matching_types import Account, NewOrder, Order, OrderSide, Refusal, RejectReason
from .types import MaintenanceBracket

REDUCE_ONLY = "reduceOnly"
CLOSE_POSITION = "closePosition"


class FuturesState(Engine):
    """Accounts in one-way mode with isolated margin.

    `drain_futures` hands out changed accounts, incomes and the results of trades beside what `drain` does.
    """

    def __init__(
        self,
        rules: Iterable[SymbolRules],
        brackets: Mapping[str, Sequence[MaintenanceBracket]],
        settings: MatchingSettings | None = None,
        conditions: MarketConditions | None = None,
    ) -> None:
        super().__init__(rules, settings, conditions)
        self.brackets = {
            symbol: tuple(Bracket.of(b, self.atom_decimals) for b in found) for symbol, found in brackets.items()
        }
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
        self.credit(account_id, "", IncomeKind.TRANSFER, amount_atoms, now_ms)

    def credit(self, account_id: str, symbol: str, kind: IncomeKind, amount_atoms: int, now_ms: int) -> None:
        """Book an income that no trade caused; `symbol` is "" where it concerns none.

        Raises Refusal(INSUFFICIENT_MARGIN) where it would take more than is free.
        """
        if amount_atoms < 0 and self.available_atoms(account_id) + amount_atoms < 0:
            raise Refusal(RejectReason.INSUFFICIENT_MARGIN)
        self.margins[account_id].wallet_atoms += amount_atoms
        self._income(account_id, symbol, kind, amount_atoms, now_ms)

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
            if order.awaits_trigger or order.is_dormant or is_reducing(order):
                continue
            lots[order.side] += order.remaining_lots
            notional[order.side] += order.remaining_lots * order.price_ticks * per_ticklot
        if also is not None:
            lots[also.side] += also.lots
            notional[also.side] += also.lots * price_ticks * per_ticklot
        fee_ppm = fee_ppm_of(self.rules[symbol], self.book.accounts[account_id], maker=False)
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
            payment = -position.lots * mark_ticks * per_ticklot * rate_units // RATE_UNITS
            account.wallet_atoms += payment
            self._income(account_id, symbol, IncomeKind.FUNDING_FEE, payment, now_ms)
            self._cover(account, symbol, now_ms)
            self._bounds.pop((account_id, symbol), None)

    def drain_futures(self) -> tuple[set[str], list[Income], dict[tuple[str, int], int]]:
        """(accounts that changed, incomes, realised results by trade) since the last call."""
        found = self.changed_accounts, self.incomes, self.results
        self.changed_accounts, self.incomes, self.results = set(), [], {}
        return found

    # -------------------------------------------------------------------------------------------------------- details
    def _reducible_lots(self, account_id: str, symbol: str, side: OrderSide) -> int:
        return max(0, -side * self.margins[account_id].position(symbol).lots)

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


def is_reducing(order: Order | NewOrder) -> bool:
    """Whether the order may never open or enlarge a position."""
    tags = dict(order.tags)
    return bool(tags.get(REDUCE_ONLY) or tags.get(CLOSE_POSITION))
