"""What the account is worth at a moment, and whether the breaker may want to act on it. Compiled by `loop`."""

from __future__ import annotations

from tradewind.core.resampling import BASE_MS

from .layout import Account, Market, Records, Stop
from .trading import bid_at, price_of

DONE, LIMIT_NEAR = int(Stop.DONE), int(Stop.LIMIT_NEAR)
DAY_MS = 86_400_000
NEAR = 1e-9  # relative to what is compared


def worth(market: Market, terms: Records, account: Account) -> float:
    """Capital and cash, and what is held at the bid around the last price, in quote."""
    total = float((terms.capital + account.state.cash) / terms.atoms_per_unit)
    for k in range(account.state.live):
        p = account.positions[k]
        symbol = market.symbols[p.symbol]
        total += p.held / terms.atoms_per_unit * price_of(symbol, bid_at(terms, account.books[p.symbol].last))
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
