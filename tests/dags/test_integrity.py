"""The conventions that every DAG keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.sdk import DAG

from tests.dags.conftest import DAG_FILES, DAG_IDS
from tests.support.airflow_home import PROJECT_DIR
from tradewind.orchestration.defaults import BACKFILL, RESERVED_SLOTS, Pool, read_pools
from tradewind.stack.environment import PARALLELISM

ALL = {
    "collect_candles_15m", "collect_candles_1h", "backfill_history", "fill_candle_gaps", "detect_regime",
    "score_sentiment", "retrain_models", "run_trade_cycle", "manage_positions", "watch_risk", "trip_circuit_breaker",
    "resume_trading", "maintain_storage",
}  # fmt: skip
MONEY = {"run_trade_cycle", "manage_positions", "watch_risk", "trip_circuit_breaker", "resume_trading"}
COLLECTING = {"collect_candles_15m", "collect_candles_1h"}
OWNERS = {"market-data", "research", "trading", "risk", "operations"}
BUTTONS = ("**Clear**", "**Mark success**", "**Retry**", "**Backfill**")
# Parsing happens every minute for every file: what only tasks need is imported in the tasks.
HEAVY = ("numpy", "pandas", "ccxt", "psycopg", "redis", "lightgbm", "tradewind.wiring", "tradewind.jobs")


def test_there_is_one_file_for_each_dag_and_nothing_else(dags: dict[str, DAG]) -> None:
    assert set(dags) == ALL == set(DAG_IDS)
    assert {dag.dag_id: Path(dag.fileloc).stem for dag in dags.values()} == {name: name for name in ALL}


@pytest.mark.parametrize("path", DAG_FILES, ids=DAG_IDS)
def test_file_is_short(path: Path) -> None:
    assert 40 <= len(path.read_text().splitlines()) <= 80


def test_says_what_it_does_and_what_the_buttons_do(dag: DAG) -> None:
    assert dag.doc_md is not None
    summary, _, rest = dag.doc_md.partition("\n")
    assert summary.endswith(".")
    assert len(summary) <= 80
    does, heading, buttons = rest.partition("## What the buttons do")
    assert len(does.split()) > 25
    assert heading
    assert [button for button in BUTTONS if button not in buttons] == []


def test_has_owner_tags_and_starts_unpaused(dag: DAG) -> None:
    assert {task.owner for task in dag.tasks} <= OWNERS
    assert len(dag.tags) >= 2
    # Airflow creates DAGs paused: a stack that was just started would collect and protect nothing.
    assert dag.is_paused_upon_creation is False
    assert dag.catchup is False


def test_the_money_tag_marks_the_dags_that_can_move_money(dags: dict[str, DAG]) -> None:
    assert {dag_id for dag_id, dag in dags.items() if "money" in dag.tags} == MONEY


def test_every_task_has_a_timeout_a_backoff_and_a_pool_that_exists(dag: DAG) -> None:
    pools = read_pools()
    for task in dag.tasks:
        assert task.pool in pools, task.task_id
        assert task.queue == task.pool, task.task_id
        assert task.execution_timeout is not None, task.task_id
        assert task.retry_delay > timedelta(0), task.task_id
        assert task.weight_rule is not None, task.task_id


def test_money_moves_one_run_at_a_time(dags: dict[str, DAG]) -> None:
    assert {dag_id: dags[dag_id].max_active_runs for dag_id in MONEY} == dict.fromkeys(MONEY, 1)


def test_money_work_is_in_the_trading_pool_and_goes_first(dags: dict[str, DAG]) -> None:
    money = [task for dag_id in MONEY for task in dags[dag_id].tasks]
    other = [task for dag_id in ALL - MONEY for task in dags[dag_id].tasks]
    assert {task.pool for task in money} == {Pool.TRADING}
    assert Pool.TRADING not in {task.pool for task in other}
    assert min(task.priority_weight for task in money) > max(task.priority_weight for task in other)


def test_only_collection_accepts_backfills(dags: dict[str, DAG]) -> None:
    accepting = {
        dag_id for dag_id, dag in dags.items() if dag.allowed_run_types is None or BACKFILL in dag.allowed_run_types
    }
    assert accepting == COLLECTING


def test_whatever_is_queued_three_slots_stay_free_for_trading() -> None:
    pools = read_pools()
    assert set(pools) == {pool.value for pool in Pool}
    others = sum(pool["slots"] for name, pool in pools.items() if name != Pool.TRADING)
    assert others <= PARALLELISM - RESERVED_SLOTS
    assert pools[Pool.TRADING]["slots"] >= PARALLELISM


def test_parsing_imports_nothing_heavy() -> None:
    code = (
        "import runpy, sys; from pathlib import Path\n"
        "import airflow.sdk\n"
        "before = set(sys.modules)\n"
        f"[runpy.run_path(str(path)) for path in sorted(Path({str(PROJECT_DIR / 'dags')!r}).glob('*.py'))]\n"
        f"print(*[name for name in {HEAVY!r} if name in set(sys.modules) - before])"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_DIR / "include")}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert (answer.returncode, answer.stdout.split()) == (0, []), answer.stderr
