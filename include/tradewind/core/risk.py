"""When to stop: the account's equity from its own ledger, the breaker's test, and the pause after losses.

Equity is the ledger's: the account's quote currency and what was paid in or out of it since, plus the cash that fills
moved, plus what is still held marked at the price it could be sold at, less fees paid in third assets. Holdings of
before (the baseline) are in none of it, and no setting is.

What it is measured against is scaled over transfers (`core.transfers`): a loss is a share of the money that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import TypeVar

from .brackets import decimal_of
from .params import StrategyParams
from .positions import Costs
from .sizing import risk_per_unit
from .transfers import as_decimal
from .types import BookTop, ClosedTrade, Exposure, Intent, Position

ZERO = Decimal(0)
# Replay has no transfers and is exact in decimals; a scaled reading is exact as a fraction alone.
Money = TypeVar("Money", Decimal, Fraction)


class BreachKind(StrEnum):
    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"


@dataclass(frozen=True, slots=True)
class Breach:
    """Equity stands at or below a limit. `change_frac` is negative: -0.031 is 3.1 % of `base_quote` lost.

    `reference_quote` is what was there; `base_quote` what the limit is a share of: all of it, or what trading may use.
    """

    kind: BreachKind
    equity_quote: Decimal
    reference_quote: Decimal
    base_quote: Decimal
    change_frac: Decimal
    limit_frac: Decimal

    @property
    def reason(self) -> str:
        """The words that the latch is written with."""
        against = "the day's opening" if self.kind is BreachKind.DAILY_LOSS else "the peak"
        share = "" if self.base_quote == self.reference_quote else f" of the {self.base_quote:.2f} that trading may use"
        return (
            f"equity {self.equity_quote:.2f} is {self.change_frac * 100:+.2f} %{share} against {against} equity "
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
    quote_capital: Decimal, cash_flow_quote: Decimal, holdings: Iterable[Holding], books: Mapping[str, BookTop]
) -> Decimal:
    """Quote capital + cash moved by fills, fees included + open quantity at the price it could be closed at."""
    return quote_capital + cash_flow_quote + marked_value(holdings, books)


def sizing_equity(equity_quote: Decimal, max_capital_quote: Decimal | None) -> Decimal:
    """The equity that sizing may use: at most the granted capital, and never below zero."""
    return max(equity_quote if max_capital_quote is None else min(equity_quote, max_capital_quote), ZERO)


def spendable_quote(free_quote: Decimal, invested_quote: Decimal, max_capital_quote: Decimal | None) -> Decimal:
    """What new entries may take: what is free, at most what the granted capital leaves beside what is invested."""
    room = free_quote if max_capital_quote is None else min(free_quote, max_capital_quote - invested_quote)
    return max(room, ZERO)


# ------------------------------------------------------------------------------------------------------------- breaker
def loss_limit_quote(reference_quote: Money, limit_frac: float, usable_quote: Money | None = None) -> Money:
    """How much may be lost against a reference: a share of it, or of what trading may use where that is less."""
    return type(reference_quote)(decimal_of(limit_frac)) * _base(reference_quote, usable_quote)


def _base(reference_quote: Money, usable_quote: Money | None) -> Money:
    """What a limit is a share of: no more is at risk than trading may use."""
    return reference_quote if usable_quote is None else min(reference_quote, usable_quote)


def breached(
    equity_quote: Money,
    day_open_quote: Money | None,
    peak_quote: Money | None,
    params: StrategyParams,
    usable_quote: Money | None = None,
) -> Breach | None:
    """The breaker's test, the same for the watch, the minute run and replay: at the limit counts as breached.

    `usable_quote` is the most that trading may use, None for all. A reference that is missing or not above zero is not
    compared with: entries are blocked without one (`EquityRecord.blind_spots`). Returns the drawdown when both are
    breached.
    """
    found: Breach | None = None
    for kind, reference, limit_frac in (
        (BreachKind.DAILY_LOSS, day_open_quote, params.max_daily_loss_frac),
        (BreachKind.DRAWDOWN, peak_quote, params.max_drawdown_frac),
    ):
        if reference is None or reference <= 0:
            continue
        # Compared by multiplication: exact, where a quotient would be rounded.
        if reference - equity_quote >= loss_limit_quote(reference, limit_frac, usable_quote):
            now, then, base = map(as_decimal, (equity_quote, reference, _base(reference, usable_quote)))
            found = Breach(kind, now, then, base, (now - then) / base, -decimal_of(limit_frac))
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
