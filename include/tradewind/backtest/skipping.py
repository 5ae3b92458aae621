"""How far nothing can happen, and what the account is worth until then: the loops between events, compiled.

The position rule is `core.position_kernels.manage_close`, the one that serves live; what touches an order is told by
`core.matching`'s own bounds. So a bar is passed over only when walking it would change nothing but the best close.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tradewind.core import position_kernels
from tradewind.core.params import StrategyParams
from tradewind.core.position_kernels import manage_close
from tradewind.core.positions import HOLD, Costs, bars_held, sign_of
from tradewind.core.resampling import BASE_MS
from tradewind.core.types import Bars, FloatArray, IntArray, Position

from .compiling import compiled_with
from .ticks import TickColumns

DAY_MS = 86_400_000
NEAR = 1e-9  # floats this near to a limit are left to the exact test


@compiled_with(position_kernels)
def first_event(
    first: int,
    last: int,
    lows: IntArray,
    highs: IntArray,
    closes: FloatArray,
    low_bound: int,
    high_bound: int,
    sign: float,
    entry: float,
    initial_stop: float,
    stop: float,
    best: float,
    atr: float,
    bars_before: int,
    horizon_bars: int,
    break_even_r: float,
    trail_atr: float,
    min_stop_move_atr: float,
    fee_frac: float,
    market_frac: float,
    tick: float,
) -> int:
    """The first row in [first, last) that touches an order or at whose close the rule acts; `last` for none.

    `bars_before` are the closed bars held before `first`. Levels in ticks, other prices in quote.
    """
    for row in range(first, last):
        if lows[row] <= low_bound or highs[row] >= high_bound:
            return row
        action, _, best = manage_close(
            sign, entry, initial_stop, stop, best, closes[row], atr, bars_before + row - first + 1, horizon_bars,
            break_even_r, trail_atr, min_stop_move_atr, fee_frac, market_frac, tick,
        )  # fmt: skip
        if action != HOLD:
            return row
    return last


def next_event(
    position: Position,
    bars: Bars,
    ticks: TickColumns,
    first: int,
    last: int,
    bounds: tuple[int, int],
    params: StrategyParams,
    costs: Costs,
    tick: float,
) -> int:
    """`first_event` for a position of the ledger; rows [first, last) are neighbouring bars, none looked at yet."""
    assert position.entry_price is not None
    best = position.best_close if position.best_close is not None else position.entry_price
    row = first_event(
        first, last, ticks.low, ticks.high, bars.close, bounds[0], bounds[1],
        float(sign_of(position.side)), float(position.entry_price), float(position.initial_stop_price),
        float(position.stop_price), float(best), position.atr_quote,
        bars_held(position, int(bars.open_time_ms[first]), BASE_MS) - 1,
        params.horizon_bars, params.break_even_r, params.trail_atr, params.min_stop_move_atr,
        costs.fee_frac, costs.market_frac, tick,
    )  # fmt: skip
    return int(row)


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def add_worth(
    worth: FloatArray,
    opens: IntArray,
    closes: IntArray,
    row: int,
    quantity: float,
    tick: float,
    half_spread_ppm: int,
) -> None:
    """Add what `quantity` (negative for a short) would bring at the close of each bar from `row` on and at the open
    after it, in turns, to marks that come in such pairs; `opens` and `closes` in ticks."""
    for k in range(len(worth) // 2):
        for place, last in ((2 * k, closes[row + k]), (2 * k + 1, opens[row + k + 1])):
            half = max(1, -(-last * half_spread_ppm // 1_000_000))
            price = max(1, last - half if quantity >= 0 else last + half)
            worth[place] += quantity * price * tick


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def look_through(
    worth: FloatArray,
    first_ms: int,
    day: int,
    day_open: float,
    peak: float,
    max_loss_frac: float,
    max_drawdown_frac: float,
) -> tuple[int, float, int]:
    """(pairs of marks before the first that may breach a limit, the highest mark, where the last day among them opens).

    Marks come in pairs of a close and the open after it, the first bar opening at `first_ms`; the last is −1 when no
    day begins among them.
    """
    highest, begun = -np.inf, -1
    for k in range(len(worth) // 2):
        open_ms = first_ms + (k + 1) * BASE_MS
        high = max(peak, worth[2 * k])
        for place in (2 * k, 2 * k + 1):
            mark = worth[place]
            opens_day = place % 2 == 1 and open_ms // DAY_MS != day
            reference = mark if opens_day else day_open
            high = max(high, mark)
            if (
                mark - reference <= (NEAR - max_loss_frac) * reference
                or mark - high <= (NEAR - max_drawdown_frac) * high
            ):
                return k, highest, begun
        highest = max(highest, worth[2 * k], worth[2 * k + 1])
        peak = high
        if open_ms // DAY_MS != day:
            day, day_open, begun = open_ms // DAY_MS, worth[2 * k + 1], 2 * k + 1
    return len(worth) // 2, highest, begun
