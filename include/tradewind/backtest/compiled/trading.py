"""What a bracket lives through once it stands: a price or a bar that reaches it, a stop that is moved, the way out.

Plain functions of the records in `layout`, compiled by `loop`. Each returns `Stop.DONE` (0), or why the engine must
take over; then the account is as it may be, and is set back to its last saved moment.
"""

from __future__ import annotations

from tradewind.core.matching_arithmetic import (
    bid_below,
    commission,
    half_spread,
    share_of_volume,
    touch_level,
    walk_levels,
)

from .layout import (
    LEFT,
    MAX_LOTS,
    STOPPED,
    TARGETED,
    TIMED_OUT,
    Account,
    Market,
    Records,
    Stop,
)

DONE, PART_FILLED, NOT_PLACED = int(Stop.DONE), int(Stop.PART_FILLED), int(Stop.NOT_PLACED)
RESIDUE, FULL = int(Stop.RESIDUE), int(Stop.FULL)
PERCENT_PRICE = 4  # a price within this factor of the last one passes the percentage filter (5) whatever the rounding
LARGEST = 1 << 61


def price_of(symbol: Records, ticks: int) -> float:
    """A price in quote: the float nearest to its decimal."""
    return float(ticks * symbol.tick_num / symbol.tick_den)


def bid_at(terms: Records, last: int) -> int:
    """The best bid around a last price."""
    return bid_below(last, half_spread(last, terms.half_spread_ppm, 0))


def enter_window(account: Account, terms: Records, s: int, window: int, last: int, volume: int) -> None:
    """The market of a symbol trades in a bar: another bar's book is a fresh one."""
    if account.books[s].window != window:
        account.books[s].sold = 0
    account.books[s].window = window
    account.books[s].level = share_of_volume(volume, terms.participation_ppm)
    account.books[s].last = last


def slot_of(account: Account, s: int) -> int:
    """The place of a symbol's position among the live ones, −1 for none."""
    for k in range(account.state.live):
        if account.positions[k].symbol == s:
            return k
    return -1


# --------------------------------------------------------------------------------------------------------------- fills
def book_exit(account: Account, symbol: Records, k: int, j: int, price: int, lots: int, fee_ppm: int) -> None:
    """Sell lots of one lot at a price: money, fee, what is left."""
    p, lot = account.positions[k], account.lots[k, j]
    atoms = price * lots * symbol.atoms_per_ticklot
    fee = commission(atoms, fee_ppm)
    p.exit_lots += lots
    p.exit_atoms += atoms
    p.fees += fee
    p.cash += atoms - fee
    account.state.cash += atoms - fee
    sold = lots * symbol.base_per_lot
    p.held -= sold
    lot.held -= sold
    account.books[p.symbol].held -= sold


def ends_at(account: Account, k: int, at_ms: int, reason: int) -> None:
    """The last fill says why a position ended."""
    p = account.positions[k]
    p.exit_ms, p.reason = at_ms, reason


def sell_at_market(
    account: Account, terms: Records, symbol: Records, k: int, j: int, lots: int, at_ms: int, reason: int
) -> int:
    """A market order for all of a lot, at the book around the last price."""
    s = account.positions[k].symbol
    count = walk_whole(account, terms, s, -1, lots, 0, account.books[s].sold)
    if count == 0:
        return PART_FILLED
    for f in range(count):
        book_exit(account, symbol, k, j, account.prices[f], account.filled[f], symbol.taker_ppm)
    account.books[s].sold += lots
    account.lots[k, j].lots, account.lots[k, j].bare = 0, 0
    ends_at(account, k, at_ms, reason)
    return DONE


