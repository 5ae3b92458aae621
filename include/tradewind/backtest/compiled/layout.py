"""What the compiled loop reads and writes: records and columns of plain numbers.

Prices in ticks, quantities in lots or atoms (at most 10⁻⁸ of an asset), money in atoms unless the name says `_quote`;
times in epoch milliseconds; indices count the moments of the timeline.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np

from tradewind.core.types import FloatArray, IntArray

Records = Any  # a numpy record array: numba reads its fields as attributes

MAX_LOTS: Final = 2


class Stop(IntEnum):
    """Why the loop came back."""

    DONE = 0
    GAP = 1  # a symbol with a position has no bar, or none follows
    LIMIT_NEAR = 2  # a mark may breach a limit of the breaker
    STOP_FAILED = 3  # a price may lie where a stop is taken for failed
    PART_FILLED = 4  # the book does not hold all of a market order
    NOT_PLACED = 5  # an exchange's filter may refuse an order, or a leg stands on the wrong side of the price
    RESIDUE = 6  # what is left could be sold
    TOO_CLOSE = 7  # floats cannot tell
    FULL = 8  # no room for another record


SYMBOL: Final = np.dtype(
    [
        ("atoms_per_ticklot", "i8"),
        ("base_per_lot", "i8"),
        ("tick_num", "i8"),  # a price is ticks × num / den
        ("tick_den", "i8"),
        ("tick", "f8"),
        ("step", "f8"),
        ("min_lots", "i8"),
        ("max_lots", "i8"),
        ("min_notional", "i8"),
        ("maker_ppm", "i8"),
        ("taker_ppm", "i8"),
        ("from_proceeds", "i8"),  # 1 where the legs are sized from what the entry brought (OPOCO)
        ("fee_frac", "f8"),
        ("market_frac", "f8"),
    ],
    align=True,
)

CANDIDATE: Final = np.dtype(
    [
        ("index", "i8"),
        ("symbol", "i8"),
        ("row", "i8"),
        ("rank", "i8"),  # of its position's id among all, for trades closed at one moment
        ("followed", "i8"),  # 1 where the symbol's next bar opens as this one closes
        ("close_ticks", "i8"),  # −1 where the close is off the grid
        ("target_num", "i8"),  # the target's distance in R, as a ratio
        ("target_den", "i8"),
        ("close", "f8"),
        ("atr", "f8"),
        ("volume_base", "f8"),
        ("stop_atr", "f8"),
    ],
    align=True,
)

POSITION: Final = np.dtype(
    [
        ("candidate", "i8"),
        ("symbol", "i8"),
        ("bar_ms", "i8"),
        ("entry_ms", "i8"),
        ("entry_lots", "i8"),
        ("entry_atoms", "i8"),
        ("exit_ms", "i8"),
        ("exit_lots", "i8"),
        ("exit_atoms", "i8"),
        ("fees", "i8"),  # in quote
        ("cash", "i8"),
        ("held", "i8"),  # base atoms
        ("initial_stop", "i8"),
        ("stop", "i8"),
        ("target", "i8"),
        ("reason", "i8"),  # index into REASONS
        ("wanted_stop", "i8"),  # what the rule wants at the next open; 0 for nothing
        ("wants_exit", "i8"),
        ("serial", "i8"),
        ("entry_price", "f8"),
        ("best_close", "f8"),
        ("atr", "f8"),
        ("base_fees_quote", "f8"),
    ],
    align=True,
)
REASONS: Final = ("stop", "target", "time_stop", "stop_through")
STOPPED, TARGETED, TIMED_OUT, LEFT = range(4)

LOT: Final = np.dtype(
    [
        ("lots", "i8"),  # what its legs would sell; 0 once it is over
        ("held", "i8"),  # base atoms
        ("target", "i8"),
        ("bare", "i8"),  # 1 where its target was filled in part, which takes the stop away until the next open
        ("made", "i8"),  # lots its target has sold in the window `made_in`
        ("made_in", "i8"),
    ],
    align=True,
)
INTENT: Final = np.dtype(
    [
        ("candidate", "i8"),
        ("symbol", "i8"),
        ("entry", "i8"),
        ("stop", "i8"),
        ("lots_0", "i8"),
        ("lots_1", "i8"),
        ("target_0", "i8"),
        ("target_1", "i8"),
    ],
    align=True,
)
MOVE: Final = np.dtype([("serial", "i8"), ("at_ms", "i8"), ("stop", "i8")], align=True)
ENDED: Final = np.dtype([("at_ms", "i8"), ("rank", "i8"), ("symbol", "i8"), ("lost", "i8")], align=True)


class Market(NamedTuple):
    """Prices by (symbol, index). `first` is the index at which the run begins; what is before it is history."""

    times: IntArray
    follows: Any  # bool: another bar opens as this one closes
    present: Any  # bool, by (symbol, index)
    open: IntArray
    high: IntArray
    low: IntArray
    close: IntArray
    volume: IntArray
    close_quote: FloatArray
    returns: FloatArray  # log return from the bar before, 0 where there is none; by symbol where there are several
    has_return: Any  # 1 where there is one, in bytes
    first: int
    symbols: Records


TERMS: Final = np.dtype(
    [
        ("capital", "i8"),
        ("atoms_per_unit", "i8"),
        ("max_equity_quote", "f8"),
        ("delay_ms", "i8"),
        ("half_spread_ppm", "i8"),
        ("level_step_ppm", "i8"),
        ("slippage_ppm", "i8"),
        ("levels", "i8"),
        ("participation_ppm", "i8"),
        ("needs_trade_through", "i8"),
        ("horizon_bars", "i8"),
        ("break_even_r", "f8"),
        ("trail_atr", "f8"),
        ("min_stop_move_atr", "f8"),
        ("failed_stop_r", "f8"),
        ("entry_through_atr_frac", "f8"),
        ("partial_num", "i8"),
        ("partial_den", "i8"),
        ("partial_target_num", "i8"),
        ("partial_target_den", "i8"),
        ("max_positions", "i8"),
        ("cooldown_bars", "i8"),
        ("max_losses", "i8"),
        ("loss_pause_ms", "i8"),
        ("max_correlation", "f8"),
        ("correlation_bars", "i8"),
        ("fee_frac", "f8"),
        ("market_frac", "f8"),
        ("risk_frac", "f8"),
        ("min_risk_share_frac", "f8"),
        ("max_bar_volume_frac", "f8"),
        ("symbol_frac", "f8"),
        ("total_frac", "f8"),
        ("open_risk_frac", "f8"),
        ("max_daily_loss_frac", "f8"),
        ("max_drawdown_frac", "f8"),
    ],
    align=True,
)
"""The thresholds that the loop asks for, and the market's generosity."""

