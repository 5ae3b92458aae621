"""What a market accepts: units, limits and the filters every order must pass; the edge where `Decimal` turns to
integers.

The filters are those of Binance spot (PRICE_FILTER, PERCENT_PRICE_BY_SIDE, LOT_SIZE, MARKET_LOT_SIZE, NOTIONAL),
because every client of that dialect computes with them; other venues' rules map onto them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tradewind.core.matching_types import (
    Account,
    NewOrder,
    OrderKind,
    OrderSide,
    Refusal,
    RejectReason,
)

Ratio = tuple[int, int]
ATOM_DECIMALS: Final = 8
"""Money is counted in 10⁻⁸ of an asset, the precision spot exchanges publish, where a market needs no finer one."""


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """The rules of one market. Decimals are exact; `*_lots` and `*_ticks` are integers in its units.

    `atom_decimals` says how fine its engine counts money. The fees are parts per million of this market; None stands
    for the account's.

    Raises
    ------
    ValueError
        If one lot, or one tick times one lot, is not a whole number of atoms: amounts could then not be exact. See
        `atom_decimals_of`.
    """

    symbol: str
    base: str
    quote: str
    tick: Decimal
    step: Decimal
    min_lots: int = 1
    max_lots: int = 10**12
    max_market_lots: int = 10**11
    min_ticks: int = 1
    max_ticks: int = 10**11
    min_notional: Decimal = Decimal(5)
    max_notional: Decimal = Decimal(9_000_000)
    bid_multiplier_up: Decimal = Decimal(5)
    bid_multiplier_down: Decimal = Decimal("0.2")
    ask_multiplier_up: Decimal = Decimal(5)
    ask_multiplier_down: Decimal = Decimal("0.2")
    max_orders: int = 200
    max_algo_orders: int = 5
    max_order_lists: int = 20
    max_iceberg_parts: int = 100
    min_trailing_bps: int = 10
    max_trailing_bps: int = 2000
    atom_decimals: int = ATOM_DECIMALS
    maker_fee_ppm: int | None = None
    taker_fee_ppm: int | None = None
    base_atoms_per_lot: int = field(init=False, repr=False, compare=False)
    quote_atoms_per_ticklot: int = field(init=False, repr=False, compare=False)
    min_notional_atoms: int = field(init=False, repr=False, compare=False)
    max_notional_atoms: int = field(init=False, repr=False, compare=False)
    bid_up: Ratio = field(init=False, repr=False, compare=False)
    bid_down: Ratio = field(init=False, repr=False, compare=False)
    ask_up: Ratio = field(init=False, repr=False, compare=False)
    ask_down: Ratio = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        decimals = self.atom_decimals
        for name, exact in (("step", self.step), ("tick × step", self.tick * self.step)):
            units = exact.scaleb(decimals)
            if units != int(units) or units < 1:
                raise ValueError(f"{self.symbol}: {name} must be a whole number of 1e-{decimals}; got {units} of them")
        for name, derived in (
            ("base_atoms_per_lot", atoms(self.step, decimals)),
            ("quote_atoms_per_ticklot", atoms(self.tick * self.step, decimals)),
            ("min_notional_atoms", atoms(self.min_notional, decimals)),
            ("max_notional_atoms", atoms(self.max_notional, decimals)),
            ("bid_up", self.bid_multiplier_up.as_integer_ratio()),
            ("bid_down", self.bid_multiplier_down.as_integer_ratio()),
            ("ask_up", self.ask_multiplier_up.as_integer_ratio()),
            ("ask_down", self.ask_multiplier_down.as_integer_ratio()),
        ):
            object.__setattr__(self, name, derived)  # once here instead of at every order

    def ticks(self, price: Decimal) -> int:
        """The price in ticks. Raises Refusal when it is off the grid."""
        return _whole(price / self.tick, RejectReason.FILTER_PRICE)

    def lots(self, quantity: Decimal, *, market: bool = False) -> int:
        """The quantity in lots. Raises Refusal when it is off the grid."""
        return _whole(
            quantity / self.step, RejectReason.FILTER_MARKET_LOT_SIZE if market else RejectReason.FILTER_LOT_SIZE
        )

    def price(self, ticks: int) -> Decimal:
        return self.tick * ticks

    def quantity(self, lots: int) -> Decimal:
        return self.step * lots


def atom_decimals_of(tick: Decimal, step: Decimal) -> int:
    """How many decimals hold one lot and one tick times one lot of a market exactly, never under the usual eight."""
    exponents = (exact.normalize().as_tuple().exponent for exact in (step, tick * step))
    return max(ATOM_DECIMALS, *(-exponent for exponent in exponents if isinstance(exponent, int)))


def atoms(amount: Decimal, decimals: int = ATOM_DECIMALS) -> int:
    """An amount of any asset in atoms, rounded down."""
    return int(amount.scaleb(decimals))


def amount(atom_count: int, decimals: int = ATOM_DECIMALS) -> Decimal:
    """Atoms as an exact Decimal amount."""
    return Decimal(atom_count).scaleb(-decimals)


def fee_ppm_of(rules: SymbolRules, account: Account, *, maker: bool) -> int:
    """What a trade costs in parts per million: the market's own fee where it has one, else the account's."""
    own = rules.maker_fee_ppm if maker else rules.taker_fee_ppm
    return account.fees_ppm(rules.symbol)[0 if maker else 1] if own is None else own


def check_filters(rules: SymbolRules, order: NewOrder, average_ticks: int) -> None:
    """Raise Refusal for the first filter the order breaks, in the exchange's order.

    `average_ticks` is the weighted average price of the last minutes, which the percentage and notional filters use.
    An order without a quantity (a pending leg sized later, or a market order by quote) skips the quantity filters.
    """
    for ticks in (order.price_ticks, order.stop_ticks):
        if ticks and not rules.min_ticks <= ticks <= rules.max_ticks:
            raise Refusal(RejectReason.FILTER_PRICE)
    if order.kind.has_price:
        if order.side is OrderSide.BUY:
            up, down = rules.bid_up, rules.bid_down
        else:
            up, down = rules.ask_up, rules.ask_down
        # In whole numbers: a multiplier is up[0] / up[1].
        if not average_ticks * down[0] <= order.price_ticks * down[1] or (
            order.price_ticks * up[1] > average_ticks * up[0]
        ):
            raise Refusal(RejectReason.FILTER_PERCENT_PRICE)
    if order.trailing_bps and not rules.min_trailing_bps <= order.trailing_bps <= rules.max_trailing_bps:
        raise Refusal(RejectReason.FILTER_TRAILING_DELTA)
    if order.lots:
        if not rules.min_lots <= order.lots <= rules.max_lots:
            raise Refusal(RejectReason.FILTER_LOT_SIZE)
        if order.kind is OrderKind.MARKET and order.lots > rules.max_market_lots:
            raise Refusal(RejectReason.FILTER_MARKET_LOT_SIZE)
        if order.iceberg_lots:
            if order.iceberg_lots < rules.min_lots:
                raise Refusal(RejectReason.FILTER_LOT_SIZE)
            if -(-order.lots // order.iceberg_lots) > rules.max_iceberg_parts:
                raise Refusal(RejectReason.FILTER_ICEBERG_PARTS)
        reference = order.price_ticks or order.stop_ticks or average_ticks
        notional = reference * order.lots * rules.quote_atoms_per_ticklot
        if notional < rules.min_notional_atoms or (order.kind.has_price and notional > rules.max_notional_atoms):
            raise Refusal(RejectReason.FILTER_NOTIONAL)
    elif order.quote_atoms and order.quote_atoms < rules.min_notional_atoms:
        raise Refusal(RejectReason.FILTER_NOTIONAL)


def _whole(units: Decimal, reason: RejectReason) -> int:
    whole = int(units)
    if whole != units:
        raise Refusal(reason)
    return whole