def walk_whole(account: Account, terms: Records, s: int, side: int, lots: int, limit: int, taken: int) -> int:
    """Levels of the book around the last price that fill an order whole, in `prices` and `filled`; 0: they do not."""
    book = account.books[s]
    half = half_spread(book.last, terms.half_spread_ppm, 0)
    count = walk_levels(
        book.last, side, lots, limit, book.level, taken, half, terms.level_step_ppm, terms.slippage_ppm, terms.levels,
        account.prices, account.filled,
    )  # fmt: skip
    total = 0
    for f in range(count):
        total += account.filled[f]
    return count if total == lots else 0


def close_where_over(market: Market, account: Account, k: int) -> int:
    """Take a position without legs out of the live ones, where what is left of it is dust at the entry's price."""
    for j in range(MAX_LOTS):
        if account.lots[k, j].lots > 0:
            return DONE
    p = account.positions[k]
    symbol = market.symbols[p.symbol]
    left = p.held // symbol.base_per_lot
    if left >= symbol.min_lots and left * (p.entry_atoms / p.entry_lots) * 2 >= symbol.min_notional:
        return RESIDUE
    state = account.state
    if state.closed == len(account.closed) or state.ended_end == len(account.ended):
        return FULL
    account.closed[state.closed] = p
    state.closed += 1
    state.live -= 1
    for n in range(k, state.live):
        account.positions[n] = account.positions[n + 1]
        for j in range(MAX_LOTS):
            account.lots[n, j] = account.lots[n + 1, j]
    return DONE


def price_fits(ticks: int, last: int) -> bool:
    """A price that no percentage filter refuses."""
    return ticks < PERCENT_PRICE * last and PERCENT_PRICE * ticks > last


def legs_stand(account: Account, terms: Records, symbol: Records, s: int, stop: int, target: int, lots: int) -> bool:
    """A stop below and a target above the price, both large enough with room to spare, so that they stay fine."""
    last = account.books[s].last
    if not stop < last < target or target <= bid_at(terms, last) or not price_fits(target, last):
        return False
    smallest = 2 * min(stop, bid_at(terms, last)) * lots * symbol.atoms_per_ticklot
    return bool(lots >= symbol.min_lots and lots <= symbol.max_lots and smallest >= 3 * symbol.min_notional)


# ------------------------------------------------------------------------------------------------------ what it meets
def meet(market: Market, terms: Records, account: Account, k: int, open_: int, low: int, high: int, at_ms: int) -> int:
    """A price path open → low → high reaches the position: what gaps acts at the open, then the adverse side first."""
    p = account.positions[k]
    symbol = market.symbols[p.symbol]
    for turn in range(2):
        # What already lies beyond the open acts there; then the low comes before the high.
        if open_ <= p.stop or (turn == 1 and low <= p.stop):
            account.books[p.symbol].last = min(open_, p.stop)
            for j in range(MAX_LOTS):
                lots = account.lots[k, j].lots
                if lots > 0 and not account.lots[k, j].bare:
                    stopped = sell_at_market(account, terms, symbol, k, j, lots, at_ms, STOPPED)
                    if stopped:
                        return stopped
            return close_where_over(market, account, k)
        reached = open_ if turn == 0 else high
        for j in range(MAX_LOTS):
            lot = account.lots[k, j]
            half = half_spread(lot.target, terms.half_spread_ppm, 0)
            if lot.lots > 0 and reached >= touch_level(lot.target, -1, half, terms.needs_trade_through):
                take_target(account, terms, symbol, k, j, at_ms)
    return close_where_over(market, account, k)


def take_target(account: Account, terms: Records, symbol: Records, k: int, j: int, at_ms: int) -> None:
    """Fill a resting target at its price, as far as the bar's volume allows; its first fill takes the stop away."""
    lot, book = account.lots[k, j], account.books[account.positions[k].symbol]
    made = lot.made if lot.made_in == book.window else 0
    got = min(lot.lots, book.level - made)
    if got <= 0:
        return
    book_exit(account, symbol, k, j, lot.target, got, symbol.maker_ppm)
    lot.made, lot.made_in = made + got, book.window
    lot.lots -= got
    lot.bare = 1 if lot.lots > 0 else 0
    ends_at(account, k, at_ms, TARGETED)


