"""What each DAG is made of: schedule, tasks, order, mapping, triggering."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from airflow.sdk import DAG

from tradewind.orchestration.assets import CLOSED_CANDLES_15M, COLLECTED_1H, COLLECTED_15M
from tradewind.orchestration.defaults import RunType

CHAIN = [
    "check_trading_allowed", "predict_signals", "filter_signals", "size_positions", "place_brackets", "record_cycle",
]  # fmt: skip
CRON = {
    "collect_candles_15m": "*/15 * * * *",
    "collect_candles_1h": "0 * * * *",
    "fill_candle_gaps": "7 * * * *",
    "score_sentiment": "*/20 * * * *",
    "retrain_models": "20 3 * * SUN",
    "manage_positions": "* * * * *",
    "maintain_storage": "40 1 * * *",
}


def triggers(dag: DAG) -> dict[str, dict[str, object]]:
    """Arguments of the DAG's TriggerDagRunOperators by task id."""
    return {task.task_id: task.partial_kwargs for task in dag.tasks if task.task_type == "TriggerDagRunOperator"}


@pytest.mark.parametrize("dag_id", CRON)
def test_schedules_are_cron_in_utc(dags: dict[str, DAG], dag_id: str) -> None:
    timetable = dags[dag_id].timetable
    assert timetable.expression == CRON[dag_id]
    assert str(timetable.timezone) == "UTC"
    kind = "CronDataIntervalTimetable" if dag_id.startswith("collect") else "CronTriggerTimetable"
    assert type(timetable).__name__ == kind


@pytest.mark.parametrize(("dag_id", "length"), [("collect_candles_15m", 15), ("collect_candles_1h", 60)])
def test_a_collecting_run_owns_the_interval_that_has_just_closed(
    dags: dict[str, DAG], dag_id: str, length: int
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import DataInterval, TimeRestriction
    from pendulum import instance

    core = DagSerialization.from_dict(DagSerialization.to_dict(dags[dag_id])).timetable
    end = instance(datetime(2026, 3, 29, 2, 0, tzinfo=UTC))  # Europe's clocks change in this hour; UTC's do not
    last = DataInterval(end.subtract(minutes=length), end)
    info = core.next_dagrun_info(
        last_automated_data_interval=last, restriction=TimeRestriction(None, end.add(days=1), catchup=True)
    )
    assert (info.data_interval.start, info.data_interval.end) == (end, end.add(minutes=length))
    assert info.run_after == end.add(minutes=length)


def test_collection_owns_aliases_and_no_asset(dags: dict[str, DAG]) -> None:
    assert dags["collect_candles_15m"].get_task("collect_candles").outlets == [COLLECTED_15M]
    assert dags["collect_candles_1h"].get_task("collect_candles").outlets == [COLLECTED_1H]


@pytest.mark.parametrize("dag_id", ["run_trade_cycle", "detect_regime"])
def test_closed_candles_wake(dags: dict[str, DAG], dag_id: str) -> None:
    assert dags[dag_id].schedule == [CLOSED_CANDLES_15M]


def test_the_cycle_is_one_chain_and_only_orders_are_mapped(dags: dict[str, DAG]) -> None:
    dag = dags["run_trade_cycle"]
    assert [task.task_id for task in dag.topological_sort()] == CHAIN
    for first, then in pairwise(CHAIN):
        assert then in dag.get_task(first).downstream_task_ids
    assert [task.task_id for task in dag.tasks if task.is_mapped] == ["place_brackets"]


def test_the_cycle_is_recorded_whatever_happened_and_an_order_is_sent_once(dags: dict[str, DAG]) -> None:
    dag = dags["run_trade_cycle"]
    assert dag.get_task("record_cycle").trigger_rule == "all_done"
    assert dag.get_task("place_brackets").retries == 0
    assert all(dag.get_task(name).retries > 0 for name in CHAIN if name != "place_brackets")
    assert dag.allowed_run_types == {RunType.ASSET_TRIGGERED, RunType.MANUAL, RunType.OPERATOR_TRIGGERED}


def test_the_bar_is_a_moment_or_nothing(dags: dict[str, DAG]) -> None:
    bar = dags["run_trade_cycle"].params.get_param("bar")
    assert bar.resolve() is None
    assert bar.resolve("2026-01-31T14:15:00+00:00")
    assert bar.resolve("2026-01-31T14:15:00.000000Z")
    for nonsense in ("today", "2026-01-31", "2026-01-31T14:15:00", "'; DROP TABLE orders"):
        with pytest.raises(ValueError, match="does not match"):
            bar.resolve(nonsense)


def test_watching_never_ends(dags: dict[str, DAG]) -> None:
    dag = dags["watch_risk"]
    assert type(dag.timetable).__name__ == "ContinuousTimetable"
    watch = dag.get_task("watch_equity")
    assert watch.retries * watch.retry_delay > timedelta(days=5)
    assert not watch.retry_exponential_backoff
    assert watch.execution_timeout > timedelta(days=1)
    assert watch.upstream_task_ids == set()
    # Anything else that retried for long would keep the next watch from starting.
    others = [task for task in dag.tasks if task is not watch]
    assert all(task.retries * task.execution_timeout < timedelta(minutes=10) for task in others)


def test_only_a_result_starts_another_dag_and_each_start_is_named(dags: dict[str, DAG]) -> None:
    starts = {dag_id: triggers(dag) for dag_id, dag in dags.items() if triggers(dag)}
    assert {dag_id: set(found) for dag_id, found in starts.items()} == {
        "watch_risk": {"trip_breaker"},
        "manage_positions": {"start_due_runs"},
        "maintain_storage": {"start_retraining"},
    }
    for dag_id, found in starts.items():
        for task_id, arguments in found.items():
            assert dags[dag_id].get_task(task_id).is_mapped, task_id
            assert arguments["skip_when_already_exists"] is True, task_id
            assert arguments["logical_date"] is None, task_id


def test_the_breaker_may_be_started_by_hand_and_by_tasks_and_does_not_give_up(dags: dict[str, DAG]) -> None:
    dag = dags["trip_circuit_breaker"]
    assert dag.allowed_run_types == {RunType.MANUAL, RunType.OPERATOR_TRIGGERED}
    (task,) = dag.tasks
    assert task.retries >= 1000
    assert task.max_retry_delay <= timedelta(minutes=1)


@pytest.mark.parametrize("dag_id", ["retrain_models", "maintain_storage", "fill_candle_gaps"])
def test_a_new_deployment_does_not_begin_with_upkeep(dags: dict[str, DAG], dag_id: str) -> None:
    # With a start date Airflow would run the latest past interval at once.
    assert dags[dag_id].start_date is None
    assert dags[dag_id].timetable.run_immediately == timedelta(0)


def test_history_has_defaults_for_everything(dags: dict[str, DAG]) -> None:
    params = dags["backfill_history"].params
    assert {name: params.get_param(name).resolve() for name in params} == {
        "symbols": [], "timeframes": ["15m", "1h"], "from": None, "to": None, "job_id": None,
    }  # fmt: skip
