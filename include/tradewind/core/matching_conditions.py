"""What an exchange's operator, or its trouble, does to a market while orders rest in it.

One object may be shared by the spot and the futures engine: a symbol that is halted is halted on both sides. Without
any condition the engine behaves as if this did not exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from tradewind.core.matching_types import Order, OrderSide, TimeInForce


class ExpiryReason(StrEnum):
    """Why the exchange itself ended an order, in Binance's words."""

    EXCHANGE_CANCELED = "EXCHANGE_CANCELED"
    OCO_TRIGGER = "OCO_TRIGGER"
    OTO_PHASE_ONE_EXPIRED = "OTO_PHASE_ONE_EXPIRED"
    UNFILLED_IOC_QUANTITY_EXPIRED = "UNFILLED_IOC_QUANTITY_EXPIRED"
    UNFILLED_FOK_ORDER_EXPIRED = "UNFILLED_FOK_ORDER_EXPIRED"
    INSUFFICIENT_LIQUIDITY = "INSUFFICIENT_LIQUIDITY"
    PRICE_RANGE_EXCEEDED = "EXECUTION_RULE_PRICE_RANGE_EXCEEDED"


@dataclass(frozen=True, slots=True)
class PriceRange:
    """Trades are allowed within [average × down, average × up] alone, in parts per million."""

    down_ppm: int
    up_ppm: int


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid coarser than the one that the engine counts in: so many of its ticks, so many of its lots."""

    ticks: int = 1
    lots: int = 1


PLAIN = Grid()


@dataclass(slots=True)
class MarketConditions:
    """By symbol. All empty in ordinary times."""

    halted: set[str] = field(default_factory=set)
    """Nothing trades and nothing new is accepted; what rests can be cancelled."""
    cancel_only: set[str] = field(default_factory=set)
    """Of the halted ones those whose phase allows cancelling alone, which is refused in other words."""
    still: set[str] = field(default_factory=set)
    """Nothing trades although orders are accepted: there is nobody in the book."""
    dry: dict[str, frozenset[OrderSide]] = field(default_factory=dict)
    """The sides of takers that find nobody."""
    grids: dict[str, Grid] = field(default_factory=dict)
    ranges: dict[str, PriceRange] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    """Futures: a conditional order that triggers here is never handed to the matching engine."""

    def stands_still(self, symbol: str) -> bool:
        return symbol in self.halted or symbol in self.still

    def leaves_takers_unfilled(self, symbol: str) -> bool:
        """Whether a market order may be accepted and expire with nothing: the book is there and gives nothing."""
        return symbol in self.dry or symbol in self.ranges

    def within_range(self, symbol: str, average_ticks: int, fills: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The fills, best first, up to the first that the price range forbids."""
        allowed = self.ranges.get(symbol)
        if allowed is None:
            return fills
        low, high = average_ticks * allowed.down_ppm, average_ticks * allowed.up_ppm
        for number, (price, _) in enumerate(fills):
            if not low <= price * 1_000_000 <= high:
                return fills[:number]
        return fills

    def grid(self, symbol: str) -> Grid:
        return self.grids.get(symbol, PLAIN)


def why_unfilled(order: Order, *, is_beyond: bool) -> ExpiryReason:
    """Why what is left of a taker expires; `is_beyond`: the price range forbade more."""
    if is_beyond:
        return ExpiryReason.PRICE_RANGE_EXCEEDED
    if order.kind.has_price and order.time_in_force is TimeInForce.FOK:
        return ExpiryReason.UNFILLED_FOK_ORDER_EXPIRED
    if order.kind.has_price:
        return ExpiryReason.UNFILLED_IOC_QUANTITY_EXPIRED
    return ExpiryReason.INSUFFICIENT_LIQUIDITY
