"""Futures accounts in integers: one wallet, and for each symbol one position with margin of its own.

For every account and at every moment, to the last atom:

    wallet = deposits + sum of incomes        (results, commissions, funding, clearance)
    sum of results = sum of what sells brought − sum of what buys cost + signed cost of what is still held
    wallet >= sum of the positions' margins >= 0

The last line holds because what the free part of the wallet cannot pay comes out of the margin of the position that
owes it, and what that cannot pay is covered by the exchange's insurance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .matching_arithmetic import PPM
from .matching_rules import ATOM_DECIMALS, SymbolRules, atoms
from .types import MaintenanceBracket

DEFAULT_LEVERAGE = 20


class IncomeKind(StrEnum):
    """What moved a wallet, in Binance's words (its spelling of the settlement included)."""

    TRANSFER = "TRANSFER"
    REALIZED_PNL = "REALIZED_PNL"
    COMMISSION = "COMMISSION"
    FUNDING_FEE = "FUNDING_FEE"
    INSURANCE_CLEAR = "INSURANCE_CLEAR"
    WELCOME_BONUS = "WELCOME_BONUS"
    REFERRAL_KICKBACK = "REFERRAL_KICKBACK"
    COMMISSION_REBATE = "COMMISSION_REBATE"
    API_REBATE = "API_REBATE"
    CONTEST_REWARD = "CONTEST_REWARD"
    CROSS_COLLATERAL_TRANSFER = "CROSS_COLLATERAL_TRANSFER"
    INTERNAL_TRANSFER = "INTERNAL_TRANSFER"
    AUTO_EXCHANGE = "AUTO_EXCHANGE"
    DELIVERED_SETTLEMENT = "DELIVERED_SETTELMENT"
    COIN_SWAP_DEPOSIT = "COIN_SWAP_DEPOSIT"
    COIN_SWAP_WITHDRAW = "COIN_SWAP_WITHDRAW"
    POSITION_LIMIT_INCREASE_FEE = "POSITION_LIMIT_INCREASE_FEE"
    STRATEGY_TRANSFER = "STRATEGY_UMFUTURES_TRANSFER"
    FEE_RETURN = "FEE_RETURN"
    BFUSD_REWARD = "BFUSD_REWARD"


@dataclass(frozen=True, slots=True)
class Income:
    """One movement of a wallet. `trade_id` is 0 where no trade caused it."""

    income_id: int
    account_id: str
    symbol: str
    kind: IncomeKind
    amount_atoms: int
    time_ms: int
    trade_id: int = 0


@dataclass(frozen=True, slots=True)
class Bracket:
    """A maintenance bracket in atoms and parts per million."""

    floor_atoms: int
    rate_ppm: int
    amount_atoms: int
    leverage: int

    @classmethod
    def of(cls, bracket: MaintenanceBracket, decimals: int = ATOM_DECIMALS) -> Bracket:
        floor, amount = atoms(bracket.notional_floor, decimals), atoms(bracket.amount, decimals)
        return cls(floor, int(bracket.rate * PPM), amount, bracket.leverage)


def bracket_at(notional_atoms: int, brackets: Sequence[Bracket]) -> Bracket:
    """The bracket that a notional falls into."""
    return next((b for b in reversed(brackets) if notional_atoms >= b.floor_atoms), brackets[0])


