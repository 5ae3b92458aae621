"""Which candidates of a moment become entries, and how large: the portfolio's gates and the size, in floats and ticks.

What looks at one symbol alone has been asked before (`columns`). A comparison or a rounding that an error of the last
digits could turn is not made: the moment goes to the exact rules.
"""

from __future__ import annotations

import math

from tradewind.core.gates import exposure_left, risk_left
from tradewind.core.resampling import BASE_MS
from tradewind.core.risk import last_full_row
from tradewind.core.sizing import unit_risk

from .entering import kept_lots
from .layout import (
    Account,
    Market,
    Records,
    Stop,
)
from .marks import NEAR
from .trading import LARGEST, price_of, slot_of

DONE, TOO_CLOSE, REFUSED = int(Stop.DONE), int(Stop.TOO_CLOSE), -1
NO_LIMIT = 1.5  # no correlation reaches it
UNKNOWN = 2.0  # a correlation that cannot be known
WINDOW_MS = 30 * 86_400_000  # as far back as live looks for losses and cooldowns


def decide(
    market: Market, terms: Records, account: Account, candidates: Records, first: int, end: int, index: int
) -> int:
    """Write the intents of candidates [first, end), best first, into `account.intents`: how many, or −Stop for none."""
    count = 0
    free = (terms.capital + account.state.cash) / terms.atoms_per_unit
    opened = _expose(market, terms, account)
    known_ms = market.times[index] + BASE_MS
    paused = is_paused(terms, account, known_ms)
    for c in range(first, end):
        candidate = candidates[c]
        if opened >= terms.max_positions or slot_of(account, candidate.symbol) >= 0:
            continue
        if paused or is_cooling(terms, account, candidate.symbol, known_ms):
            continue
        found = size(market, terms, account, candidates, c, count, opened, free, index)
        if found == REFUSED:
            continue
        if found != DONE:
            return -found
        intent = account.intents[count]
        symbol = market.symbols[intent.symbol]
        lots = intent.lots_0 + intent.lots_1
        entry, stop = price_of(symbol, intent.entry), price_of(symbol, intent.stop)
        quantity = lots * symbol.step
        exposure = account.exposures[opened]
        exposure.symbol = intent.symbol
        exposure.notional = quantity * entry
        exposure.risk = quantity * unit_risk(1, entry, stop, symbol.fee_frac, symbol.market_frac)
        free -= quantity * entry * (1.0 + symbol.fee_frac)
        opened += 1
        count += 1
    return count


def _expose(market: Market, terms: Records, account: Account) -> int:
    """What the open positions cost and what their stops would still lose, into `account.exposure`: how many."""
    for k in range(account.state.live):
        p = account.positions[k]
        quantity = max(p.held, 0) / terms.atoms_per_unit
        stop = price_of(market.symbols[p.symbol], p.stop)
        unit = unit_risk(1, p.entry_price, stop, terms.fee_frac, terms.market_frac)
        exposure = account.exposures[k]
        exposure.symbol = p.symbol
        exposure.notional = quantity * p.entry_price
        exposure.risk = quantity * max(unit, 0.0)
    return int(account.state.live)


# --------------------------------------------------------------------------------------------------------------- gates
def is_paused(terms: Records, account: Account, known_ms: int) -> bool:
    """After too many losses in a row."""
    state, ended = account.state, account.ended
    while (
        state.ended_first < state.ended_end and known_ms + terms.delay_ms - ended[state.ended_first].at_ms > WINDOW_MS
    ):
        state.ended_first += 1
    if state.ended_end - state.ended_first < terms.max_losses:
        return False
    last = last_full_row(ended.lost, state.ended_first, state.ended_end, terms.max_losses)
    return last >= 0 and known_ms < ended[last].at_ms + terms.loss_pause_ms


def is_cooling(terms: Records, account: Account, s: int, known_ms: int) -> bool:
    """Too few bars after the symbol's last trade."""
    state = account.state
    for place in range(state.ended_end - 1, state.ended_first - 1, -1):
        ended = account.ended[place]
        if known_ms - ended.at_ms >= terms.cooldown_bars * BASE_MS:
            return False
        if ended.symbol == s:
            return True
    return False


def correlation(market: Market, a: int, b: int, index: int, window: int, is_limited: bool) -> float:
    """Of the 15m log returns over `window` bars up to the one at `index`; UNKNOWN where too few are in both.

    Where it is not limited any number serves.
    """
    times, returns, known = market.times, market.returns, market.has_return
    start_ms = times[index] - window * BASE_MS
    first = max(index - window - 1, 0)
    while times[first] < start_ms:
        first += 1
    count = 0
    for i in range(first + 1, index + 1):
        count += int(known[a, i] & known[b, i])
    if count < window / 2:
        return UNKNOWN
    if not is_limited:
        return 0.0
    sum_a = sum_b = aa = bb = ab = 0.0
    for i in range(first + 1, index + 1):
        x, y = returns[a, i] * known[b, i], returns[b, i] * known[a, i]
        sum_a += x
        sum_b += y
        aa += x * x
        bb += y * y
        ab += x * y
    scale = (aa - sum_a * sum_a / count) * (bb - sum_b * sum_b / count)
    return (ab - sum_a * sum_b / count) / math.sqrt(scale) if scale > 1e-36 else UNKNOWN


