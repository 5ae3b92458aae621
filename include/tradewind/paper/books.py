"""Books that are no prices: empty, one-sided, crossed or jumped, as exchanges show them now and then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tradewind.core.matching_types import OrderSide

Levels = list[tuple[int, int]]
"""(price in ticks, lots), best first."""


class Shape(StrEnum):
    """How a book is bent. An empty side answers "0.00000000" in the tickers, as Binance does."""

    EMPTY = "empty"
    ZERO = "zero"
    """Empty, and the last price is zero as well."""
    NO_BIDS = "no_bids"
    NO_ASKS = "no_asks"
    CROSSED = "crossed"
    JUMPED = "jumped"
    """Every price is another by a factor."""


LASTING = (Shape.EMPTY, Shape.ZERO, Shape.NO_BIDS, Shape.NO_ASKS, Shape.CROSSED)
"""What a book can be for longer than one answer. Orders meet what is really there: a crossed book is a wrong answer."""
STILL = (Shape.EMPTY, Shape.ZERO)
_SERVED: Mapping[Shape, frozenset[OrderSide]] = {
    Shape.EMPTY: frozenset(),
    Shape.ZERO: frozenset(),
    Shape.NO_BIDS: frozenset({OrderSide.BUY}),
    Shape.NO_ASKS: frozenset({OrderSide.SELL}),
}


@dataclass(frozen=True, slots=True)
class Bent:
    """A shape, and the factor of a jump."""

    shape: Shape
    factor: float = 1.0

    def book(self, bids: Levels, asks: Levels) -> tuple[Levels, Levels]:
        """The levels as they are answered; a side may be empty."""
        if self.shape is Shape.CROSSED:
            return asks, bids
        if self.shape is Shape.JUMPED:
            return [(self.price(p), n) for p, n in bids], [(self.price(p), n) for p, n in asks]
        served = _SERVED[self.shape]
        return (bids if OrderSide.SELL in served else []), (asks if OrderSide.BUY in served else [])

    def price(self, ticks: int) -> int:
        """The last price as it is answered."""
        if self.shape is Shape.ZERO:
            return 0
        return max(1, round(ticks * self.factor)) if self.shape is Shape.JUMPED else ticks


def dry_sides(shape: Shape) -> frozenset[OrderSide]:
    """The takers that find nobody in a book of this shape."""
    return frozenset(OrderSide) - _SERVED.get(shape, frozenset(OrderSide))
