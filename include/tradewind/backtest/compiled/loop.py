"""The loop over the moments, and its one compiled entry.

The order of things is `chain`'s: a bar walks, its close is marked, the next one opens, the position rule of the close
is done at that open, a mark again, the decision. While nothing is held only moments with candidates are visited.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from tradewind.core import gates, matching_arithmetic, position_kernels, risk, sizing
from tradewind.core.matching_arithmetic import half_spread, touch_level
from tradewind.core.matching_types import ATOMS_PER_UNIT
from tradewind.core.position_kernels import manage_close
from tradewind.core.positions import EXIT_TIME, HOLD, MOVE_STOP
from tradewind.core.resampling import BASE_MS

from . import deciding, layout, trading
from .deciding import NEAR, decide
from .layout import (
    MAX_LOTS,
    Account,
    Market,
    Records,
    Stop,
)
from .trading import (
    FULL,
    bid_at,
    enter,
    enter_window,
    leave,
    meet,
    move_stop,
    price_of,
    protect,
    remember_end,
    slot_of,
)

DAY_MS = 86_400_000
DONE, GAP, LIMIT_NEAR, STOP_FAILED = int(Stop.DONE), int(Stop.GAP), int(Stop.LIMIT_NEAR), int(Stop.STOP_FAILED)


def run(market: Market, terms: Records, account: Account, candidates: Records) -> int:
    """Go on from `state.index`, where nothing is held, to the end: DONE, or a Stop with the account as it was at the
    last moment without a position, that moment in `state.index`."""
    state = account.state
    index = state.index
    c = 0
    while c < len(candidates) and candidates[c].index < index:
        c += 1
    while index < len(market.times):
        if state.live == 0:
            if c == len(candidates):
                break
            index = candidates[c].index
            state.visited += 1
            save(account, index)
            stopped = mark_open(market, terms, account, index)
        else:
            until = candidates[c].index if c < len(candidates) else len(market.times)
            quiet = pass_over(market, terms, account, index, until)
            state.visited += 1
            index += quiet
            if quiet > 0:
                continue
            stopped = live_through(market, terms, account, candidates, index)
        end = c
        while end < len(candidates) and candidates[end].index == index:
            end += 1
        if stopped == DONE and end > c:
            stopped = decide_at(market, terms, account, candidates, c, end, index)
        if stopped != DONE:
            give_back(account)
            return stopped
        c = end
        index += 1
    state.index = len(market.times)
    return DONE


def save(account: Account, index: int) -> None:
    """The account at a moment without a position."""
    account.state.index = index
    account.saved[0] = account.state
    for s in range(len(account.books)):
        account.books[s].saved_held = account.books[s].held


def give_back(account: Account) -> None:
    """The account as it was saved; nothing later is drawn."""
    state, saved = account.state, account.saved[0]
    state.cash, state.closed, state.moves, state.serial = saved.cash, saved.closed, saved.moves, saved.serial
    state.ended_first, state.ended_end, state.live = saved.ended_first, saved.ended_end, 0
    state.index, state.visited, state.day = saved.index, saved.visited, saved.day
    state.last_mark, state.peak, state.day_open = saved.last_mark, saved.peak, saved.day_open
    for s in range(len(account.books)):
        account.books[s].held = account.books[s].saved_held
    for index in range(account.state.index, len(account.drawn)):
        account.drawn[index] = np.nan


# --------------------------------------------------------------------------------------------------------------- marks
def worth(market: Market, terms: Records, account: Account) -> float:
    """Capital and cash, and what is held at the bid around the last price, in quote."""
    total = float((terms.capital + account.state.cash) / ATOMS_PER_UNIT)
    for k in range(account.state.live):
        p = account.positions[k]
        symbol = market.symbols[p.symbol]
        total += p.held / ATOMS_PER_UNIT * price_of(symbol, bid_at(terms, account.books[p.symbol].last))
    return total


def mark(terms: Records, account: Account, equity: float) -> int:
    """Keep a mark, and tell whether the breaker may want to act on it."""
    state = account.state
    state.last_mark = equity
    state.peak = max(state.peak, equity)
    return LIMIT_NEAR if is_limit_near(terms, equity, state.day_open, state.peak) else DONE


def is_limit_near(terms: Records, equity: float, day_open: float, peak: float) -> bool:
    """Is a limit of the breaker reached, or nearly?"""
    return bool(
        equity - day_open <= (NEAR - terms.max_daily_loss_frac) * day_open
        or equity - peak <= (NEAR - terms.max_drawdown_frac) * peak
    )


def mark_open(market: Market, terms: Records, account: Account, index: int) -> int:
    """The mark at the open after a bar, which may begin a day."""
    equity = worth(market, terms, account)
    day = (market.times[index] + BASE_MS) // DAY_MS
    if day != account.state.day:
        account.state.day, account.state.day_open = day, equity
    return mark(terms, account, equity)


# ----------------------------------------------------------------------------------------------------------------- bar
def live_through(market: Market, terms: Records, account: Account, candidates: Records, index: int) -> int:
    """One bar with the positions that are open in it, and the open after it where one follows."""
    state, present = account.state, market.present
    follows = market.follows[index]
    for k in range(state.live):
        s = account.positions[k].symbol
        if not present[s, index] or (follows and not present[s, index + 1]):
            return GAP
    open_ms, before = market.times[index], state.closed
    if not market.follows[index - 1]:
        # After a gap nobody has seen this open yet, nor done what was wanted before it.
        stopped = show_open(market, terms, account, index, 0) or act(market, terms, account, open_ms)
        if stopped:
            return stopped
    for n in range(sort_symbols(account)):
        s = account.order[n]
        enter_window(account, terms, s, open_ms, market.open[s, index], market.volume[s, index])
        stopped = meet(
            market, terms, account, slot_of(account, s), market.open[s, index], market.low[s, index],
            market.high[s, index], open_ms + BASE_MS - 1,
        )  # fmt: skip
        if stopped:
            return stopped
        account.books[s].last = market.close[s, index]
    equity = worth(market, terms, account)
    account.drawn[index] = equity
    stopped = mark(terms, account, equity)
    if stopped:
        return stopped
    if follows:
        stopped = show_open(market, terms, account, index + 1, 1)
        if stopped:
            return stopped
    for k in range(state.live):
        manage(market, terms, account, k, index)
    if follows:
        stopped = act(market, terms, account, open_ms + BASE_MS)
        if stopped:
            return stopped
    remember_end(account, candidates, before)
    return mark_open(market, terms, account, index)


def show_open(market: Market, terms: Records, account: Account, index: int, knows_volume: int) -> int:
    """The market shows the open of a bar to whatever rests; it knows the volume of the bar before, if there is one."""
    for n in range(sort_symbols(account)):
        s = account.order[n]
        now, volume = market.open[s, index], market.volume[s, index - 1] if knows_volume else 0
        enter_window(account, terms, s, market.times[index], now, volume)
        stopped = meet(market, terms, account, slot_of(account, s), now, now, now, market.times[index])
        if stopped:
            return stopped
    return DONE


def pass_over(market: Market, terms: Records, account: Account, index: int, until: int) -> int:
    """Live through the bars [index, until) as far as nothing happens in them but marks and new best closes: how many.

    All that they are asked is taken into local names once; `live_through` would look it up at every bar.
    """
    live, last = account.state.live, len(market.times) - 1
    positions, symbols, books = account.positions, market.symbols, account.books
    times, follows, present, drawn, state = market.times, market.follows, market.present, account.drawn, account.state
    opens, highs, lows, closes, quotes = market.open, market.high, market.low, market.close, market.close_quote
    quiets = account.quiets
    if not follows[index - 1]:
        return 0
    for k in range(live):
        quiets[k].low, quiets[k].high = quiet_bounds(market, terms, account, k)
        p, symbol = positions[k], symbols[positions[k].symbol]
        quiets[k].initial_stop, quiets[k].stop = price_of(symbol, p.initial_stop), price_of(symbol, p.stop)
        quiets[k].quantity = p.held / ATOMS_PER_UNIT
    cash = (terms.capital + account.state.cash) / ATOMS_PER_UNIT
    peak, day_open, day = state.peak, state.day_open, account.state.day
    begun = index
    while index < until and index < last and follows[index]:
        at_close, at_open, quiet = cash, cash, True
        for k in range(live):
            p = positions[k]
            s = p.symbol
            now = opens[s, index + 1]
            quiet = (
                present[s, index] and present[s, index + 1]
                and min(lows[s, index], now) > quiets[k].low and max(highs[s, index], now) < quiets[k].high
            )  # fmt: skip
            if not quiet:
                break
            symbol = symbols[s]
            action, _, best = manage_close(
                1.0, p.entry_price, quiets[k].initial_stop, quiets[k].stop, p.best_close, quotes[s, index], p.atr,
                (times[index] - p.bar_ms) // BASE_MS, terms.horizon_bars, terms.break_even_r, terms.trail_atr,
                terms.min_stop_move_atr, symbol.fee_frac, symbol.market_frac, symbol.tick,
            )  # fmt: skip
            if action != HOLD:
                quiet = False
                break
            quiets[k].best_close = best
            at_close += quiets[k].quantity * price_of(symbol, bid_at(terms, closes[s, index]))
            at_open += quiets[k].quantity * price_of(symbol, bid_at(terms, now))
        if not quiet:
            break
        today = (times[index] + BASE_MS) // DAY_MS
        reference = at_open if today != day else day_open
        high = max(peak, at_close)
        top = max(high, at_open)
        if is_limit_near(terms, at_close, day_open, high) or is_limit_near(terms, at_open, reference, top):
            break
        peak, day, day_open = top, today, reference
        drawn[index], state.last_mark = at_close, at_open
        for k in range(live):
            positions[k].best_close = quiets[k].best_close
        index += 1
    state.peak, state.day_open, account.state.day = peak, day_open, day
    if index > begun:
        for k in range(live):
            books[positions[k].symbol].last = opens[positions[k].symbol, index]
    return index - begun


def quiet_bounds(market: Market, terms: Records, account: Account, k: int) -> tuple[int, int]:
    """(low, high) in ticks: a price between them touches no leg of a position, nor where a stop is taken for failed."""
    p = account.positions[k]
    symbol = market.symbols[p.symbol]
    one_r = p.entry_price - price_of(symbol, p.initial_stop)
    failed = int((p.entry_price - min(terms.failed_stop_r, p.entry_price / one_r) * one_r) / symbol.tick)
    # What counts is the bid, half a spread away; two ticks for the rounding.
    low = max(p.stop, failed + half_spread(max(failed, 1), terms.half_spread_ppm, 0) + 2)
    high = 1 << 62
    for j in range(MAX_LOTS):
        lot = account.lots[k, j]
        if lot.lots > 0:
            half = half_spread(lot.target, terms.half_spread_ppm, 0)
            high = min(high, touch_level(lot.target, -1, half, terms.needs_trade_through))
    return low, high


def sort_symbols(account: Account) -> int:
    """The symbols with a position, ascending, into `account.order`: how many."""
    count = 0
    for k in range(account.state.live):
        s, place = account.positions[k].symbol, count
        while place > 0 and account.order[place - 1] > s:
            account.order[place] = account.order[place - 1]
            place -= 1
        account.order[place] = s
        count += 1
    return count


def manage(market: Market, terms: Records, account: Account, k: int, index: int) -> None:
    """The position rule at the close of a bar."""
    p = account.positions[k]
    symbol = market.symbols[p.symbol]
    action, stop, best = manage_close(
        1.0, p.entry_price, price_of(symbol, p.initial_stop), price_of(symbol, p.stop), p.best_close,
        market.close_quote[p.symbol, index], p.atr, (market.times[index] - p.bar_ms) // BASE_MS, terms.horizon_bars,
        terms.break_even_r, terms.trail_atr, terms.min_stop_move_atr, symbol.fee_frac, symbol.market_frac, symbol.tick,
    )  # fmt: skip
    p.best_close = best
    p.wanted_stop = round(stop / symbol.tick) if action == MOVE_STOP else 0
    p.wants_exit = 1 if action == EXIT_TIME else 0


def act(market: Market, terms: Records, account: Account, at_ms: int) -> int:
    """Do at the open what the rules want."""
    k = 0
    while k < account.state.live:
        p = account.positions[k]
        symbol = market.symbols[p.symbol]
        bid = price_of(symbol, bid_at(terms, account.books[p.symbol].last))
        one_r = p.entry_price - price_of(symbol, p.initial_stop)
        if p.entry_price - bid >= terms.failed_stop_r * one_r * (1.0 - NEAR):
            return STOP_FAILED
        live, stopped = account.state.live, DONE
        if p.wants_exit:
            stopped = leave(market, terms, account, k, at_ms)
        elif p.wanted_stop > 0:
            stopped = move_stop(market, terms, account, k, p.wanted_stop, at_ms)
        elif account.lots[k, 0].bare or account.lots[k, 1].bare:
            stopped = protect(market, terms, account, k, at_ms, 0)
        if stopped:
            return stopped
        if account.state.live == live:
            p.wanted_stop = 0
            k += 1
    return DONE


def decide_at(
    market: Market, terms: Records, account: Account, candidates: Records, first: int, end: int, index: int
) -> int:
    """Decide the candidates of a moment, and send the entries of those whose next bar opens now, by symbol."""
    count = decide(market, terms, account, candidates, first, end, index)
    if count < 0:
        return -count
    sent = -1
    for _ in range(count):
        chosen = -1
        for n in range(count):
            s = account.intents[n].symbol
            if s > sent and (chosen < 0 or s < account.intents[chosen].symbol):
                chosen = n
        sent = account.intents[chosen].symbol
        if candidates[account.intents[chosen].candidate].followed == 0:
            continue
        if account.state.live == len(account.positions):
            return FULL
        at_ms = market.times[index] + BASE_MS
        stopped = enter(market, terms, account, candidates, chosen, at_ms, index + 1)
        if stopped:
            return stopped
    return DONE


# ------------------------------------------------------------------------------------------------------------ compiled
@cache
def compiled_run() -> Any:
    """`run`, compiled with all that it calls: half a minute, the first time after one of those files has changed."""
    from tradewind.backtest.compiling import compiled_with

    here = sys.modules[__name__]
    shared = (matching_arithmetic, gates, sizing, risk, position_kernels)
    return compiled_with(layout, trading, deciding, here, *shared)(run)
