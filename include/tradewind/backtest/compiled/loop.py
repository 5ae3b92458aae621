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
from tradewind.core.position_kernels import manage_close
from tradewind.core.positions import EXIT_TIME, MOVE_STOP
from tradewind.core.resampling import BASE_MS

from . import deciding, entering, layout, marks, quiet, trading
from .deciding import decide
from .entering import enter
from .layout import Account, Market, Records, Stop
from .marks import NEAR, mark, mark_open, worth
from .quiet import pass_over
from .trading import (
    FULL,
    bid_at,
    enter_window,
    leave,
    meet,
    move_stop,
    price_of,
    protect,
    remember_end,
    slot_of,
)

DONE, GAP, STOP_FAILED = int(Stop.DONE), int(Stop.GAP), int(Stop.STOP_FAILED)


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
            passed = pass_over(market, terms, account, index, until)
            state.visited += 1
            index += passed
            if passed > 0:
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
    return compiled_with(layout, trading, entering, marks, quiet, deciding, here, *shared)(run)
