"""Readings of equity: the day's opening, one mark a minute and every peak, and the breaker's test of one."""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from tradewind.core.ports import Ports
from tradewind.core.risk import Breach, breached
from tradewind.core.transfers import EquityRecord, rounded
from tradewind.jobs.equity import Mark, day_start, mark

# An opening reading taken this soon after midnight is the day's own; later, the last one before midnight is nearer.
_OPENING: Final = timedelta(minutes=2)


def open_day(ports: Ports, marked: Mark | None = None) -> dict[str, Any]:
    """Keep the opening equity of the UTC day, once: now, else the last reading before midnight, else the first one."""
    store, now = ports.trading_store, ports.clock.now()
    midnight, record = day_start(now), store.equity_record(now)
    if record.last_link is not None and record.last_link.after_quote is None:
        marked = mark(ports)
        record = marked.record
    if record.opening is not None:
        return _opened(record, midnight, "kept")
    earlier = record.before_midnight
    if now - midnight <= _OPENING or record.day_open_quote is None or earlier is None:
        source, reading = "marked now", (marked or mark(ports)).reading
    else:
        source, reading = "the last reading before midnight", earlier
    store.open_day(midnight, reading.equity_quote, link=reading.link, source=source)
    return _opened(store.equity_record(now), midnight, source)


def _opened(record: EquityRecord, midnight: datetime, source: str) -> dict[str, Any]:
    return {"day": midnight.date().isoformat(), "equity_quote": str(rounded(record.day_open_quote)), "from": source}


def keep_mark(ports: Ports, marked: Mark) -> None:
    """Keep one reading a minute, and every new peak; say what is in it at no price of now."""
    peak, unpriced = marked.record.peak_quote, marked.priced.unpriced
    told = {"unpriced": sorted(unpriced), "fees_not_valued": list(marked.not_valued)}
    ports.trading_store.keep_mark(
        marked.at,
        marked.equity_quote,
        link=marked.reading.link,
        is_peak=peak is None or marked.equity_quote > peak,
        **{name: names for name, names in told.items() if names},
    )
    ports.metrics.gauge("tradewind.equity_quote", float(marked.equity_quote))
    ports.metrics.gauge("tradewind.positions.unpriced", float(len(unpriced)))
    for symbol, reason in unpriced.items():
        known = marked.priced.known[symbol]
        ports.alerts.raise_alert(
            "warning",
            f"unpriced-{symbol}",
            f"{symbol} has no price: what is held of it is marked at its last known one",
            f"{reason}. Marked at {known.bid:f} of {known.at:%Y-%m-%d %H:%M:%S} UTC. The breaker watches the others.",
        )


def breach_of(ports: Ports, marked: Mark) -> Breach | None:
    """The breaker's test of a mark; what is held and cannot be measured is alerted."""
    record, usable = marked.record, ports.max_capital_quote
    if marked.held and (blind := record.blind_spots()):
        title = "The breaker has nothing to measure a loss against"
        ports.alerts.raise_alert("critical", "breaker-blind", title, "\n".join(blind))
    return breached(
        Fraction(marked.equity_quote),
        record.day_open_quote,
        record.peak_quote,
        ports.params,
        None if usable is None else Fraction(usable),
    )
