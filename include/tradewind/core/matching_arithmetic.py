"""The whole numbers of matching: prices in ticks, quantities in lots, money in atoms; plain functions of integers.

The engine calls them as they are, for any size of number; the replay compiles these same functions for 64 bits.
"""

from __future__ import annotations

from typing import Any, Final

PPM: Final = 1_000_000


def half_spread(last_ticks: int, half_spread_ppm: int, quoted_ticks: int) -> int:
    """Distance from the last price to the best bid and to the best ask: the quoted one, else a share, at least 1."""
    if quoted_ticks > 0:
        return quoted_ticks
    return max(1, -(-last_ticks * half_spread_ppm // PPM))


def bid_below(last_ticks: int, half_ticks: int) -> int:
    """The best bid, never below one tick."""
    return max(1, last_ticks - half_ticks)


def share_of_volume(volume_lots: int, participation_ppm: int) -> int:
    """What of a bar's volume rests on each level of the book; never below one lot."""
    return max(1, volume_lots * participation_ppm // PPM)


def touch_level(price_ticks: int, side: int, half_ticks: int, needs_trade_through: bool) -> int:
    """The last price at (or beyond) which a resting limit order is filled. `side` is +1 for a buy, −1 for a sell."""
    return price_ticks - side * (half_ticks + (1 if needs_trade_through else 0))


def commission(traded_atoms: int, fee_ppm: int) -> int:
    """The fee on an amount, rounded down. In two parts, so that no product is larger than it must be."""
    return traded_atoms // PPM * fee_ppm + traded_atoms % PPM * fee_ppm // PPM


def walk_levels(
    last_ticks: int,
    side: int,
    wanted_lots: int,
    limit_ticks: int,
    per_level_lots: int,
    taken_lots: int,
    half_ticks: int,
    level_step_ppm: int,
    slippage_ppm: int,
    levels: int,
    prices: Any,
    lots: Any,
) -> int:
    """What a taker gets from the best level outwards, written into `prices` and `lots` (lists or arrays of
    `levels` integers): how many fills.

    `limit_ticks` of 0 means any price. `taken_lots` is what the account already took from this side in this bar.
    """
    step = max(1, -(-last_ticks * level_step_ppm // PPM))
    slip = -(-last_ticks * slippage_ppm // PPM)
    first = last_ticks + half_ticks if side > 0 else bid_below(last_ticks, half_ticks)
    level = taken_lots // per_level_lots
    used = taken_lots % per_level_lots
    remaining, count = wanted_lots, 0
    while remaining > 0 and level < levels:
        price = first + side * level * step
        if price < 1 or (limit_ticks > 0 and side * (price - limit_ticks) > 0):
            break
        paid = max(1, price + side * slip)
        if limit_ticks > 0 and side * (paid - limit_ticks) > 0:
            paid = limit_ticks
        got = min(remaining, per_level_lots - used)
        if count > 0 and prices[count - 1] == paid:
            lots[count - 1] += got
        else:
            prices[count], lots[count] = paid, got
            count += 1
        remaining -= got
        used = 0
        level += 1
    return count
