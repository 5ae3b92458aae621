"""Triple-barrier labels on the bracket's own geometry, and what the position rules would have made of each entry.

Seen from the close of bar t: entry at the open of the next bar, R = stop_atr × ATR(14) of the last 1h bar known at t,
stop at −1R, target at +target_r R, for both sides, horizon in bars. The class says which side's target was touched
before its stop; inside a bar the stop comes first. `net_r` is another thing: the result after costs of the real
position rules (`core.position_kernels.walk_bracket`: partial target, break-even, trailing, time stop), per side.

A label exists only where everything was seen: a bar missing before the outcome, or an unfinished horizon, leaves none.
Reference: López de Prado, Advances in Financial Machine Learning (2018), chapters 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit

from .market_numbers import atr_1h
from .params import StrategyParams
from .position_kernels import meet_bar, walk_bracket
from .positions import NOTHING, TARGETED, UNFINISHED, Costs
from .regime import FAMILIES
from .resampling import BASE_MS
from .types import Bars, FloatArray, IntArray

LONG_WINS: Final = 0
SHORT_WINS: Final = 1
NEITHER: Final = 2
NO_LABEL: Final = -1
CLASS_NAMES: Final[tuple[str, ...]] = ("long_wins", "short_wins", "neither")


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """One row a bar. Where `label` is `NO_LABEL` the other columns mean nothing (t1 −1, net_r NaN)."""

    open_time_ms: IntArray
    label: IntArray
    t1_ms: IntArray  # close of the bar at which class and both results were settled
    net_r_long: FloatArray
    net_r_short: FloatArray


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _touches(
    opens: FloatArray,
    highs: FloatArray,
    lows: FloatArray,
    start: int,
    last: int,
    horizon: int,
    r: float,
    target_r: float,
) -> tuple[int, int]:
    """(Row at which both sides are settled, class) of brackets entered at the open of `start`; (−1, 2) if never seen.

    Nothing moves here: stops lie at one R, targets at `target_r` (at least one) of the open itself.
    """
    entry = opens[start]
    end = start + horizon - 1
    long_row = -1
    short_row = -1
    winner = 2
    for i in range(start, min(end, last) + 1):
        # No stop lies farther than the other side's target, so this bar touches neither bracket.
        if lows[i] > entry - r and highs[i] < entry + r:
            continue
        if long_row < 0:
            event, _ = meet_bar(1.0, opens[i], highs[i], lows[i], entry - r, entry + target_r * r)
            if event != NOTHING:
                long_row = i
                if event == TARGETED:
                    winner = 0
        if short_row < 0:
            event, _ = meet_bar(-1.0, opens[i], highs[i], lows[i], entry + r, entry - target_r * r)
            if event != NOTHING:
                short_row = i
                if event == TARGETED:
                    winner = 1
        if long_row >= 0 and short_row >= 0:
            return max(long_row, short_row), winner
    return (end, winner) if end <= last else (-1, 2)


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _barriers(
    opens: FloatArray,
    highs: FloatArray,
    lows: FloatArray,
    closes: FloatArray,
    last_contiguous: IntArray,
    atr: FloatArray,
    family: IntArray,
    stop_atr: FloatArray,
    target_r: FloatArray,
    partial_r: float,
    partial_frac: float,
    horizon: int,
    break_even_r: float,
    trail_atr: float,
    min_stop_move_atr: float,
    fee_frac: float,
    market_frac: float,
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    n = len(opens)
    label = np.full(n, -1, dtype=np.int64)
    end = np.full(n, -1, dtype=np.int64)
    net_long = np.full(n, np.nan)
    net_short = np.full(n, np.nan)
    for t in range(n - 1):
        kind = family[t]
        if kind < 0 or not atr[t] > 0:
            continue
        start = t + 1
        last = last_contiguous[t]
        if last < start:
            continue
        settled, winner = _touches(opens, highs, lows, start, last, horizon, stop_atr[kind] * atr[t], target_r[kind])
        complete = settled >= 0
        for side in range(2):
            if not complete:
                break
            sign = 1.0 - 2.0 * side
            event, stop_at, net = walk_bracket(
                sign,
                start,
                opens,
                highs,
                lows,
                closes,
                atr[t],
                stop_atr[kind],
                target_r[kind],
                partial_r,
                partial_frac,
                horizon,
                break_even_r,
                trail_atr,
                min_stop_move_atr,
                fee_frac,
                market_frac,
            )
            if event == UNFINISHED or stop_at > last:
                complete = False
                break
            settled = max(settled, stop_at)
            if side == 0:
                net_long[t] = net
            else:
                net_short[t] = net
        if complete:
            label[t] = winner
            end[t] = settled
        else:
            net_long[t] = np.nan
    return label, end, net_long, net_short


def label_bars(bars_15m: Bars, families: IntArray, params: StrategyParams) -> Labels:
    """Label each bar by the bracket of its regime family (`regime.family_codes`); bars without a family get none.

    Linear in the number of bars: each looks at most `horizon_bars` ahead.
    """
    times = bars_15m.open_time_ms
    n = len(times)
    costs = Costs.of(params)
    geometries = [params.geometry(family) for family in FAMILIES]
    label, end, net_long, net_short = _barriers(
        *(np.ascontiguousarray(column) for column in (bars_15m.open, bars_15m.high, bars_15m.low, bars_15m.close)),
        _last_contiguous(times),
        atr_1h(bars_15m, params.atr_period_1h_bars),
        families,
        np.array([geometry.stop_atr for geometry in geometries]),
        np.array([geometry.target_r for geometry in geometries]),
        params.partial_target_r,
        params.partial_frac,
        params.horizon_bars,
        params.break_even_r,
        params.trail_atr,
        params.min_stop_move_atr,
        costs.fee_frac,
        costs.market_frac,
    )
    t1_ms = np.where(end >= 0, times[np.maximum(end, 0)] + BASE_MS, -1) if n else np.empty(0, dtype=np.int64)
    return Labels(times, label, t1_ms, net_long, net_short)


def _last_contiguous(times: IntArray) -> IntArray:
    """For each bar the row of the last bar reached from it without a missing one."""
    n = len(times)
    breaks = np.flatnonzero(np.diff(times) != BASE_MS)
    ends = np.append(breaks, n - 1)
    last: IntArray = ends[np.searchsorted(ends, np.arange(n))]
    return last


def average_uniqueness(open_time_ms: IntArray, t1_ms: IntArray) -> FloatArray:
    """How much of each label's span is its own: the mean of 1 / (labels alive) over its bars, 0..1.

    One symbol's labels only, ascending. Linear: concurrency from a difference array, means from its prefix sums.
    """
    if len(open_time_ms) == 0:
        return np.empty(0)
    origin = int(open_time_ms[0])
    first = (open_time_ms - origin) // BASE_MS + 1  # a label lives on the bars after its own
    last = (t1_ms - origin) // BASE_MS - 1
    alive = np.zeros(int(last.max()) + 2)
    np.add.at(alive, first, 1.0)
    np.add.at(alive, last + 1, -1.0)
    concurrent = np.cumsum(alive)
    each = np.divide(1.0, concurrent, out=np.zeros_like(concurrent), where=concurrent > 0.5)
    shares = np.concatenate(([0.0], np.cumsum(each)))
    spans: FloatArray = (shares[last + 1] - shares[first]) / (last - first + 1)
    return spans
