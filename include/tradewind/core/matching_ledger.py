"""Accounts, what their orders reserve, and what trades move: money that is conserved to the last atom.

For every asset and at every moment: sum of totals + fees collected = deposits + what trades with the market brought in.
Reservations are keyed by their owner (an order, or a list whose legs share one reservation), so that a reservation is
replaced, never added to twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from tradewind.core.matching_arithmetic import PPM
from tradewind.core.matching_arithmetic import commission as commission_of
from tradewind.core.matching_rules import SymbolRules, fee_ppm_of
from tradewind.core.matching_types import Account, Balance, OrderSide, Refusal, RejectReason

FEE_DISCOUNT_PPM = 750_000
"""What of a commission is paid when it is paid in the account's fee asset."""
LockKey = tuple[str, int]
"""('order', order id) or ('list', list id)."""


class AccountBook:
    """All accounts of an engine. Mutations are recorded in `changed` as (account id, asset)."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.fees_collected: dict[str, int] = {}
        self.changed: set[tuple[str, str]] = set()
        self._locks: dict[LockKey, tuple[str, str, int]] = {}

    def open(self, account_id: str, balances: Mapping[str, int], maker_fee_ppm: int, taker_fee_ppm: int) -> Account:
        """Create an account holding `balances` (atoms by asset). Raises ValueError if it exists or one is negative."""
        if account_id in self.accounts:
            raise ValueError(f"account {account_id} exists already")
        if any(held < 0 for held in balances.values()):
            raise ValueError(f"account {account_id}: a balance cannot be negative")
        account = Account(account_id, maker_fee_ppm, taker_fee_ppm, {a: Balance(held) for a, held in balances.items()})
        self.accounts[account_id] = account
        self.changed.update((account_id, asset) for asset in balances)
        return account

    def deposit(self, account_id: str, asset: str, atoms: int) -> None:
        """Move money in (or out, when negative). Raises Refusal when more than the free part would leave."""
        balance = self.accounts[account_id].balance(asset)
        if balance.free + atoms < 0:
            raise Refusal(RejectReason.INSUFFICIENT_BALANCE)
        balance.total += atoms
        self.changed.add((account_id, asset))

    def locked_by(self, key: LockKey) -> int:
        held = self._locks.get(key)
        return held[2] if held else 0

    def require_free(self, account_id: str, asset: str, atoms: int) -> None:
        if self.accounts[account_id].balance(asset).free < atoms:
            raise Refusal(RejectReason.INSUFFICIENT_BALANCE)

    def lock(self, key: LockKey, account_id: str, asset: str, atoms: int) -> None:
        """Make the reservation of `key` exactly `atoms` of `asset` (0 releases it)."""
        held = self._locks.get(key)
        if held is not None:
            old_account, old_asset, old_atoms = held
            if (old_asset, old_atoms) == (asset, atoms):
                return
            self.accounts[old_account].balance(old_asset).locked -= old_atoms
            self.changed.add((old_account, old_asset))
            del self._locks[key]
        if atoms:
            balance = self.accounts[account_id].balance(asset)
            if balance.free < atoms:
                raise AssertionError(f"{account_id} would lock {atoms} {asset} atoms of {balance.free} free")
            balance.locked += atoms
            self._locks[key] = (account_id, asset, atoms)
            self.changed.add((account_id, asset))

    def release(self, key: LockKey) -> None:
        """Drop the reservation of `key`, if there is one."""
        held = self._locks.pop(key, None)
        if held is not None:
            account_id, asset, atoms = held
            self.accounts[account_id].balance(asset).locked -= atoms
            self.changed.add((account_id, asset))

    def trade(
        self,
        account_id: str,
        rules: SymbolRules,
        side: OrderSide,
        base_atoms: int,
        quote_atoms: int,
        *,
        maker: bool,
        discounted: int | None = None,
    ) -> tuple[int, str]:
        """Book one trade. Returns (commission atoms, its asset).

        The commission comes out of the received asset, unless `discounted` says what it is in the account's fee asset
        and that much of it is free, or is what was received. The caller releases or shrinks the order's reservation
        afterwards, so for an instant `free` may be below what the reservation says; totals never go negative.
        """
        account = self.accounts[account_id]
        fee_ppm = fee_ppm_of(rules, account, maker=maker)
        paid, received = (rules.quote, rules.base) if side is OrderSide.BUY else (rules.base, rules.quote)
        given, taken = (quote_atoms, base_atoms) if side is OrderSide.BUY else (base_atoms, quote_atoms)
        commission, asset = commission_of(taken, fee_ppm), received
        if discounted is not None and (
            account.fee_asset == received or account.balance(account.fee_asset).free >= discounted
        ):
            commission, asset = discounted, account.fee_asset
        account.balance(paid).total -= given
        account.balance(received).total += taken
        account.balance(asset).total -= commission
        self.fees_collected[asset] = self.fees_collected.get(asset, 0) + commission
        self.changed.update((account_id, each) for each in (paid, received, asset))
        return commission, asset


def discounted_fee(
    account: Account,
    rules: SymbolRules,
    side: OrderSide,
    base_atoms: int,
    quote_atoms: int,
    pair: SymbolRules | None,
    pair_ticks: int | None,
    *,
    maker: bool,
) -> int | None:
    """A trade's commission in the account's fee asset, at the last price of that asset's market with the quote.

    None where it cannot be told, or where the asset is what the trade pays with: then it comes out of what is received.
    """
    asset, is_buy = account.fee_asset, side is OrderSide.BUY
    fee_ppm = fee_ppm_of(rules, account, maker=maker)
    if asset == rules.quote:
        return None if is_buy else commission_of(quote_atoms, fee_ppm) * FEE_DISCOUNT_PPM // PPM
    if asset == rules.base and is_buy:
        return commission_of(base_atoms, fee_ppm) * FEE_DISCOUNT_PPM // PPM
    if pair is None or not pair_ticks:
        return None
    worth = commission_of(quote_atoms, fee_ppm) * FEE_DISCOUNT_PPM // PPM
    return worth * pair.base_atoms_per_lot // (pair_ticks * pair.quote_atoms_per_ticklot)
