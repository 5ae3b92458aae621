"""The bars in which nothing happens but marks and new best closes: most of them. Compiled by `loop`."""

from __future__ import annotations

from tradewind.core.matching_arithmetic import half_spread, touch_level
from tradewind.core.position_kernels import manage_close
from tradewind.core.positions import HOLD
from tradewind.core.resampling import BASE_MS

from .layout import MAX_LOTS, Account, Market, Records
from .marks import DAY_MS, is_limit_near
from .trading import bid_at, price_of


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
        quiets[k].quantity = p.held / terms.atoms_per_unit
    cash = (terms.capital + account.state.cash) / terms.atoms_per_unit
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
