"""From a closed bar to a bracket, from a breach to a flat account, on the whole stack through the real scheduler.

The market is stepped and synthetic. Entries come from a champion that says yes (`trading_stack.PROBABILITIES`):
filters, sizes and limits are the shipped ones. Between cycles the account is flattened and resumed, so that each may
enter anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime
from statistics import median
from typing import Any, Final

from tradewind.bench.rows import BenchOptions, Row, percentile, row_of, seconds
from tradewind.bench.trading_dangers import BENCH, blind_breach_rows, breach_rows, outage_rows, replacement_rows
from tradewind.bench.trading_stack import BAR, TradingStack, start_anew, trading_stack, wait_until
from tradewind.core.decision import filter_candidates, predict, size_candidates
from tradewind.core.features import LIVE_WINDOW_BARS, compute_features
from tradewind.core.market_numbers import market_numbers
from tradewind.core.orders import LIVE
from tradewind.core.timeframes import to_ms
from tradewind.errors import TradewindError
from tradewind.jobs.fetching import market_symbols
from tradewind.jobs.trading_inputs import champion, read_inputs

CYCLES: Final = 20
BREACHES: Final = 10
REPLACEMENTS: Final = 20
_STAGES: Final = ("check_trading_allowed", "predict_signals", "filter_signals", "size_positions", "place_brackets")
_ENTRY_STATES: Final = """
    SELECT state FROM orders o JOIN positions p USING (position_id)
    WHERE o.account = %(account)s AND o.role = 'entry' AND p.bar = %(bar)s"""
_INTENTS: Final = """
    SELECT count(intent_id) AS n, count(*) AS decided FROM decisions WHERE account = %(account)s AND bar = %(bar)s"""
_CYCLE: Final = "SELECT state FROM cycles WHERE account = %(account)s AND bar = %(bar)s"


def measure(options: BenchOptions) -> list[Row]:
    """All rows of the trading bench; needs about ten minutes. A part that fails is a row that holds to nothing."""
    share = 10 if options.quick else 1
    parts: dict[str, Callable[[TradingStack], list[Row]]] = {
        "cycles": lambda system: _cycle_rows(system, max(CYCLES // share, 2), options),
        "compute of one bar": _compute_rows,
        "stop replacements with a slow network": lambda s: replacement_rows(s, max(REPLACEMENTS // share, 2)),
        "breaches": lambda system: breach_rows(system, max(BREACHES // share, 1), options),
        "a breach without the triggerer": blind_breach_rows,
        "outages": outage_rows,
    }
    rows: list[Row] = []
    with trading_stack(options) as system:
        for name, part in parts.items():
            options.say(name)
            try:
                rows += part(system)
            except TradewindError as error:
                rows.append(Row(BENCH, f"{name} failed: {error}", math.nan, "s", 0.0))
                options.say(f"{name} failed: {error}")
    return rows


# --------------------------------------------------------------------------------------------------------------- cycles
def _cycle_rows(system: TradingStack, cycles: int, options: BenchOptions) -> list[Row]:
    totals: list[float] = []
    spans: dict[str, list[float]] = {}
    entries = 0
    for number in range(cycles):
        took_s, placed, parts = _one_cycle(system)
        if took_s is not None:
            totals.append(took_s)
            entries += placed
            for name, span_s in parts.items():
                spans.setdefault(name, []).append(span_s)
        options.say(f"cycle {number + 1}: {placed} entries, {took_s or math.nan:.1f} s")
        start_anew(system)
    what = f"bar available to bracket acknowledged, {len(system.settings.symbols)} symbols"
    if not totals:
        return [Row(BENCH, f"{what}: no entry was ever decided", math.nan, "s", 8.0)]
    rows = [
        row_of(BENCH, f"{what}, median of {len(totals)} cycles with {entries} entries", totals, "s", 8.0),
        Row(BENCH, f"{what}, p95", percentile(totals, 0.95), "s", 12.0),
    ]
    return rows + [Row(BENCH, f"of it {name}, median", median(found), "s") for name, found in spans.items()]


def _one_cycle(system: TradingStack) -> tuple[float | None, int, dict[str, float]]:
    """One bar through the DAGs: seconds until every entry is acknowledged (None without one), entries, spans."""
    bar = system.step()
    key = {"account": system.wiring.account, "bar": bar}
    database = system.wiring.database
    known = {run["dag_run_id"] for run in system.airflow.newest_runs("run_trade_cycle", count=5)}
    available = datetime.now().astimezone()
    started_s = time.monotonic()
    collect = f"bench__{bar:%Y%m%dT%H%M}"
    system.airflow.trigger_dag("collect_candles_15m", conf={}, run_id=collect)
    wait_until(lambda: (database.row(_INTENTS, key) or {})["decided"] > 0, 90, f"nothing was decided on {bar}")
    intents = int((database.row(_INTENTS, key) or {})["n"])
    took_s = None
    if intents:
        wait_until(lambda: _acknowledged(database.rows(_ENTRY_STATES, key), intents), 90, f"no bracket on {bar}")
        took_s = time.monotonic() - started_s
    wait_until(lambda: database.row(_CYCLE, key) is not None, 90, f"the cycle of {bar} was not recorded")
    runs = [run for run in system.airflow.newest_runs("run_trade_cycle", count=5) if run["dag_run_id"] not in known]
    return took_s, intents, _spans(system, available, collect, runs)


def _acknowledged(orders: list[dict[str, Any]], intents: int) -> bool:
    live = {state.value for state in LIVE}
    return len(orders) >= intents and not any(order["state"] in live for order in orders)


def _spans(system: TradingStack, available: datetime, collect: str, runs: list[dict[str, Any]]) -> dict[str, float]:
    """Where the time went: the collection, the hop from its end to the cycle's first task, and each stage."""
    (task,) = system.airflow.task_instances("collect_candles_15m", collect)
    ended = _moment(task["end_date"])
    found = {"collect": (ended - available).total_seconds()}
    if not runs:
        return found
    tasks = system.airflow.task_instances("run_trade_cycle", runs[0]["dag_run_id"])
    times: dict[str, list[tuple[datetime, datetime]]] = {}
    for row in tasks:
        if row["start_date"] and row["end_date"]:
            times.setdefault(row["task_id"], []).append((_moment(row["start_date"]), _moment(row["end_date"])))
    for stage in _STAGES:
        if stage in times:
            begun, over = min(start for start, _ in times[stage]), max(end for _, end in times[stage])
            if stage == _STAGES[0]:
                found["hop to the cycle"] = (begun - ended).total_seconds()
            found[stage] = (over - begun).total_seconds()
    return found


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


