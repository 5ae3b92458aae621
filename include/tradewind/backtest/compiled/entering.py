"""The entry of a bracket: a limit that fills whole or not at all, then its two legs. Compiled by `loop`."""

from __future__ import annotations

from tradewind.core.matching_arithmetic import PPM, commission

from .layout import MAX_LOTS, STOPPED, Account, Market, Records, Stop
from .trading import enter_window, legs_stand, price_fits, price_of, walk_whole

DONE, NOT_PLACED = int(Stop.DONE), int(Stop.NOT_PLACED)


def enter(
    market: Market, terms: Records, account: Account, candidates: Records, at: int, at_ms: int, index: int
) -> int:
    """Send the bracket of intent `at` at the open of the bar at `index`; what is not filled whole never was."""
    intent = account.intents[at]
    s = intent.symbol
    symbol = market.symbols[s]
    last = market.open[s, index]
    enter_window(account, terms, s, at_ms, last, market.volume[s, index - 1])
    if not price_fits(intent.entry, last):
        return NOT_PLACED
    k = account.state.live
    p = account.positions[k]
    candidate = candidates[intent.candidate]
    p.candidate, p.symbol, p.bar_ms = intent.candidate, s, market.times[index - 1]
    p.entry_ms, p.entry_lots, p.entry_atoms = at_ms, 0, 0
    p.exit_ms, p.exit_lots, p.exit_atoms, p.reason = -1, 0, 0, STOPPED
    p.fees, p.cash, p.held, p.base_fees_quote = 0, 0, 0, 0.0
    p.initial_stop, p.stop = intent.stop, intent.stop
    p.target = intent.target_1 if intent.lots_1 > 0 else intent.target_0
    p.wanted_stop, p.wants_exit, p.atr = 0, 0, candidate.atr
    p.serial = account.state.serial
    bought = 0
    for j in range(MAX_LOTS):
        lots = intent.lots_0 if j == 0 else intent.lots_1
        target = intent.target_0 if j == 0 else intent.target_1
        lot = account.lots[k, j]
        lot.lots, lot.held, lot.target, lot.bare, lot.made_in = 0, 0, target, 0, -1
        if lots == 0 or (j > 0 and account.lots[k, 0].lots == 0):
            continue
        stopped = buy_lot(terms, account, symbol, k, j, lots, intent.entry, bought)
        if stopped:
            return stopped
        bought += lots if account.lots[k, j].lots > 0 else 0
    if p.entry_lots == 0:
        return DONE
    p.entry_price = float(p.entry_atoms / (p.entry_lots * symbol.base_per_lot))
    p.best_close = p.entry_price
    account.state.serial += 1
    account.state.live += 1
    return DONE


def buy_lot(
    terms: Records, account: Account, symbol: Records, k: int, j: int, lots: int, limit: int, bought: int
) -> int:
    """One bracket list: a limit that fills whole or not at all, then its two legs."""
    p, lot = account.positions[k], account.lots[k, j]
    s, last = p.symbol, account.books[p.symbol].last
    if lots * limit * symbol.atoms_per_ticklot > terms.capital + account.state.cash:
        return NOT_PLACED
    count = walk_whole(account, terms, s, 1, lots, limit, bought)
    if count == 0:
        return DONE
    locked = 0
    for other in range(MAX_LOTS):
        locked += account.lots[k, other].lots * symbol.base_per_lot
    proceeds = 0
    for f in range(count):
        price, got = account.prices[f], account.filled[f]
        atoms, base = price * got * symbol.atoms_per_ticklot, got * symbol.base_per_lot
        fee = commission(base, symbol.taker_ppm)
        # Where the commission is paid from what was free before, the legs sell more than this lot holds.
        if symbol.from_proceeds and account.books[s].held - locked - proceeds >= fee:
            return NOT_PLACED
        proceeds += base - fee
        p.entry_lots += got
        p.entry_atoms += atoms
        p.cash -= atoms
        account.state.cash -= atoms
        p.held += base - fee
        lot.held += base - fee
        p.base_fees_quote += fee / terms.atoms_per_unit * price_of(symbol, price)
        account.books[s].held += base - fee
    legs = proceeds // symbol.base_per_lot if symbol.from_proceeds else kept_lots(lots, symbol.taker_ppm)
    if not legs_stand(account, terms, symbol, s, p.stop, lot.target, legs) or legs * symbol.base_per_lot > lot.held:
        return NOT_PLACED
    bare = lot.held // symbol.base_per_lot - legs
    if bare >= symbol.min_lots and bare * last * symbol.atoms_per_ticklot * 2 >= symbol.min_notional:
        return NOT_PLACED
    lot.lots = legs
    return DONE


def kept_lots(lots: int, fee_ppm: int) -> int:
    """What can be sold of bought lots once the commission has been taken from them."""
    return lots * (PPM - fee_ppm) // PPM
