"""From a closed bar to a bracket, from a breach to a flat account, on the whole stack through the real scheduler.

The market is stepped and synthetic. Entries come from a champion that says yes (`trading_stack.PROBABILITIES`):
filters, sizes and limits are the shipped ones. Between cycles the account is flattened and resumed, so that each may
enter anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any, Final

from tradewind.bench.rows import BenchOptions, Row, percentile, row_of, seconds
from tradewind.bench.trading_stack import BAR, TradingStack, trading_stack, wait_until
from tradewind.core.brackets import floor_to_step
from tradewind.core.decision import filter_candidates, predict, size_candidates
from tradewind.core.features import LIVE_WINDOW_BARS, compute_features
from tradewind.core.market_numbers import market_numbers
from tradewind.core.orders import LIVE, intent_id
from tradewind.core.timeframes import to_ms
from tradewind.core.types import BracketLot, Decision, Intent, Outcome, Side, TradingMode
from tradewind.errors import NotFlatYet, StackFailed, TradewindError
from tradewind.jobs import positions, safety, trading
from tradewind.jobs.permission import permission_now
from tradewind.jobs.tending import tend_all
from tradewind.jobs.trading_inputs import champion, read_inputs

BENCH: Final = "trading"
CYCLES: Final = 20
BREACHES: Final = 10
REPLACEMENTS: Final = 20
DELAY_EACH_WAY_S: Final = 0.15
_CRASH_FRAC: Final = 0.06
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
        "stop replacements with a slow network": lambda s: _replacement_rows(s, max(REPLACEMENTS // share, 2)),
        "breaches": lambda system: _breach_rows(system, max(BREACHES // share, 1), options),
        "a breach without the triggerer": _blind_breach_rows,
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
        _start_anew(system)
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


def _start_anew(system: TradingStack) -> None:
    """Leave everything and open the latch again; a flatten that meets a busy task is repeated, as a person would."""
    ports = system.wiring
    if ports.trading_store.latch().mode is not TradingMode.HALTED:
        ports.trading_store.set_latch(TradingMode.HALTED, "bench", ports.wall.now(), actor="bench")
    _flatten(system)
    wait_until(lambda: not ports.trading_store.live_positions(), 60, "the account did not become flat", 0.2)
    safety.resume(ports, "bench")


def _flatten(system: TradingStack) -> None:
    for _ in range(20):
        try:
            safety.trip_circuit_breaker(system.wiring, "bench", "bench")
            return
        except NotFlatYet:
            time.sleep(0.5)


# -------------------------------------------------------------------------------------------------------------- compute
def _compute_rows(system: TradingStack) -> list[Row]:
    """One bar's decision for all symbols in this process, its libraries loaded, without reading or writing rows."""
    ports = system.wiring
    bar = system.now() - BAR
    read, (model, _) = read_inputs(ports, bar), champion(ports)
    symbols = tuple(dict.fromkeys((*ports.symbols, ports.params.leader_symbol)))
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