STATE: Final = np.dtype(
    [
        ("cash", "i8"),
        ("live", "i8"),  # how many positions
        ("closed", "i8"),
        ("moves", "i8"),
        ("ended_first", "i8"),
        ("ended_end", "i8"),
        ("serial", "i8"),
        ("day", "i8"),
        ("index", "i8"),  # where to go on from
        ("visited", "i8"),
        ("last_mark", "f8"),
        ("peak", "f8"),
        ("day_open", "f8"),
    ],
    align=True,
)
BOOK: Final = np.dtype(
    [
        ("held", "i8"),  # atoms, what is left of earlier trades included
        ("saved_held", "i8"),
        ("window", "i8"),  # the bar whose volume bounds the book
        ("level", "i8"),  # lots on each level in it
        ("sold", "i8"),  # lots that were sold into it
        ("last", "i8"),  # the last price
    ],
    align=True,
)
EXPOSURE: Final = np.dtype([("symbol", "i8"), ("notional", "f8"), ("risk", "f8")], align=True)
QUIET: Final = np.dtype(
    [
        ("low", "i8"),  # what a quiet bar stays between
        ("high", "i8"),
        ("initial_stop", "f8"),
        ("stop", "f8"),
        ("quantity", "f8"),
        ("best_close", "f8"),
    ],
    align=True,
)


class Account(NamedTuple):
    """What the loop changes."""

    state: Records  # one record, STATE
    saved: Records  # as it was at the last moment without a position
    positions: Records
    lots: Records  # (position, lot)
    closed: Records
    moves: Records
    ended: Records
    intents: Records
    books: Records  # by symbol
    exposures: Records
    quiets: Records  # by position
    drawn: FloatArray  # equity at each close; NaN where nothing was held
    prices: IntArray  # scratch of the book
    filled: IntArray
    order: IntArray
