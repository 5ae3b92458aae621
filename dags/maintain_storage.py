"""Keep our own tables small and the models honest.

Once a day: retention and statistics of our tables, the drift report (stability of the features, calibration error,
realised against expected R), and the parity report: the last day, replayed over the same bars and models, compared with
what was decided and executed. An alarm starts `retrain_models`, at most once a day; it never promotes anything. Decided
bars of which no entry came go after `TRADEWIND_DECISIONS_KEPT_DAYS` (400); orders, fills, candles and the audit never.
The tables and logs of Airflow itself are cleaned by the supervisor, since a task cannot reach them.

## What the buttons do

- **Clear** runs upkeep and measures drift again; a second alarm on the same day starts no second training.
- **Mark success** does nothing, and nothing is lost: tomorrow's run keeps what today's would have removed a day longer.
- **Retry** happens by itself, twice.
- **Backfill** is refused: upkeep is of now.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import CronTriggerTimetable, dag, task

from tradewind.orchestration import upkeep
from tradewind.orchestration.defaults import NOT_AT_FIRST_START, Pool, RunType, task_defaults


@dag(
    schedule=CronTriggerTimetable("40 1 * * *", timezone="UTC", run_immediately=NOT_AT_FIRST_START),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=3),
    allowed_run_types=[RunType.SCHEDULED, RunType.MANUAL, RunType.OPERATOR_TRIGGERED],
    tags=["models", "upkeep"],
    doc_md=__doc__,
    default_args=task_defaults(owner="operations", pool=Pool.BULK, timeout=timedelta(hours=1), retries=2),
)
def maintain_storage() -> None:
    @task
    def remove_expired_rows() -> None:
        upkeep.maintain_storage()

    @task
    def report_drift() -> list[dict[str, object]]:
        return upkeep.measure_drift()

    @task
    def compare_with_replay() -> None:
        upkeep.check_parity()

    # Mapped over nothing without an alarm; the run's id holds the date, so a second alarm of the day finds it taken.
    start_retraining = TriggerDagRunOperator.partial(
        task_id="start_retraining",
        trigger_dag_id="retrain_models",
        logical_date=None,
        skip_when_already_exists=True,
    ).expand_kwargs(report_drift())
    removed = remove_expired_rows()
    removed >> start_retraining
    removed >> compare_with_replay()


maintain_storage()
