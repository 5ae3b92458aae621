"""The position rule and the meeting of a bracket with a bar, compiled: what `core.positions` describes, in floats."""

from __future__ import annotations

import math

from numba import njit

from .positions import EXIT_TIME, HOLD, MOVE_STOP, NOTHING, STOPPED, TARGETED, TIMED_OUT, UNFINISHED
from .types import FloatArray


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def break_even_price(sign: float, entry: float, fee_frac: float, market_frac: float) -> float:
    """The stop price whose market fill returns the entry's cost and both fees. `sign` is +1 long, -1 short."""
    if sign > 0:
        return entry * (1.0 + fee_frac) / ((1.0 - fee_frac) * (1.0 - market_frac))
    return entry * (1.0 - fee_frac) / ((1.0 + fee_frac) * (1.0 + market_frac))


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def manage_close(
    sign: float,
    entry: float,
    initial_stop: float,
    stop: float,
    best_close: float,
    close: float,
    atr: float,
    bars_held: int,
    horizon_bars: int,
    break_even_r: float,
    trail_atr: float,
    min_stop_move_atr: float,
    fee_frac: float,
    market_frac: float,
    tick: float,
) -> tuple[int, float, float]:
    """The position rule at one close: (action, stop, best close); prices in quote, `tick` 0 for no rounding.

    `best_close` is the best close before this one (the entry price at first); `bars_held` counts closed bars since the
    entry, this one included. The returned stop is the resting one unless the action is MOVE_STOP.
    """
    best = close if sign * (close - best_close) > 0 else best_close
    if bars_held >= horizon_bars:
        return EXIT_TIME, stop, best
    r = sign * (entry - initial_stop)
    if sign * (best - entry) < break_even_r * r:
        return HOLD, stop, best
    wanted = break_even_price(sign, entry, fee_frac, market_frac)
    trailed = best - sign * trail_atr * atr
    if sign * (trailed - wanted) > 0:
        wanted = trailed
    if tick > 0:
        # Towards profit, so that a break-even stop really is one; the small term forgives binary noise on exact ticks.
        ticks = wanted / tick
        wanted = (math.ceil(ticks - 1e-6) if sign > 0 else math.floor(ticks + 1e-6)) * tick
    if sign * (wanted - stop) < min_stop_move_atr * atr or sign * (wanted - stop) <= 0:
        return HOLD, stop, best
    if sign * (close - wanted) <= 0:
        return HOLD, stop, best
    return MOVE_STOP, wanted, best


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def meet_bar(sign: float, open_: float, high: float, low: float, stop: float, target: float) -> tuple[int, float]:
    """How a resting stop and target meet one bar: (NOTHING | STOPPED | TARGETED, raw price before market costs).

    A bar that opens at or through the stop fills it at the open. A target is a resting limit: it fills at its own
    price, also when the bar opens beyond it. Otherwise the adverse extreme is taken to come first.
    """
    if sign > 0:
        if open_ <= stop:
            return STOPPED, open_
        if open_ >= target:
            return TARGETED, target
        if low <= stop:
            return STOPPED, stop
        if high >= target:
            return TARGETED, target
    else:
        if open_ >= stop:
            return STOPPED, open_
        if open_ <= target:
            return TARGETED, target
        if high >= stop:
            return STOPPED, stop
        if low <= target:
            return TARGETED, target
    return NOTHING, 0.0


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def unit_result(
    sign: float, entry: float, exit_price: float, at_market: bool, fee_frac: float, market_frac: float
) -> float:
    """Net quote won by one unit of base: `entry` is what was paid, market costs included; fees on both sides."""
    if at_market:
        exit_price = exit_price * (1.0 - sign * market_frac)
    return sign * (exit_price - entry) - fee_frac * (exit_price + entry)


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def walk_bracket(
    sign: float,
    start: int,
    opens: FloatArray,
    highs: FloatArray,
    lows: FloatArray,
    closes: FloatArray,
    atr: float,
    stop_atr: float,
    target_r: float,
    partial_r: float,
    partial_frac: float,
    horizon_bars: int,
    break_even_r: float,
    trail_atr: float,
    min_stop_move_atr: float,
    fee_frac: float,
    market_frac: float,
) -> tuple[int, int, float]:
    """One bracket's whole life from the open of bar `start`: (last event, its bar index, net result in R).

    The entry pays the market cost, stop and targets are measured from it. `partial_frac` of the quantity has its target
    at `partial_r` (0 for one lot); the rest at `target_r`. The last event is STOPPED, TARGETED, TIMED_OUT (out at the
    horizon bar's close) or UNFINISHED (bars ran out; the result marks the rest at the last close and must not be used
    as a label). R is the distance from entry to the first stop. Arrays are aligned, float64, without NaN.
    """
    entry = opens[start] * (1.0 + sign * market_frac)
    initial_stop = entry - sign * stop_atr * atr
    r = stop_atr * atr
    stop = initial_stop
    target = entry + sign * target_r * r
    partial = entry + sign * partial_r * r
    partial_open = 0.0 < partial_frac < 1.0
    rest = 1.0
    best = entry
    # Up to here the best close moves no stop; a hair less, so that rounding never skips a bar that counts.
    reach = entry + sign * break_even_r * r * (1.0 - 1e-9)
    net = 0.0
    i = start - 1
    while i + 1 < len(opens):
        i += 1
        if sign * (best - reach) < 0:
            # Most bars touch no level and stay short of break-even: nothing happens in them.
            nearest = partial if partial_open and sign * (target - partial) > 0 else target
            ahead = nearest if sign * (reach - nearest) > 0 else reach
            floor, ceiling = (stop, ahead) if sign > 0 else (ahead, stop)
            unmoved = min(len(opens), start + horizon_bars - 1)
            while i < unmoved and lows[i] > floor and highs[i] < ceiling:
                i += 1
            if i == len(opens):
                break
        if partial_open:
            event, price = meet_bar(sign, opens[i], highs[i], lows[i], stop, partial)
            if event == TARGETED:
                net += partial_frac * unit_result(sign, entry, price, False, fee_frac, market_frac)
                rest -= partial_frac
                partial_open = False
        event, price = meet_bar(sign, opens[i], highs[i], lows[i], stop, target)
        if event != NOTHING:
            net += rest * unit_result(sign, entry, price, event == STOPPED, fee_frac, market_frac)
            return event, i, net / r
        action, stop, best = manage_close(
            sign,
            entry,
            initial_stop,
            stop,
            best,
            closes[i],
            atr,
            i - start + 1,
            horizon_bars,
            break_even_r,
            trail_atr,
            min_stop_move_atr,
            fee_frac,
            market_frac,
            0.0,
        )
        if action == EXIT_TIME:
            net += rest * unit_result(sign, entry, closes[i], True, fee_frac, market_frac)
            return TIMED_OUT, i, net / r
    last = len(opens) - 1
    net += rest * unit_result(sign, entry, closes[last], True, fee_frac, market_frac)
    return UNFINISHED, last, net / r