# -------------------------------------------------------------------------------------------------------------- compute
def _compute_rows(system: TradingStack) -> list[Row]:
    """One bar's decision for all symbols in this process, its libraries loaded, without reading or writing rows."""
    ports = system.wiring
    bar = system.now() - BAR
    read, (model, _) = read_inputs(ports, bar), champion(ports)
    symbols = market_symbols(ports)
    bars = ports.market_store.read_last_bars(symbols, "15m", to_ms(bar + BAR), LIVE_WINDOW_BARS)
    leader = bars[ports.params.leader_symbol]

    def features() -> None:
        for symbol in ports.symbols:
            compute_features(bars[symbol], leader, ports.params)
            market_numbers(bars[symbol], ports.params)

    def decide() -> None:
        predicted = predict(read.inputs, model, read.features)
        size_candidates(predicted, filter_candidates(predicted))

    decide()
    features()
    decided = [seconds(decide) for _ in range(5)]
    computed = [seconds(features) for _ in range(5)]
    count = len(ports.symbols)
    both = [first + second for first, second in zip(decided, computed, strict=True)]
    return [
        row_of(BENCH, f"predict, filter and size for {count} symbols, their features included", both, "s", 1.0),
        row_of(BENCH, "of it features and market numbers", computed, "s"),
        row_of(BENCH, "of it predict, filter and size", decided, "s"),
    ]
