"""What happened since yesterday, in a few lines for the phone at breakfast."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from tradewind.adapters.equity_store import read_links
from tradewind.core.transfers import Reading, first_comparable, in_todays_money, rounded
from tradewind.wiring import Wiring

_EQUITY: Final = """
    SELECT at, equity_quote, link_id AS link FROM equity WHERE account = %(account)s AND at <= %(now)s
    ORDER BY at DESC, reading_id DESC LIMIT 1"""
_FIRST_EQUITY: Final = """
    SELECT at, equity_quote, link_id AS link FROM equity WHERE account = %(account)s AND link_id >= %(link)s
    ORDER BY at, reading_id LIMIT 1"""
_CLOSED: Final = """
    SELECT symbol, realised_quote, exit_reason,
           CASE WHEN entry_price IS NOT NULL AND entry_price <> initial_stop_price AND entry_quantity > 0
                THEN realised_quote / (abs(entry_price - initial_stop_price) * entry_quantity) END AS result_r
    FROM positions
    WHERE account = %(account)s AND status IN ('closed', 'dust') AND entry_quantity > 0
      AND closed_at > %(since)s AND closed_at <= %(now)s ORDER BY closed_at"""
_OPEN: Final = """
    SELECT symbol, side FROM positions WHERE account = %(account)s AND status IN ('opening', 'open', 'closing')
    ORDER BY symbol"""
_OUTCOMES: Final = """
    SELECT outcome, count(*) AS decisions FROM decisions
    WHERE account = %(account)s AND bar > %(since)s AND bar <= %(now)s GROUP BY outcome ORDER BY outcome"""
_LATCH: Final = "SELECT mode, reason FROM latches WHERE account = %(account)s AND mode <> 'active'"
_ALARMS: Final = """
    SELECT title FROM alerts
    WHERE account = %(account)s AND severity <> 'info' AND last_seen_at > clock_timestamp() - interval '1 day'
    ORDER BY (severity = 'critical') DESC, last_seen_at DESC LIMIT 5"""


def daily_summary(wiring: Wiring, now: datetime) -> tuple[str, str]:
    """Title and body over the 24 hours before `now`, the market's time. Raises StoreUnavailable."""
    values = {"account": wiring.account, "now": now, "since": now - timedelta(days=1)}
    rows = wiring.database.rows
    closed = rows(_CLOSED, values)
    result = sum((row["realised_quote"] for row in closed), Decimal(0))
    title = f"Daily summary: {len(closed)} closed, {result:+,.2f} {wiring.settings.quote_currency}"
    lines = [_equity_line(wiring, values)]
    lines += [f"{row['symbol']} {_r(row)} by {row['exit_reason'].replace('_', ' ') or 'exit'}" for row in closed[:20]]
    held = ", ".join(f"{row['symbol']} {row['side']}" for row in rows(_OPEN, values))
    lines.append(f"Open: {held or 'nothing'}")
    outcomes = ", ".join(f"{row['decisions']} {row['outcome']}" for row in rows(_OUTCOMES, values))
    lines.append(f"Decisions: {outcomes or 'none'}")
    for latch in rows(_LATCH, values):
        lines.append(f"Trading is {latch['mode'].replace('_', ' ')}: {latch['reason']}")
    alarms = [row["title"] for row in rows(_ALARMS, values)]
    lines.append(f"Alarms: {'; '.join(alarms) or 'none'}")
    if wiring.settings.is_paper_exchange:
        lines.append("Paper money.")
    lines.append(wiring.settings.status_page_url)
    return title, "\n".join(lines)


def _equity_line(wiring: Wiring, values: dict[str, Any]) -> str:
    database = wiring.database
    links = read_links(database, wiring.account)
    last = database.row(_EQUITY, values)
    if last is None:
        return "Equity has not been measured yet."
    words = f"Equity {last['equity_quote']:,.2f} {wiring.settings.quote_currency}"
    before = database.row(_EQUITY, values | {"now": values["since"]})
    first = database.row(_FIRST_EQUITY, values | {"link": first_comparable(links)})
    for row, word in ((before, "since yesterday"), (first, "since the start")):
        counted = None if row is None else rounded(in_todays_money(Reading(**row), links))
        if counted:
            words += f", {last['equity_quote'] / counted - 1:+.2%} {word}"
    return words


def _r(row: dict[str, Any]) -> str:
    return f"{row['result_r']:+.2f} R" if row["result_r"] is not None else f"{row['realised_quote']:+,.2f}"
