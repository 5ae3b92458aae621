"""Every minute: what the exchange did becomes what the ledger says, and what the ledger wants becomes what rests there.

Each position is tended (`jobs.tending`), the breach tested as a second pair of eyes beside the watch, a pending flatten
carried on, exchange compared with ledger, and a cycle that nobody started is named.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from tradewind.core.ports import Ports
from tradewind.core.timeframes import from_ms, last_closed_open_ms, timeframe_ms, to_ms
from tradewind.core.types import TradingMode
from tradewind.jobs.equity import ensure_baseline
from tradewind.jobs.permission import MANAGER
from tradewind.jobs.reconciling import compare, record
from tradewind.jobs.safety import carry_on_flatten, watch_risk_once
from tradewind.jobs.tending import foreign_fills, instruments_of, is_anybody_at_work, tend_all

START_CYCLE_AFTER_S: Final = 20.0
MISSED_AFTER_S: Final = 60.0


def manage_positions(ports: Ports) -> dict[str, Any]:
    """One minute's look. Returns counts, and `undecided_bar` when a fresh bar waits for its cycle.

    Each position's trouble is kept to itself, reported, and blocks entries; the next minute tries again.
    """
    store = ports.trading_store
    ensure_baseline(ports)
    problems = tend_all(ports)
    reading = watch_risk_once(ports, heartbeat=MANAGER)
    flattened = carry_on_flatten(ports)
    if error := ports.params_error:
        title = "The strategy's values cannot be used: entries wait"
        ports.alerts.raise_alert("warning", "strategy-file", title, error)
    report = compare(ports, instruments_of(ports), foreign_fills(ports))
    clean = report.clean and not problems
    if clean or not is_anybody_at_work(ports):
        clean = record(ports, report, problems)
    return {
        "positions": len(store.live_positions()),
        "clean": clean,
        "differences": [d.kind.value for d in report.differences],
        "problems": problems,
        "breached": reading["breached"],
        "latch_sequence": reading.get("latch_sequence"),
        "flattened": flattened,
        "undecided_bar": find_undecided_bar(ports),
    }


# ------------------------------------------------------------------------------------------------------ missed cycles
def find_undecided_bar(ports: Ports) -> str | None:
    """The newest closed bar, when its cycle was not started by itself and it may still be traded on.

    After a minute without a decision it is recorded as missed and alerted; a cycle that comes later completes it.
    """
    store, params = ports.trading_store, ports.params
    now_ms = to_ms(ports.clock.now())
    bar_ms = last_closed_open_ms(now_ms, params.decision_timeframe)
    bar = from_ms(bar_ms)
    age_s = (now_ms - bar_ms - timeframe_ms(params.decision_timeframe)) / 1000
    if age_s < START_CYCLE_AFTER_S or store.decisions(bar):
        return None
    if age_s >= MISSED_AFTER_S and store.cycle(bar) is None:
        _record_missed(ports, bar, age_s)
    landed = ports.market_store.last_open_ms(ports.symbols, params.decision_timeframe)
    has_bars = any(open_ms >= bar_ms for open_ms in landed.values())
    allowed = store.latch().mode is TradingMode.ACTIVE
    return bar.isoformat() if has_bars and allowed and age_s <= params.max_bar_age_s else None


def _record_missed(ports: Ports, bar: datetime, age_s: float) -> None:
    ports.trading_store.record_cycle(bar, "missed", MANAGER, {"age_s": age_s})
    ports.metrics.count("tradewind.cycles.missed")
    ports.alerts.raise_alert(
        "warning",
        f"missed-{bar:%Y%m%dT%H%M}",
        f"No decision for the bar of {bar:%Y-%m-%d %H:%M} UTC",
        f"{age_s:.0f} s after its close nothing was decided. See collect_candles_15m and run_trade_cycle.",
    )
