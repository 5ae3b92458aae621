"""The one position rule, and how a resting bracket meets a bar: the same scalar kernels serve live, labels and replay.

::

    entry ──► stop at −1R ──(a close at +1R)──► break-even with costs ──(each new best close)──► trailing by ATR
       │                                                                                            │
       ├── target touched ──► closed                             stop touched ──► closed ◄──────────┘
       └── horizon reached ──► ExitNow("time")

Rules, evaluated once per closed 15m bar:

* R is the price distance from the entry's average fill to the stop it was opened with; costs are not part of R.
* Once the best close since entry is at +1R (`break_even_r`), the stop belongs at the price where its fill pays back the
  entry and every cost; from there it trails `trail_atr` ATR behind the best close. The ATR is the decision's, so that
  the rule needs nothing but the close.
* The stop moves only towards profit, only by at least `min_stop_move_atr` ATR, and never onto or through the close.
* A stop moved at a close acts from the next bar. After `horizon_bars` closed bars the position is exited at market.

Inside a bar the open comes first, then the adverse extreme, then the favourable one: a stop and a target that both lie
inside one bar count as the stop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from numba import njit

from .params import StrategyParams
from .types import FloatArray, Position, Side

HOLD: Final = 0
MOVE_STOP: Final = 1
EXIT_TIME: Final = 2

NOTHING: Final = 0
STOPPED: Final = 1
TARGETED: Final = 2
TIMED_OUT: Final = 3  # walk_bracket only: the horizon came first
UNFINISHED: Final = 4  # walk_bracket only: the bars ended before anything happened

TIME_STOP: Final = "time_stop"
FAILED_STOP: Final = "failed_stop"


@dataclass(frozen=True, slots=True)
class Costs:
    """What a fill costs beside its price, as fractions: the fee of one side, and what a market order gives away."""

    fee_frac: float
    market_frac: float  # half the spread plus slippage

    @classmethod
    def of(cls, params: StrategyParams, fee_frac: float | None = None) -> Costs:
        """From the strategy's assumptions; `fee_frac` (an instrument's taker fee) replaces the assumed fee."""
        market_frac = (params.spread_bps / 2 + params.slippage_bps) / 10_000
        return cls(params.fee_frac if fee_frac is None else fee_frac, market_frac)


@dataclass(frozen=True, slots=True)
class Hold:
    """Leave everything as it rests."""

    best_close: Decimal


@dataclass(frozen=True, slots=True)
class MoveStop:
    """Replace the resting stop by one at `price` (on the tick); it acts from the next bar."""

    price: Decimal
    best_close: Decimal


@dataclass(frozen=True, slots=True)
class ExitNow:
    """Leave at market, for `reason`."""

    reason: str
    best_close: Decimal


PositionAction = Hold | MoveStop | ExitNow


# ------------------------------------------------------------------------------------------------------------- kernels
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
    net = 0.0
    for i in range(start, len(opens)):
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


# ------------------------------------------------------------------------------------------------------- order's edge
def sign_of(side: Side) -> int:
    """+1 for long, -1 for short."""
    return 1 if side is Side.LONG else -1


def round_to_tick(price: Decimal, tick_size: Decimal, *, up: bool) -> Decimal:
    """The nearest multiple of the tick at or above (`up`) or at or below `price`, exact."""
    return (price / tick_size).to_integral_value(ROUND_CEILING if up else ROUND_FLOOR) * tick_size


def manage_on_close(
    position: Position, bar_close: Decimal, bars_held: int, params: StrategyParams, costs: Costs, tick_size: Decimal
) -> PositionAction:
    """The position rule for one open position at one closed bar.

    `bars_held` counts the closed 15m bars since the entry, this one included. Raises ValueError for a position without
    an entry price: rules begin with the first fill.
    """
    if position.entry_price is None:
        raise ValueError(f"position {position.position_id} has no fill yet: nothing to manage")
    best = position.best_close if position.best_close is not None else position.entry_price
    action, stop, new_best = manage_close(
        float(sign_of(position.side)),
        float(position.entry_price),
        float(position.initial_stop_price),
        float(position.stop_price),
        float(best),
        float(bar_close),
        position.atr_quote,
        bars_held,
        params.horizon_bars,
        params.break_even_r,
        params.trail_atr,
        params.min_stop_move_atr,
        costs.fee_frac,
        costs.market_frac,
        float(tick_size),
    )
    # The kernel only chooses between the two: the exact Decimal is kept.
    best_close = bar_close if new_best != float(best) else best
    if action == EXIT_TIME:
        return ExitNow(TIME_STOP, best_close)
    if action == MOVE_STOP:
        return MoveStop(Decimal(round(stop / float(tick_size))) * tick_size, best_close)
    return Hold(best_close)


def bars_held(position: Position, bar_open_ms: int, bar_ms: int) -> int:
    """Closed bars from the entry's bar (the one after the decision's) to the bar opened at `bar_open_ms`, inclusive.

    Counted by time, so that a missing bar still ages the position.
    """
    return (bar_open_ms - round(position.bar.timestamp() * 1000)) // bar_ms


def r_distance(position: Position) -> Decimal | None:
    """One R in quote per unit of base; None before the first fill."""
    if position.entry_price is None:
        return None
    return abs(position.entry_price - position.initial_stop_price)


def stop_failed(position: Position, bid: Decimal, params: StrategyParams) -> bool:
    """True when the price is `failed_stop_r` R against the entry: the resting stop did not do its work.

    `bid` is the price the position would leave at (the ask for a short).
    """
    distance = r_distance(position)
    if position.entry_price is None or distance is None or distance == 0:
        return False
    lost = (position.entry_price - bid) * sign_of(position.side)
    return lost >= Decimal(str(params.failed_stop_r)) * distance