# ---------------------------------------------------------------------------------------------------- what is wanted
def move_stop(market: Market, terms: Records, account: Account, k: int, stop: int, at_ms: int) -> int:
    """Replace the legs of every lot by ones with another stop."""
    p = account.positions[k]
    if account.state.moves == len(account.moves):
        return FULL
    p.stop = stop
    move = account.moves[account.state.moves]
    move.serial, move.at_ms, move.stop = p.serial, at_ms, stop
    account.state.moves += 1
    return protect(market, terms, account, k, at_ms, 1)


def protect(market: Market, terms: Records, account: Account, k: int, at_ms: int, all_lots: int) -> int:
    """Place the legs of every lot anew, or only of those that are bare; what the price has passed leaves at market."""
    p = account.positions[k]
    symbol, s = market.symbols[p.symbol], p.symbol
    bid = bid_at(terms, account.books[s].last)
    share = min(p.held, account.books[s].held)
    for j in range(MAX_LOTS):
        lot = account.lots[k, j]
        wanted = min(lot.held, share) // symbol.base_per_lot
        share -= wanted * symbol.base_per_lot
        if lot.lots == 0:
            if wanted >= symbol.min_lots and wanted * bid * symbol.atoms_per_ticklot * 2 >= symbol.min_notional:
                return RESIDUE
            continue
        if not all_lots and not lot.bare:
            continue
        if bid <= p.stop or bid >= lot.target:
            if not legs_large(account, terms, symbol, s, wanted):
                return NOT_PLACED
            stopped = sell_at_market(account, terms, symbol, k, j, wanted, at_ms, LEFT)
            if stopped:
                return stopped
            continue
        if not legs_stand(account, terms, symbol, s, p.stop, lot.target, wanted):
            return NOT_PLACED
        lot.lots, lot.bare, lot.made_in = wanted, 0, -1
    return close_where_over(market, account, k)


def leave(market: Market, terms: Records, account: Account, k: int, at_ms: int) -> int:
    """Sell every lot at market, because its time is over."""
    p = account.positions[k]
    symbol, s = market.symbols[p.symbol], p.symbol
    for j in range(MAX_LOTS):
        lot = account.lots[k, j]
        if lot.lots == 0:
            continue
        wanted = min(lot.held, p.held, account.books[s].held) // symbol.base_per_lot
        if not legs_large(account, terms, symbol, s, wanted):
            return NOT_PLACED
        stopped = sell_at_market(account, terms, symbol, k, j, wanted, at_ms, TIMED_OUT)
        if stopped:
            return stopped
    p.reason = TIMED_OUT
    return close_where_over(market, account, k)


def legs_large(account: Account, terms: Records, symbol: Records, s: int, lots: int) -> bool:
    """An amount that the exchange trades, with room to spare."""
    worth = 2 * bid_at(terms, account.books[s].last) * lots * symbol.atoms_per_ticklot
    return bool(lots >= symbol.min_lots and lots <= symbol.max_lots and worth >= 3 * symbol.min_notional)


def remember_end(account: Account, candidates: Records, first: int) -> None:
    """Put the trades closed since number `first` among those that cooldowns and pauses look at, in order of time."""
    state = account.state
    for n in range(first, state.closed):
        p = account.closed[n]
        place = state.ended_end
        rank = candidates[p.candidate].rank
        while place > 0 and (
            account.ended[place - 1].at_ms > p.exit_ms
            or (account.ended[place - 1].at_ms == p.exit_ms and account.ended[place - 1].rank > rank)
        ):
            account.ended[place] = account.ended[place - 1]
            place -= 1
        ended = account.ended[place]
        ended.at_ms, ended.rank, ended.symbol, ended.lost = p.exit_ms, rank, p.symbol, 1 if p.cash < 0 else 0
        state.ended_end += 1
