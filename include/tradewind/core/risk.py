"""When to stop: the account's equity from its own ledger, the breaker's test, and the pause after losses.

Equity is the ledger's: quote capital, plus the cash that fills moved, plus what is still held marked at the price it
could be sold at. What the account held before (the baseline) is in none of the three, nor is a deposit or a withdrawal:
only trading moves this number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from .brackets import decimal_of
from .params import StrategyParams
from .positions import Costs
from .sizing import risk_per_unit
from .types import BookTop, ClosedTrade, Exposure, Intent, Position

ZERO = Decimal(0)


class BreachKind(StrEnum):
    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"


@dataclass(frozen=True, slots=True)
class Breach:
    """Equity stands at or below a limit. `change_frac` is negative: -0.031 is 3.1 % lost against `reference_quote`."""

    kind: BreachKind
    equity_quote: Decimal
    reference_quote: Decimal
    change_frac: Decimal
    limit_frac: Decimal

    @property
    def needs_confirmation(self) -> bool:
        """A daily loss is confirmed by a second fresh mark; a drawdown from the peak latches at once."""
        return self.kind is BreachKind.DAILY_LOSS

    @property
    def reason(self) -> str:
        """The words that the latch is written with."""
        against = "the day's opening" if self.kind is BreachKind.DAILY_LOSS else "the peak"
        return (
            f"equity {self.equity_quote:.2f} is {self.change_frac * 100:+.2f} % against {against} equity "
            f"{self.reference_quote:.2f} (limit {self.limit_frac * 100:+.2f} %)"
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """A quantity of the ledger's own in one market; negative for a short."""

    symbol: str
    quantity: Decimal


# -------------------------------------------------------------------------------------------------------------- equity
def mark_price(book: BookTop, quantity: Decimal) -> Decimal:
    """What one unit would bring (bid) or cost (ask, for a short) now."""
    return book.bid if quantity >= 0 else book.ask


def marked_value(holdings: Iterable[Holding], books: Mapping[str, BookTop]) -> Decimal:
    """Value of what is held, at the side it would be closed at.

    Raises KeyError naming the symbol when a held market has no price: an unpriced holding must never count as zero.
    """
    total = ZERO
    for holding in holdings:
        if holding.quantity == 0:
            continue
        if holding.symbol not in books:
            raise KeyError(f"no price for {holding.symbol}, of which {holding.quantity} is held: equity is unknown")
        total += holding.quantity * mark_price(books[holding.symbol], holding.quantity)
    return total


def ledger_equity(
    quote_capital: Decimal,
    cash_flow_quote: Decimal,
    holdings: Iterable[Holding],
    books: Mapping[str, BookTop],
    max_capital_quote: Decimal | None = None,
) -> Decimal:
    """Quote capital (at most `max_capital_quote`) + cash moved by fills, fees included + open quantity at bid."""
    capital = quote_capital if max_capital_quote is None else min(quote_capital, max_capital_quote)
    return capital + cash_flow_quote + marked_value(holdings, books)


def sizing_equity(equity_quote: Decimal, max_capital_quote: Decimal | None) -> Decimal:
    """The equity that sizing may use: profits over the granted capital are not risked."""
    return equity_quote if max_capital_quote is None else min(equity_quote, max_capital_quote)


# ------------------------------------------------------------------------------------------------------------- breaker
def breached(
    equity_quote: Decimal,
    day_open_quote: Decimal | None,
    peak_quote: Decimal | None,
    params: StrategyParams,
) -> Breach | None:
    """The breaker's test, the same for the watch, the minute run and replay: at the limit counts as breached.

    A reference that is missing or not positive is not compared with. Returns the drawdown when both are breached, since
    it needs no confirmation.
    """
    found: Breach | None = None
    for kind, reference, limit in (
        (BreachKind.DAILY_LOSS, day_open_quote, -decimal_of(params.max_daily_loss_frac)),
        (BreachKind.DRAWDOWN, peak_quote, -decimal_of(params.max_drawdown_frac)),
    ):
        if reference is None or reference <= 0:
            continue
        # Compared by multiplication: exact, where a quotient would be rounded.
        if equity_quote - reference <= limit * reference:
            found = Breach(kind, equity_quote, reference, equity_quote / reference - 1, limit)
    return found


# -------------------------------------------------------------------------------------------------------- loss pauses
def consecutive_losses(trades: Sequence[ClosedTrade]) -> int:
    """Losses in a row at the end of `trades` (ascending by close); a result of exactly zero ends the row."""
    count = 0
    for trade in reversed(trades):
        if trade.net_quote >= 0:
            break
        count += 1
    return count


def loss_pause_until(
    trades: Sequence[ClosedTrade], params: StrategyParams, lifted_at: datetime | None = None
) -> datetime | None:
    """Until when entries are blocked after too many losses in a row, or None.

    The pause lasts `loss_pause_s` from the close of the loss that completes the row; counting then starts afresh, so
    that a pause is never prolonged by a position that was open already. Only losses after `lifted_at` (a resume) count.
    `trades` may come in any order.
    """
    if len(trades) < params.max_consecutive_losses:
        return None
    counted = sorted(
        (trade for trade in trades if lifted_at is None or trade.closed_at > lifted_at),
        key=lambda closed: (closed.closed_at, closed.position_id),
    )
    last = last_full_row([trade.net_quote < 0 for trade in counted], 0, len(counted), params.max_consecutive_losses)
    return None if last < 0 else counted[last].closed_at + timedelta(seconds=params.loss_pause_s)


def last_full_row(lost: Sequence[bool], first: int, end: int, length: int) -> int:
    """Where among [first, end) the newest row of `length` losses was full, −1 for none; after each one counts anew."""
    found, row = -1, 0
    for place in range(first, end):
        row = row + 1 if lost[place] else 0
        if row >= length:
            found, row = place, 0
    return found


# ------------------------------------------------------------------------------------------------------------ exposure
def exposure_of(position: Position, params: StrategyParams, fee_frac: float | None = None) -> Exposure:
    """An open position as the portfolio filters see it: its cost, and what its stop would still lose, never below zero.

    The loss counts from the entry, so that a stop at break-even frees its slot's risk.
    """
    entry = position.entry_price if position.entry_price is not None else position.initial_stop_price
    quantity = max(position.quantity, ZERO)
    unit = risk_per_unit(position.side, entry, position.stop_price, Costs.of(params, fee_frac))
    return Exposure(position.symbol, position.side, quantity * entry, quantity * max(unit, ZERO))


def exposure_of_intent(intent: Intent) -> Exposure:
    """An entry that was decided and may still fill, at its worst price."""
    return Exposure(intent.symbol, intent.side, intent.notional_quote, intent.risk_quote)