# --------------------------------------------------------------------------------------------------------- replacements
def _enter(system: TradingStack, symbol: str, notional: Decimal, stop_frac: Decimal) -> str:
    """An entry at the market that the bench decides itself, sent by the job that sends every entry."""
    ports = system.wiring
    bar = system.now() - BAR
    book = ports.exchange.book_tops([symbol])[symbol]
    instrument = ports.exchange.instruments([symbol])[symbol]
    tick = instrument.tick_size
    limit = floor_to_step(book.ask * Decimal("1.002"), tick)
    stop = floor_to_step(book.ask * (1 - stop_frac), tick)
    target = floor_to_step(book.ask * (1 + stop_frac), tick)
    quantity = floor_to_step(notional / limit, instrument.step_size)
    version = ports.params.strategy_version
    # Not the cycle's own name for this symbol and bar.
    moment = bar - timedelta(days=400) + timedelta(milliseconds=time.monotonic_ns() // 1_000_000 % 10**9)
    identity = intent_id(ports.account, version, symbol, moment)
    intent = Intent(
        intent_id=identity,
        account=ports.account,
        strategy_version=version,
        symbol=symbol,
        side=Side.LONG,
        bar=moment,
        entry_limit_price=limit,
        stop_price=stop,
        lots=(BracketLot(0, quantity, target),),
        atr_quote=float(book.ask - stop) / 2.5,
        risk_quote=quantity * (limit - stop),
        notional_quote=quantity * limit,
        expected_r=0.5,
        expires_at=ports.clock.now() + timedelta(minutes=3),
    )
    ports.trading_store.insert_decisions(
        [Decision(ports.account, version, symbol, moment, Outcome.INTENT, "", (), None, None, None, intent)]
    )
    trading.place_brackets(ports, identity)
    return identity


def _replacement_rows(system: TradingStack, count: int) -> list[Row]:
    ports = system.wiring
    wait_until(lambda: ports.trading_store.latch().mode is TradingMode.ACTIVE, 10, "the latch is closed")
    positions.manage_positions(ports)
    position_id = _enter(system, ports.symbols[0], Decimal(5000), Decimal("0.2"))
    rule = system.admin.add_fault("delay", path="/api/v3/*", seconds=2 * DELAY_EACH_WAY_S)
    store = ports.trading_store
    spans: list[float] = []
    for _ in range(count):
        before = len(store.unprotected_spans(position_id))
        with store.position_lock(position_id) as held:
            position = store.position(position_id)
            if not held or position is None:
                continue
            tick = ports.exchange.instruments([position.symbol])[position.symbol].tick_size
            moved = floor_to_step(position.stop_price * Decimal("1.003"), tick)
            store.save_position(replace(position, stop_price=moved), "stop_moved", ports.clock.now())
        tend_all(ports, apply_rules=False)
        spans += [span.seconds for span in store.unprotected_spans(position_id)[before:] if span.seconds is not None]
    system.admin.clear_faults(rule["id"])
    _start_anew(system)
    what = f"unprotected while a stop is replaced, {DELAY_EACH_WAY_S * 1000:.0f} ms each way, {len(spans)} times"
    return [
        Row(BENCH, f"{what}, p95", percentile(spans, 0.95), "s", 1.0, spread=(min(spans), max(spans))),
        Row(BENCH, f"{what}, longest", max(spans), "s", 2.0),
    ]


# ------------------------------------------------------------------------------------------------------------- breaches
def _hold_five(system: TradingStack) -> list[str]:
    """Five positions with most of the capital in them, their stops far below the crash."""
    positions.manage_positions(system.wiring)
    _await_permission(system)
    symbols = system.wiring.symbols[:5]
    capital = system.wiring.settings.paper_capital_quote
    return [_enter(system, symbol, capital * Decimal("0.17"), Decimal("0.3")) for symbol in symbols]


def _await_permission(system: TradingStack) -> None:
    try:
        wait_until(lambda: permission_now(system.wiring).allowed, 60, "entries are not allowed", 0.5)
    except StackFailed as error:
        raise StackFailed(f"{error}: {'; '.join(permission_now(system.wiring).reasons)}") from None


def _breach(system: TradingStack) -> tuple[float, float]:
    """Crash the market with five positions open: seconds to the latch, and to the account verified flat."""
    store = system.wiring.trading_store
    held = len(_hold_five(system))
    open_now = len([p for p in store.live_positions() if p.quantity > 0])
    if open_now < held:
        system.notes.append(f"{open_now} of {held} positions stood at a breach")
    system.admin.shock(-_CRASH_FRAC)
    started_s = time.monotonic()
    wait_until(lambda: store.latch().mode is TradingMode.HALTED, 120, "the latch was not written")
    latched_s = time.monotonic() - started_s
    sequence = store.latch().sequence

    def verified() -> bool:
        work = store.flattening(sequence)
        return work is not None and work.verified_flat_at is not None

    wait_until(verified, 120, "the account was not verified flat")
    return latched_s, time.monotonic() - started_s


def _breach_rows(system: TradingStack, count: int, options: BenchOptions) -> list[Row]:
    latched, flat = [], []
    for number in range(count):
        to_latch_s, to_flat_s = _breach(system)
        latched.append(to_latch_s)
        flat.append(to_flat_s)
        options.say(f"breach {number + 1}: latched after {to_latch_s:.1f} s, flat after {to_flat_s:.1f} s")
        _after_breach(system)
    return [
        _p95(f"breach to latch written, p95 of {count}", latched, 4.0),
        _p95(f"breach to verified flat, 5 positions, p95 of {count}", flat, 15.0),
    ]


def _blind_breach_rows(system: TradingStack) -> list[Row]:
    _hold_five(system)
    system.kill("triggerer")
    system.admin.shock(-_CRASH_FRAC)
    store = system.wiring.trading_store
    took_s = wait_until(lambda: store.latch().mode is TradingMode.HALTED, 150, "the latch was not written")
    _start_anew(system)
    return [Row(BENCH, "breach to latch written, triggerer killed", took_s, "s", 75.0)]


def _after_breach(system: TradingStack) -> None:
    """Resume, the crash undone, so that the next one falls from the same height; the watch needs a moment to return."""
    system.admin.shock(1 / (1 - _CRASH_FRAC) - 1)
    _start_anew(system)
    wait_until(lambda: _watches(system), 60, "the watch did not return", 0.5)


def _watches(system: TradingStack) -> bool:
    beats: Mapping[str, datetime] = system.wiring.trading_store.heartbeats()
    beat = beats.get("watch_risk")
    return beat is not None and (datetime.now(beat.tzinfo) - beat).total_seconds() < 3


def _p95(what: str, values: list[float], bound_s: float) -> Row:
    return Row(BENCH, what, percentile(values, 0.95), "s", bound_s, spread=(min(values), max(values)))
