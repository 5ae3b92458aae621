"""How far nothing can happen to a position: the loop between events, compiled.

The position rule is `core.position_kernels.manage_close`, the one that serves live; what touches an order is told by
`core.matching`'s own bounds. So a bar is passed over only when walking it would change nothing but the best close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from tradewind.core.params import StrategyParams
from tradewind.core.position_kernels import manage_close
from tradewind.core.positions import HOLD, Costs, bars_held, sign_of
from tradewind.core.resampling import BASE_MS
from tradewind.core.types import Bars, FloatArray, Instrument, IntArray, Position


@dataclass(frozen=True, slots=True, eq=False)
class TickColumns:
    """A symbol's prices in ticks, as the matching engine counts them; arrays of the bars' length."""

    open: IntArray
    high: IntArray
    low: IntArray
    close: IntArray
    volume_lots: IntArray

    @classmethod
    def of(cls, bars: Bars, instrument: Instrument) -> TickColumns:
        """Rounded to the nearest tick, half to even; volumes are cut to whole lots."""
        tick, step = float(instrument.tick_size), float(instrument.step_size)
        prices = [np.rint(column / tick).astype(np.int64) for column in (bars.open, bars.high, bars.low, bars.close)]
        return cls(prices[0], prices[1], prices[2], prices[3], (bars.volume / step).astype(np.int64))


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
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
