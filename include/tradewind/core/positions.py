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

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache
from typing import Final

from .params import PositionRules, StrategyParams
from .types import Position, Side

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
    def of(cls, params: StrategyParams | PositionRules, fee_frac: float | None = None) -> Costs:
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


# ------------------------------------------------------------------------------------------------------- order's edge
def sign_of(side: Side) -> int:
    """+1 for long, -1 for short."""
    return 1 if side is Side.LONG else -1


def round_to_tick(price: Decimal, tick_size: Decimal, *, up: bool) -> Decimal:
    """The nearest multiple of the tick at or above (`up`) or at or below `price`, exact."""
    return (price / tick_size).to_integral_value(ROUND_CEILING if up else ROUND_FLOOR) * tick_size


def manage_on_close(
    position: Position, bar_close: Decimal, bars_held: int, rules: PositionRules, costs: Costs, tick_size: Decimal
) -> PositionAction:
    """The position rule for one open position at one closed bar; `rules` are those that it was opened with.

    `bars_held` counts the closed 15m bars since the entry, this one included. Raises ValueError for a position without
    an entry price: rules begin with the first fill.
    """
    # Compiled code takes 40 MB, which who only reads the ledger (status app, risk watch) need not carry.
    from .position_kernels import manage_close

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
        rules.horizon_bars,
        rules.break_even_r,
        rules.trail_atr,
        rules.min_stop_move_atr,
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


@lru_cache(maxsize=16, typed=True)
def _exact(threshold: float) -> Decimal:
    return Decimal(repr(threshold))


def stop_failed(position: Position, bid: Decimal, rules: PositionRules) -> bool:
    """True when the price is `failed_stop_r` R against the entry: the resting stop did not do its work.

    `bid` is the price the position would leave at (the ask for a short).
    """
    distance = r_distance(position)
    if position.entry_price is None or distance is None or distance == 0:
        return False
    lost = (position.entry_price - bid) * sign_of(position.side)
    return lost >= _exact(rules.failed_stop_r) * distance