# ---------------------------------------------------------------------------------------------------------------- size
def size(
    market: Market,
    terms: Records,
    account: Account,
    candidates: Records,
    c: int,
    place: int,
    opened: int,
    free: float,
    index: int,
) -> int:
    """The entry of one candidate beside what is open already, in `account.intents[place]`: DONE, REFUSED or a Stop."""
    candidate = candidates[c]
    s = candidate.symbol
    symbol = market.symbols[s]
    equity = min(account.state.last_mark, terms.max_equity_quote)
    slot = equity * terms.risk_frac
    least = slot * terms.min_risk_share_frac
    shared = held = own = risk_open = 0.0
    for k in range(opened):
        exposure = account.exposures[k]
        held += exposure.notional
        risk_open += exposure.risk
        if exposure.symbol == s:
            own += exposure.notional
            shared += exposure.risk
            continue
        together = correlation(
            market, s, exposure.symbol, index, terms.correlation_bars, terms.max_correlation < NO_LIMIT
        )
        if together != UNKNOWN and abs(together - terms.max_correlation) < NEAR:
            return TOO_CLOSE
        if together == UNKNOWN or together > terms.max_correlation:
            shared += exposure.risk
    risk_room = risk_left(equity, slot, shared, risk_open, terms.open_risk_frac)
    exposure_room = exposure_left(equity, own, held, terms.symbol_frac, terms.total_frac)
    margin = NEAR * equity
    if is_near(slot - shared, least, margin) or is_near(risk_room, least, margin):
        return TOO_CLOSE
    if is_near(exposure_room, 0.0, margin) or is_near(free, 0.0, margin):
        return TOO_CLOSE
    if slot - shared < least or exposure_room <= 0 or free <= 0 or risk_room < least:
        return REFUSED

    # Rounded in the exact rules' directions; what lies on an edge is theirs.
    entry_at = (candidate.close + candidate.atr * terms.entry_through_atr_frac) / symbol.tick
    stop_at = (candidate.close - candidate.atr * candidate.stop_atr) / symbol.tick
    if is_whole(entry_at) or is_whole(stop_at) or candidate.close_ticks < 0:
        return TOO_CLOSE
    entry, stop = math.floor(entry_at), math.floor(stop_at)
    if stop <= 0 or entry <= stop:
        return REFUSED
    at, below = price_of(symbol, entry), price_of(symbol, stop)
    unit = unit_risk(1, at, below, symbol.fee_frac, symbol.market_frac)
    most = min(
        risk_room / unit / symbol.step,
        free / (at * (1.0 + symbol.fee_frac)) / symbol.step,
        exposure_room / at / symbol.step,
        candidate.volume_base * terms.max_bar_volume_frac / symbol.step,
        float(symbol.max_lots),
    )
    if is_whole(most):
        return TOO_CLOSE
    lots = math.floor(most)
    if float(lots) * symbol.base_per_lot > LARGEST:
        return TOO_CLOSE
    risk = lots * symbol.step * unit
    if not is_tradable(symbol, kept_lots(lots, symbol.taker_ppm), stop):
        return REFUSED
    if is_near(risk, least, margin):
        return TOO_CLOSE
    if risk < least:
        return REFUSED
    intent = account.intents[place]
    intent.candidate, intent.symbol, intent.entry, intent.stop = c, s, entry, stop
    split(terms, symbol, intent, candidate, lots)
    return DONE


def split(terms: Records, symbol: Records, intent: Records, candidate: Records, lots: int) -> None:
    """One lot, or two where each stays tradable after the commission; targets on the tick away from the price."""
    distance = candidate.close_ticks - intent.stop
    final = candidate.close_ticks + -(-distance * candidate.target_num // candidate.target_den)
    first = lots * terms.partial_num // terms.partial_den
    first_target = candidate.close_ticks + -(-distance * terms.partial_target_num // terms.partial_target_den)
    whole = first_target == final
    for part in (first, lots - first):
        if not is_tradable(symbol, kept_lots(part, symbol.taker_ppm), intent.stop):
            whole = True
    intent.lots_0, intent.target_0 = lots, final
    intent.lots_1, intent.target_1 = 0, final
    if not whole:
        intent.lots_0, intent.target_0, intent.lots_1 = first, first_target, lots - first


def is_tradable(symbol: Records, lots: int, ticks: int) -> bool:
    """Over the exchange's minimum quantity and notional."""
    return bool(lots > 0 and lots >= symbol.min_lots and lots * ticks * symbol.atoms_per_ticklot >= symbol.min_notional)


def is_near(a: float, b: float, margin: float) -> bool:
    """Too near to tell which is larger."""
    return abs(a - b) <= margin


def is_whole(value: float) -> bool:
    """Too near to a whole number to round."""
    return abs(value - round(value)) <= NEAR + abs(value) * 1e-13
