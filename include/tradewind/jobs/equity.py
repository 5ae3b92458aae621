"""The account in money: baseline, equity marked now, the portfolio as sizing sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from tradewind.core.ports import OpenQuantity, Ports
from tradewind.core.risk import Holding, exposure_of, exposure_of_intent, ledger_equity, sizing_equity, spendable_quote
from tradewind.core.transfers import EquityRecord, Reading, rounded
from tradewind.core.types import BookTop, Exposure, Portfolio, Position, PositionStatus
from tradewind.errors import MissingData
from tradewind.jobs.payments import is_margined, mark_beginning
from tradewind.jobs.pricing import Priced, believable_books, value_fees

ZERO: Final = Decimal(0)
# Far enough back for five losses in a row, however seldom the strategy trades.
_TRADES_WINDOW: Final = timedelta(days=30)


def quote_asset(ports: Ports) -> str:
    """The currency that everything is counted in."""
    return ports.symbols[0].split("/")[1]


def ensure_baseline(ports: Ports) -> Mapping[str, Decimal]:
    """What the account held before the first order of ours; taken now if it never was.

    The quote currency's part of it is the capital. Raises MissingData when orders were sent before a baseline stood:
    what is ours could then no longer be told apart.
    """
    store = ports.trading_store
    kept = store.baseline()
    if kept is not None:
        return kept
    if store.ledger_totals():
        raise MissingData("the ledger has fills and no baseline: restore the table `baselines` from a backup")
    quote = quote_asset(ports)
    if is_margined(ports.exchange.instruments(ports.symbols)):
        mark_beginning(ports)
    holdings = {asset: balance.total for asset, balance in ports.exchange.balances().items()}
    return store.take_baseline({quote: ZERO, **holdings}, ports.clock.now())


@dataclass(frozen=True, slots=True)
class Mark:
    """Equity at one moment of the market's clock, with what it is measured against: both of one snapshot of the ledger.

    equity_quote : all quote of the account with what was paid in or out, the cash of all fills and payments, open
        quantities at their price, less fees in third assets.
    cash_quote : the quote among it, as the exchange should hold it.
    held : what is open, from fills.
    unpriced : open markets without a believable price, marked at the last known one, each with the reason.
    not_valued : third assets whose fees are not in it yet.
    """

    at: datetime
    equity_quote: Decimal
    cash_quote: Decimal
    held: tuple[OpenQuantity, ...]
    record: EquityRecord
    priced: Priced
    not_valued: tuple[str, ...]

    @property
    def reading(self) -> Reading:
        last = self.record.last_link
        return Reading(self.at, self.equity_quote, 0 if last is None else last.number)


def mark(ports: Ports) -> Mark:
    """Equity now, at prices asked for at this moment; one market without a price spoils it for no other.

    Raises a RetryError when the exchange or the store does not answer at all.
    """
    ensure_baseline(ports)
    not_valued = value_fees(ports, quote_asset(ports))
    marked = _mark(ports, not_valued)
    last = marked.record.last_link
    if last is not None and last.after_quote is None:
        # The measure has changed: this is the first reading in it.
        ports.trading_store.close_link(marked.reading)
        marked = _mark(ports, not_valued)
    return marked


def _mark(ports: Ports, not_valued: Sequence[str]) -> Mark:
    store, quote, now = ports.trading_store, quote_asset(ports), ports.clock.now()
    with store.snapshot():
        capital_quote = (store.baseline() or {}).get(quote, ZERO)
        totals = store.ledger_totals().values()
        held = tuple(held for held in store.open_quantities() if held.quantity != 0)
        record = store.equity_record(now)
    priced = believable_books(ports, held)
    moved_quote = sum((total.cash_quote for total in totals), ZERO)
    fees_quote = sum((total.other_fees_quote for total in totals), ZERO)
    holdings = [Holding(open_.symbol, open_.quantity) for open_ in held]
    equity = ledger_equity(capital_quote, moved_quote - fees_quote, holdings, _books(priced))
    return Mark(now, equity, capital_quote + moved_quote, held, record, priced, tuple(not_valued))


def _books(priced: Priced) -> dict[str, BookTop]:
    """The price to mark each market at: of now, else the last known one, which is its entry's at the least."""
    return {symbol: known.book for symbol, known in priced.known.items()} | dict(priced.books)


def mark_equity(ports: Ports) -> Decimal:
    """The ledger's equity at prices asked for at this moment. Raises as `mark`."""
    return mark(ports).equity_quote


def day_start(moment: datetime) -> datetime:
    """The UTC midnight at or before `moment`."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def build_portfolio(ports: Ports) -> Portfolio:
    """The account as sizing and the portfolio filters see it, at prices of this moment."""
    store = ports.trading_store
    marked = mark(ports)
    positions = store.live_positions()
    exposures = tuple(_exposure(ports, position) for position in positions)
    day_open, peak = rounded(marked.record.day_open_quote), rounded(marked.record.peak_quote)
    return Portfolio(
        account=ports.account,
        equity_quote=sizing_equity(marked.equity_quote, ports.max_capital_quote),
        free_quote=_free_quote(ports, marked, exposures),
        day_open_equity_quote=day_open if day_open is not None else marked.equity_quote,
        peak_equity_quote=peak if peak is not None else marked.equity_quote,
        exposures=exposures,
        recent_trades=tuple(store.closed_trades(marked.at - _TRADES_WINDOW)),
        as_of=marked.at,
    )


def _free_quote(ports: Ports, marked: Mark, exposures: Sequence[Exposure]) -> Decimal:
    """What new entries may take: what the account has free and the ledger knows of, within the granted capital."""
    balance = ports.exchange.balances().get(quote_asset(ports))
    if balance is None:
        return ZERO
    if is_margined(ports.exchange.instruments(ports.symbols)):
        # A position takes its margin only, and the exchange says what is left; the rest of the equity is in use.
        free = min(marked.equity_quote, balance.free)
        invested = marked.equity_quote - free
    else:
        free = min(marked.cash_quote, balance.free)
        invested = sum((exposure.notional_quote for exposure in exposures), ZERO)
    return spendable_quote(free, invested, ports.max_capital_quote)


def _exposure(ports: Ports, position: Position) -> Exposure:
    if position.status is PositionStatus.OPENING:
        return exposure_of_intent(ports.trading_store.intent(position.position_id))
    return exposure_of(position, ports.params)