@dataclass(slots=True)
class FuturesPosition:
    """One symbol's position: signed lots, the signed cost they were opened for, the margin that answers for them."""

    symbol: str
    lots: int = 0
    cost_atoms: int = 0
    margin_atoms: int = 0
    leverage: int = DEFAULT_LEVERAGE
    updated_ms: int = 0

    @property
    def sign(self) -> int:
        return (self.lots > 0) - (self.lots < 0)

    def pnl_atoms(self, mark_ticks: int, rules: SymbolRules) -> int:
        """Unrealised result at a mark price."""
        return self.lots * mark_ticks * rules.quote_atoms_per_ticklot - self.cost_atoms

    def notional_atoms(self, mark_ticks: int, rules: SymbolRules) -> int:
        return abs(self.lots) * mark_ticks * rules.quote_atoms_per_ticklot

    def maintenance_atoms(self, mark_ticks: int, rules: SymbolRules, brackets: Sequence[Bracket]) -> int:
        """The margin that must stay, rounded up."""
        notional = self.notional_atoms(mark_ticks, rules)
        bracket = bracket_at(notional, brackets)
        return -(-notional * bracket.rate_ppm // PPM) - bracket.amount_atoms

    def is_liquidated_at(self, mark_ticks: int, rules: SymbolRules, brackets: Sequence[Bracket]) -> bool:
        """Margin and unrealised result no longer exceed the maintenance margin."""
        if not self.lots:
            return False
        left = self.margin_atoms + self.pnl_atoms(mark_ticks, rules)
        return left <= self.maintenance_atoms(mark_ticks, rules, brackets)

    def liquidation_ticks(self, rules: SymbolRules, brackets: Sequence[Bracket]) -> int | None:
        """The first price on the way to ruin at which it is liquidated; None: at no price above zero.

        A long's is the highest such price, a short's the lowest. The test is monotonous in the price, so it is halved.
        """
        if not self.lots:
            return None
        if self.sign > 0:
            low, high = 0, 2 * abs(self.cost_atoms) // (abs(self.lots) * rules.quote_atoms_per_ticklot) + 2
            while low < high:  # the highest price that is liquidated
                middle = (low + high + 1) // 2
                low, high = (middle, high) if self.is_liquidated_at(middle, rules, brackets) else (low, middle - 1)
            return low or None
        low = 1
        high = 2 * (abs(self.cost_atoms) + self.margin_atoms) // (abs(self.lots) * rules.quote_atoms_per_ticklot) + 2
        while low < high:  # the lowest price that is liquidated
            middle = (low + high) // 2
            low, high = (low, middle) if self.is_liquidated_at(middle, rules, brackets) else (middle + 1, high)
        return low

    def bankruptcy_ticks(self, rules: SymbolRules) -> int:
        """The worst price at which the margin still pays the whole loss, at least one tick."""
        per_tick = abs(self.lots) * rules.quote_atoms_per_ticklot
        if self.sign > 0:
            return max(1, -((self.margin_atoms - self.cost_atoms) // per_tick))
        return max(1, (self.margin_atoms - self.cost_atoms) // per_tick)


@dataclass(slots=True)
class FuturesAccount:
    """A wallet and its positions. `insured_atoms` is what the insurance has paid in, less the clearance it took."""

    account_id: str
    wallet_atoms: int = 0
    positions: dict[str, FuturesPosition] = field(default_factory=dict)
    insured_atoms: int = 0

    def position(self, symbol: str) -> FuturesPosition:
        """The symbol's position, made empty when there was none."""
        found = self.positions.get(symbol)
        if found is None:
            found = self.positions[symbol] = FuturesPosition(symbol)
        return found

    @property
    def margins_atoms(self) -> int:
        return sum(p.margin_atoms for p in self.positions.values())

    def trade(self, symbol: str, signed_lots: int, price_ticks: int, rules: SymbolRules, now_ms: int) -> int:
        """Move the position by one trade; returns the realised result. The wallet moves by it, commissions apart.

        The closed part takes its share of cost and margin along; an opened part sets margin aside from the free wallet.
        """
        position = self.position(symbol)
        position.updated_ms = now_ms
        unit, realised, left = price_ticks * rules.quote_atoms_per_ticklot, 0, abs(signed_lots)
        side = 1 if signed_lots > 0 else -1
        if position.sign == -side:
            held, sign = abs(position.lots), position.sign
            closing = min(left, held)
            cost = position.cost_atoms * closing // held
            margin = position.margin_atoms * closing // held
            realised = sign * unit * closing - cost
            position.lots -= sign * closing
            position.cost_atoms -= cost
            position.margin_atoms -= margin
            left -= closing
        self.wallet_atoms += realised
        if left:
            notional = unit * left
            position.lots += side * left
            position.cost_atoms += side * notional
            free = max(0, self.wallet_atoms - self.margins_atoms)
            position.margin_atoms += min(-(-notional // position.leverage), free)
        return realised

    def cover(self, symbol: str) -> int:
        """Restore wallet >= margins after a payment of the symbol's; returns what the insurance had to add."""
        short = self.margins_atoms - self.wallet_atoms
        if short <= 0:
            return 0
        position = self.position(symbol)
        taken = min(short, position.margin_atoms)
        position.margin_atoms -= taken
        self.wallet_atoms += short - taken
        self.insured_atoms += short - taken
        return short - taken

    def as_row(self) -> dict[str, object]:
        """Plain values, from which `from_row` makes an equal account."""
        return {
            "wallet_atoms": self.wallet_atoms,
            "insured_atoms": self.insured_atoms,
            "positions": [
                [p.symbol, p.lots, p.cost_atoms, p.margin_atoms, p.leverage, p.updated_ms]
                for p in self.positions.values()
            ],
        }

    @classmethod
    def from_row(cls, account_id: str, row: Mapping[str, object]) -> FuturesAccount:
        positions = [FuturesPosition(*values) for values in row["positions"]]  # type: ignore[attr-defined]
        return cls(
            account_id,
            int(str(row["wallet_atoms"])),
            {p.symbol: p for p in positions},
            int(str(row["insured_atoms"])),
        )
