"""The book an order meets: a ladder of prices around the last price, and the rules by which a bar fills resting orders.

There are no other traders in the simulation. The last price is the market's; the best bid and ask lie `half_spread_ppm`
around it; each further level is `level_step_ppm` away and holds the same quantity, a share of the current bar's volume.
What an account has taken in a bar is gone for that account until the next bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tradewind.core.matching_rules import PPM
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
    return settings.quoted_half_spread_ticks or max(1, -(-last_ticks * settings.half_spread_ppm // PPM))


def best_bid(last_ticks: int, settings: MatchingSettings) -> int:
    return max(1, last_ticks - half_spread_ticks(last_ticks, settings))


def best_ask(last_ticks: int, settings: MatchingSettings) -> int:
    return last_ticks + half_spread_ticks(last_ticks, settings)


def level_lots(volume_lots: int, settings: MatchingSettings) -> int:
    """Quantity on each level of the book, and the makers' allowance, for a bar of this volume. Never below one lot."""
    return max(1, volume_lots * settings.participation_ppm // PPM)


def walk_book(
    last_ticks: int,
    side: OrderSide,
    wanted_lots: int,
    limit_ticks: int,
    per_level_lots: int,
    taken_lots: int,
    settings: MatchingSettings,
) -> list[tuple[int, int]]:
    """What a taker gets: (price in ticks, lots) from the best level outwards.

    `limit_ticks` of 0 means any price. `taken_lots` is what this account already took from this side in this bar.
    """
    step = max(1, -(-last_ticks * settings.level_step_ppm // PPM))
    slip = -(-last_ticks * settings.slippage_ppm // PPM)
    first = best_ask(last_ticks, settings) if side is OrderSide.BUY else best_bid(last_ticks, settings)
    fills: list[tuple[int, int]] = []
    level, used = divmod(taken_lots, per_level_lots)
    remaining = wanted_lots
    while remaining > 0 and level < settings.levels:
        price = first + side * level * step
        if price < 1 or (limit_ticks and side * (price - limit_ticks) > 0):
            break
        paid = max(1, price + side * slip)
        if limit_ticks and side * (paid - limit_ticks) > 0:
            paid = limit_ticks
        lots = min(remaining, per_level_lots - used)
        if fills and fills[-1][0] == paid:
            fills[-1] = (paid, fills[-1][1] + lots)
        else:
            fills.append((paid, lots))
        remaining -= lots
        used = 0
        level += 1
    return fills


def limit_touch_ticks(price_ticks: int, side: OrderSide, settings: MatchingSettings) -> int:
    """The last price at (or beyond) which a resting limit order at `price_ticks` is filled."""
    margin = half_spread_ticks(price_ticks, settings) + (1 if settings.limit_needs_trade_through else 0)
    return price_ticks - side * margin
