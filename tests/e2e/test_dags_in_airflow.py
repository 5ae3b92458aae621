"""The DAGs on a real stack: what Airflow makes of them, and what people can press without harm."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.dags.conftest import DAG_IDS
from tests.e2e.conftest import BAR, DAY_RUNS, RunningSystem
from tradewind.core.types import Latch, TradingMode
from tradewind.errors import BadInput
from tradewind.jobs.equity import mark_equity
from tradewind.jobs.safety import resume
from tradewind.orchestration.defaults import read_pools

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

STAGES = ("check_trading_allowed", "predict_signals", "filter_signals", "size_positions", "record_cycle")
# Without a champion there is no drift, so no training is started.
OTHERS = {
    "fill_candle_gaps": {"fill_gaps": "success"},
    "detect_regime": {"classify_bars": "success"},
    "score_sentiment": {"score_articles": "success"},
    "maintain_storage": {
        "remove_expired_rows": "success",
        "report_drift": "success",
        "start_retraining": "skipped",
        "compare_with_replay": "success",
    },
}
DECIDED = """
    SELECT 'predictions' AS stage, symbol, created_at FROM predictions WHERE bar = %(bar)s
    UNION ALL SELECT 'verdicts', symbol, created_at FROM filter_verdicts WHERE bar = %(bar)s
    UNION ALL SELECT 'decisions', symbol, created_at FROM decisions WHERE bar = %(bar)s
    ORDER BY 1, 2"""
BARS = """
    SELECT symbol, count(*) AS bars FROM candles
    WHERE timeframe = '15m' AND open_time >= %(start)s AND open_time < %(end)s GROUP BY 1"""
ORDERS = "SELECT client_order_id, state, updated_at FROM orders ORDER BY 1"


def wait_for(condition: Any, timeout_s: float, complaint: str) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, complaint
        time.sleep(0.5)
    return found


def test_every_dag_is_there_unpaused_and_without_import_errors(system: RunningSystem) -> None:
    system.airflow.wait_for_dags(DAG_IDS)
    assert system.airflow.import_errors() == []
    assert {dag["dag_id"]: dag["is_paused"] for dag in system.airflow.list_dags()} == dict.fromkeys(DAG_IDS, False)


def test_every_pool_of_the_file_was_imported(system: RunningSystem) -> None:
    pools = {pool["name"]: pool["slots"] for pool in system.airflow.pools()}
    assert {name: pools.get(name) for name in read_pools()} == {name: p["slots"] for name, p in read_pools().items()}


def test_the_watch_started_with_the_stack_and_keeps_its_heartbeat(system: RunningSystem) -> None:
    def beat() -> datetime | None:
        return system.wiring.trading_store.heartbeats().get("watch_risk")

    for _ in range(3):
        last = beat()
        wait_for(lambda last=last: beat() not in (None, last), 240, "the risk watch does not beat")
    (run,) = system.airflow.dag_runs("watch_risk", state="running")
    assert system.task_states("watch_risk", run["dag_run_id"])["watch_equity"] == "deferred"


def test_a_backfilled_day_is_96_runs_96_bars_and_wakes_nothing(system: RunningSystem) -> None:
    end = system.now()
    start = end - timedelta(days=1)
    cycles = {run["dag_run_id"] for run in system.airflow.dag_runs("run_trade_cycle")}

    def backfill(first: datetime, reprocess: str) -> None:
        made = system.airflow.create_backfill(
            "collect_candles_15m", first, end - BAR, max_active_runs=8, reprocess=reprocess
        )
        system.airflow.wait_backfill(made["id"], timeout_s=400)

    backfill(start, "none")
    runs = system.airflow.dag_runs("collect_candles_15m", run_type="backfill")
    assert len(runs) == DAY_RUNS
    assert {run["state"] for run in runs} == {"success"}
    (task,) = system.airflow.task_instances("collect_candles_15m", runs[0]["dag_run_id"])
    assert task["pool"] == "bulk"
    stored = {row["symbol"]: row["bars"] for row in system.rows(BARS, start=start, end=end)}
    assert stored == dict.fromkeys(system.settings.symbols, DAY_RUNS)

    total = system.rows("SELECT count(*) AS n FROM candles")
    backfill(end - 12 * BAR, "completed")
    assert system.rows("SELECT count(*) AS n FROM candles") == total
    assert {run["dag_run_id"] for run in system.airflow.dag_runs("run_trade_cycle")} == cycles


@pytest.mark.parametrize("dag_id", ["run_trade_cycle", "manage_positions", "watch_risk", "trip_circuit_breaker"])
def test_what_moves_money_cannot_be_backfilled(system: RunningSystem, dag_id: str) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with pytest.raises(BadInput, match=r"with 4[02]\d"):
        system.airflow.create_backfill(dag_id, yesterday, yesterday + BAR)
    assert system.airflow.dag_runs(dag_id, run_type="backfill") == []


@pytest.fixture(scope="module")
def cycle(system: RunningSystem) -> dict[str, Any]:
    """A finished trade cycle that the newest candles woke, with its bar."""
    known = {run["dag_run_id"] for run in system.airflow.dag_runs("run_trade_cycle")}
    system.admin.step(1)
    bar = system.now() - BAR
    assert system.run("collect_candles_15m")["state"] == "success"
    woken = wait_for(
        lambda: [r for r in system.airflow.dag_runs("run_trade_cycle") if r["dag_run_id"] not in known],
        60,
        "closed_candles_15m woke no trade cycle",
    )
    run = system.airflow.wait_dag_run("run_trade_cycle", woken[0]["dag_run_id"])
    return {**run, "bar": bar}


def test_closed_candles_wake_a_cycle_that_decides_on_every_symbol(system: RunningSystem, cycle: dict[str, Any]) -> None:
    assert (cycle["state"], cycle["run_type"]) == ("success", "asset_triggered")
    states = system.task_states("run_trade_cycle", cycle["dag_run_id"])
    assert {states[stage] for stage in STAGES} == {"success"}
    decided = system.rows("SELECT symbol FROM decisions WHERE bar = %(bar)s", bar=cycle["bar"])
    assert {row["symbol"] for row in decided} == set(system.settings.symbols)


@pytest.mark.parametrize("tasks", [[stage] for stage in STAGES] + [None], ids=[*STAGES, "all"])
def test_clearing_a_finished_cycle_rewrites_nothing_and_sends_nothing(
    system: RunningSystem, cycle: dict[str, Any], tasks: list[str] | None
) -> None:
    # The market goes on: a cleared run must repeat its own bar, not decide on the newest.
    system.admin.step(1)
    decided, orders = system.rows(DECIDED, bar=cycle["bar"]), system.rows(ORDERS)
    bars = system.rows("SELECT DISTINCT bar FROM decisions ORDER BY 1")
    exchange = system.admin.state()
    assert decided
    assert system.airflow.clear_tasks("run_trade_cycle", cycle["dag_run_id"], tasks)
    time.sleep(1)
    run = system.airflow.wait_dag_run("run_trade_cycle", cycle["dag_run_id"])
    assert run["state"] == "success"
    assert system.rows(DECIDED, bar=cycle["bar"]) == decided
    assert system.rows("SELECT DISTINCT bar FROM decisions ORDER BY 1") == bars
    assert system.rows(ORDERS) == orders
    assert system.admin.state() == exchange


def test_a_cycle_can_be_triggered_for_a_named_bar(system: RunningSystem, cycle: dict[str, Any]) -> None:
    run = system.run("run_trade_cycle", {"bar": cycle["bar"].isoformat()})
    assert run["state"] == "success"
    assert run["run_type"] == "manual"


def test_a_bar_that_is_no_moment_is_refused_at_once(system: RunningSystem) -> None:
    with pytest.raises(BadInput, match="bar"):
        system.airflow.trigger_dag("run_trade_cycle", conf={"bar": "yesterday"})


def test_positions_are_managed_and_reconciled(system: RunningSystem) -> None:
    assert system.run("manage_positions")["state"] == "success"
    assert system.wiring.trading_store.last_reconciliation() is not None


@pytest.mark.parametrize("dag_id", ["fill_candle_gaps", "detect_regime", "score_sentiment", "maintain_storage"])
def test_the_other_dags_do_their_work(system: RunningSystem, dag_id: str) -> None:
    run = system.run(dag_id)
    assert (run["state"], system.task_states(dag_id, run["dag_run_id"])) == ("success", OTHERS[dag_id])


def test_a_failed_run_raises_an_alert(system: RunningSystem) -> None:
    conf = {"symbols": ["NOSUCH/USDT"], "timeframes": ["15m"]}
    assert system.run("backfill_history", conf)["state"] == "failed"
    alert = "SELECT severity, title FROM alerts WHERE key = 'dag_failed:backfill_history'"
    (row,) = wait_for(lambda: system.rows(alert), 240, "no alert was raised for the failed run")
    assert row == {"severity": "warning", "title": "backfill_history failed"}


def test_a_breach_trips_the_breaker_once_and_a_new_watch_follows(system: RunningSystem) -> None:
    ports = system.wiring
    system.admin.step(1)
    # A peak that the account never had, seven seconds ago: the drawdown from it is 50 %.
    ports.trading_store.record_equity("mark", ports.clock.now() - timedelta(seconds=7), mark_equity(ports) * 2)
    latch = wait_for(lambda: _halted(system), 240, "the watch latched nothing")
    run_id = f"breach__latch_{latch.sequence}"
    try:
        wait_for(lambda: system.airflow.dag_runs("trip_circuit_breaker"), 240, "nobody started trip_circuit_breaker")
        assert system.airflow.wait_dag_run("trip_circuit_breaker", run_id)["state"] == "success"
        work = ports.trading_store.flattening(latch.sequence)
        assert work is not None
        assert work.verified_flat_at is not None
    finally:
        # Every run left of the breach must be gone before the latch opens.
        resume(ports, "test")

    def watching() -> bool:
        beat = ports.trading_store.heartbeats()["watch_risk"]
        return bool(system.airflow.dag_runs("watch_risk", state="running")) and beat > ports.trading_store.latch().since

    wait_for(watching, 240, "no watch followed the breach")
    system.airflow.clear_tasks("trip_circuit_breaker", run_id)
    time.sleep(1)
    system.airflow.wait_dag_run("trip_circuit_breaker", run_id)
    assert system.task_states("trip_circuit_breaker", run_id) == {"flatten_and_verify": "skipped"}
    assert ports.trading_store.latch().mode is TradingMode.ACTIVE


def _halted(system: RunningSystem) -> Latch | None:
    latch = system.wiring.trading_store.latch()
    return latch if latch.mode is TradingMode.HALTED else None
