"""The account in money: baseline and capital, equity marked now, the portfolio as sizing sees it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from tradewind.core.ledger import signed_quantity
from tradewind.core.ports import Ports
from tradewind.core.risk import Holding, exposure_of, exposure_of_intent, ledger_equity, sizing_equity
from tradewind.core.types import BookTop, Exposure, Portfolio, Position, PositionStatus
from tradewind.errors import MissingData
from tradewind.jobs.payments import is_margined, mark_beginning

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


def capital_quote(ports: Ports) -> Decimal:
    """The quote currency the account began with, at most what trading may use; transfers are not in it."""
    capital = ensure_baseline(ports).get(quote_asset(ports), ZERO) - transfers_quote(ports)
    limit = ports.max_capital_quote
    return capital if limit is None else min(capital, limit)


def transfers_quote(ports: Ports) -> Decimal:
    """What was paid in (negative: out) since, as a person explained it: no gain and no loss, but money to size on."""
    return ports.trading_store.accepted_differences().get(quote_asset(ports), ZERO)


def cash_flow_quote(ports: Ports) -> Decimal:
    """Quote moved by all fills, quote fees included."""
    return sum((total.cash_quote for total in ports.trading_store.ledger_totals().values()), ZERO)


def books_of(ports: Ports, positions: list[Position]) -> dict[str, BookTop]:
    """Fresh prices of what is held; asks nothing when nothing is."""
    symbols = sorted({position.symbol for position in positions if position.quantity != 0})
    return ports.exchange.book_tops(symbols) if symbols else {}


def mark_equity(ports: Ports) -> Decimal:
    """The ledger's equity at prices asked for at this moment.

    Raises a RetryError without prices: a holding never counts as zero.
    """
    return _equity(ports, ports.trading_store.live_positions())


def _equity(ports: Ports, positions: list[Position]) -> Decimal:
    holdings = [Holding(position.symbol, signed_quantity(position)) for position in positions]
    books = books_of(ports, positions)
    try:
        return ledger_equity(capital_quote(ports), cash_flow_quote(ports), holdings, books)
    except KeyError as error:
        raise MissingData(str(error.args[0])) from None


def day_start(moment: datetime) -> datetime:
    """The UTC midnight at or before `moment`."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def build_portfolio(ports: Ports) -> Portfolio:
    """The account as sizing and the portfolio filters see it, at prices of this moment."""
    store, now = ports.trading_store, ports.clock.now()
    positions = store.live_positions()
    transfers = transfers_quote(ports)
    cash = capital_quote(ports) + cash_flow_quote(ports) + transfers
    equity = _equity(ports, positions)
    balance = ports.exchange.balances().get(quote_asset(ports))
    # On margin a position takes its margin only, and the exchange says what is left; else it takes all its money.
    spendable = equity + transfers if is_margined(ports.exchange.instruments(ports.symbols)) else cash
    free = min(spendable, balance.free if balance is not None else ZERO)
    day_open = store.day_open_equity(now)
    peak = store.peak_equity()
    return Portfolio(
        account=ports.account,
        equity_quote=max(sizing_equity(equity + transfers, ports.max_capital_quote), ZERO),
        free_quote=max(free, ZERO),
        day_open_equity_quote=day_open if day_open is not None else equity,
        peak_equity_quote=peak if peak is not None else equity,
        exposures=tuple(_exposure(ports, position) for position in positions),
        recent_trades=tuple(store.closed_trades(now - _TRADES_WINDOW)),
        as_of=now,
    )


def _exposure(ports: Ports, position: Position) -> Exposure:
    if position.status is PositionStatus.OPENING:
        return exposure_of_intent(ports.trading_store.intent(position.position_id))
    return exposure_of(position, ports.params)
