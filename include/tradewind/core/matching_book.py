"""The book an order meets: a ladder of prices around the last price, and the rules by which a bar fills resting orders.

There are no other traders in the simulation. The last price is the market's; the best bid and ask lie `half_spread_ppm`
around it; each further level is `level_step_ppm` away and holds the same quantity, a share of the current bar's volume.
What an account has taken in a bar is gone for that account until the next bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tradewind.core.matching_arithmetic import bid_below, half_spread, share_of_volume, touch_level, walk_levels
from tradewind.core.matching_types import OrderSide


class BarPath(StrEnum):
    """The declared route of the price inside a bar.

    ADVERSE_FIRST visits the extreme that hurts the account first: the low when it holds or is about to hold the base
    asset, the high when it waits to buy back.
    """

    ADVERSE_FIRST = "adverse_first"
    LOW_FIRST = "low_first"
    HIGH_FIRST = "high_first"


@dataclass(frozen=True, slots=True)
class MatchingSettings:
    """How generous the simulated market is. Parts per million of the price, unless said otherwise."""

    half_spread_ppm: int = 50
    level_step_ppm: int = 100
    slippage_ppm: int = 100
    """What a taker pays beyond the level it takes, never past its own limit price."""
    levels: int = 20
    participation_ppm: int = 100_000
    """The share of a bar's volume that rests on each level of the book and that makers can be filled with, in ppm."""
    limit_needs_trade_through: bool = True
    """A resting limit order fills only when the opposite best price goes through it, not when it merely touches."""
    path: BarPath = BarPath.ADVERSE_FIRST
    quoted_half_spread_ticks: int = 0
    """The observed distance of the best prices, for a market whose book is known; 0 takes `half_spread_ppm`."""


@dataclass(frozen=True, slots=True)
class BarTicks:
    """One bar of the market in ticks and lots."""

    open: int
    high: int
    low: int
    close: int
    volume_lots: int


def half_spread_ticks(last_ticks: int, settings: MatchingSettings) -> int:
    """Distance from the last price to the best bid and to the best ask, at least one tick."""
    return half_spread(last_ticks, settings.half_spread_ppm, settings.quoted_half_spread_ticks)


def best_bid(last_ticks: int, settings: MatchingSettings) -> int:
    return bid_below(last_ticks, half_spread_ticks(last_ticks, settings))


def best_ask(last_ticks: int, settings: MatchingSettings) -> int:
    return last_ticks + half_spread_ticks(last_ticks, settings)


def level_lots(volume_lots: int, settings: MatchingSettings) -> int:
    """Quantity on each level of the book, and the makers' allowance, for a bar of this volume. Never below one lot."""
    return share_of_volume(volume_lots, settings.participation_ppm)


def walk_book(
    last_ticks: int,
    side: OrderSide,
    wanted_lots: int,
    limit_ticks: int,
    per_level_lots: int,
    taken_lots: int,
    settings: MatchingSettings,
) -> list[tuple[int, int]]:
    """What a taker gets: (price in ticks, lots) from the best level outwards, as `walk_levels` says."""
    prices, lots = [0] * settings.levels, [0] * settings.levels
    count = walk_levels(
        last_ticks, int(side), wanted_lots, limit_ticks, per_level_lots, taken_lots,
        half_spread_ticks(last_ticks, settings), settings.level_step_ppm, settings.slippage_ppm, settings.levels,
        prices, lots,
    )  # fmt: skip
    return list(zip(prices[:count], lots[:count], strict=True))


def limit_touch_ticks(price_ticks: int, side: OrderSide, settings: MatchingSettings) -> int:
    """The last price at (or beyond) which a resting limit order at `price_ticks` is filled."""
    half = half_spread_ticks(price_ticks, settings)
    return touch_level(price_ticks, int(side), half, settings.limit_needs_trade_through)
