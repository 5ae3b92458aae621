"""Exchange against ledger: the two views read, compared by `core.reconcile`, the report stored.

Whatever heals by itself is healed before (orders observed, fills taken in, protection converged), so that a difference
found here is one that stands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from tradewind.core.orders import LIVE
from tradewind.core.ports import LedgerTotal, Ports
from tradewind.core.reconcile import ExchangeView, LedgerView, Reconciliation, reconcile
from tradewind.core.types import Fill, Instrument, Position
from tradewind.errors import RetryError, StopError
from tradewind.jobs.equity import ensure_baseline, quote_asset
from tradewind.jobs.isolation import each_symbol
from tradewind.jobs.payments import ingest_payments, is_margined

# A fill between two readings looks like a difference: it is believed only when it stands in the next reading too.
_READINGS: Final = 3
_PAUSE_S: Final = 0.3
CLOCK_OFFSET_ALERT_MS: Final = 500.0
# A futures exchange rounds each realised result; the ledger knows the prices alone.
MARGIN_TOLERANCE: Final = Decimal("0.0001")


def compare(ports: Ports, instruments: Mapping[str, Instrument], foreign_fills: Sequence[Fill] = ()) -> Reconciliation:
    """Read both views and compare them; differences are believed only when they stand in two readings."""
    baseline = ensure_baseline(ports)
    previous: Reconciliation | None = None
    for number in range(_READINGS):
        if number:
            time.sleep(_PAUSE_S)
        report = _compare_once(ports, instruments, baseline, foreign_fills)
        if report.clean or (previous is not None and report.differences == previous.differences):
            break
        previous = report
    return report


def _compare_once(
    ports: Ports,
    instruments: Mapping[str, Instrument],
    baseline: Mapping[str, Decimal],
    foreign_fills: Sequence[Fill],
) -> Reconciliation:
    store, quote = ports.trading_store, quote_asset(ports)
    margined = is_margined(instruments)
    if margined:
        ingest_payments(ports)
    balances = ports.exchange.balances()
    answers, silent = each_symbol(ports.exchange.open_orders, sorted(instruments))
    instruments = {symbol: rules for symbol, rules in instruments.items() if symbol not in silent}
    open_orders = [order for answer in answers for order in answer]
    positions, totals = store.live_positions(), store.ledger_totals()
    exchange = ExchangeView(open_orders, foreign_fills, balances, ports.clock.now())
    ledger = LedgerView(
        orders=store.orders_in(sorted(LIVE)),
        fill_ids=frozenset(),
        asset_flows=flows_of(totals),
        baseline=baseline,
        positions=positions,
        instruments=instruments,
        assets=frozenset({quote, *_traded(ports, positions, totals)}),
        tolerances={quote: MARGIN_TOLERANCE} if margined else {},
        written_off=_written_off(ports),
    )
    return reconcile(exchange, ledger)


def _traded(ports: Ports, positions: Sequence[Position], totals: Mapping[str, LedgerTotal]) -> set[str]:
    """Assets beside the quote that trading here moves: what is configured or held, and what commissions were paid in.

    What is configured counts where nothing was bought yet, too: somebody else may have begun.
    """
    bases = {symbol.split("/")[0] for symbol in (*ports.symbols, *(position.symbol for position in positions))}
    return bases.union(*(total.other_fees for total in totals.values()))


def _written_off(ports: Ports) -> dict[str, Decimal]:
    """What was given up, by asset; negative for a short."""
    found: dict[str, Decimal] = {}
    for gone in ports.trading_store.write_offs():
        base = gone.symbol.split("/")[0]
        found[base] = found.get(base, Decimal(0)) + gone.quantity
    return found


def asset_flows(ports: Ports) -> dict[str, Decimal]:
    """What all our fills moved, by asset, net of every fee."""
    return flows_of(ports.trading_store.ledger_totals())


def flows_of(totals: Mapping[str, LedgerTotal]) -> dict[str, Decimal]:
    """The same of totals that were just read."""
    flows: dict[str, Decimal] = {}
    for symbol, total in totals.items():
        base, quote = symbol.split("/")
        for asset, moved in ((base, total.base_quantity), (quote, total.cash_quote)):
            flows[asset] = flows.get(asset, Decimal(0)) + moved
        for asset, fee in total.other_fees.items():
            flows[asset] = flows.get(asset, Decimal(0)) - fee
    return flows


def record(ports: Ports, report: Reconciliation, problems: Sequence[str] = ()) -> bool:
    """Store the report with the clock's offset; says whether entries are allowed by it.

    `problems` are what kept the caller from finishing: they block as well.
    """
    offset_ms = _clock_offset_ms(ports)
    clean = report.clean and not problems
    stored: dict[str, Any] = report.to_json()
    stored |= {"clock_offset_ms": offset_ms, "key_can_withdraw": _may_withdraw(ports), "problems": list(problems)}
    ports.trading_store.record_reconciliation(ports.wall.now(), clean, stored)
    ports.metrics.gauge("tradewind.reconciliation.clean", 1.0 if clean else 0.0)
    ports.metrics.gauge("tradewind.reconciliation.differences", len(report.differences) + len(problems))
    if not clean:
        words = [f"{d.kind.value} {d.symbol or d.subject}: {d.words}" for d in report.differences]
        ports.alerts.raise_alert(
            "warning",
            "reconciliation",
            "Exchange and ledger disagree: no entries until they agree",
            "\n".join([*words, *problems])[:2000],
        )
    return clean


def _clock_offset_ms(ports: Ports) -> float | None:
    try:
        offset_ms = ports.market_data.clock_offset_ms()
    except RetryError:
        return None
    ports.metrics.gauge("tradewind.exchange.clock_offset_ms", offset_ms)
    if abs(offset_ms) > CLOCK_OFFSET_ALERT_MS:
        ports.alerts.raise_alert(
            "warning",
            "clock-offset",
            f"This machine's clock is {offset_ms:.0f} ms off the exchange's",
            "Requests are refused beyond their window: synchronise the clock (chrony, ntpd).",
        )
    return offset_ms


def _may_withdraw(ports: Ports) -> bool | None:
    """Whether the API key may move money out of the account; None where the exchange does not tell."""
    try:
        may = ports.exchange.key_rights().can_withdraw
    except (RetryError, StopError):
        return None
    if may:
        ports.alerts.raise_alert(
            "critical",
            "key-may-withdraw",
            "The API key may withdraw: no entries until it may not",
            "Make a key that may read and trade alone, restricted to this machine's address, and delete this one.",
        )
    return may
