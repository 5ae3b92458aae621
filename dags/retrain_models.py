"""Train challengers, and promote one only if it earned it.

Dataset from the stored candles, fit of LightGBM, XGBoost and CatBoost per regime family, calibration on a later slice,
purged and embargoed walk-forward validation, then the gates on a window later than every fit. A challenger that passes
them all becomes the champion; otherwise the champion stays, and the report says which gate it failed. It runs weekly,
when `maintain_storage` saw drift, and on demand. Drift starts a training, never a promotion. Afterwards the champion,
new or old, is measured against the last weeks' market; that measurement tells, and starts nothing.

`tuning_trials` is the budget of a search for the boosters' settings, for each library and family; 0 keeps what is
shipped.

## What the buttons do

- **Clear** trains again, on the data of now, and makes a new version. Earlier versions stay as they were.
- **Mark success** trains nothing; the champion stays until it is too old to trade on.
- **Retry** happens by itself, once. A failed training never touches the champion.
- **Backfill** is refused: a model of last month is made by `./tradewind study`, not by dating a run back.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task

from tradewind.orchestration.defaults import NOT_AT_FIRST_START, Pool, RunType, task_defaults


@dag(
    # Sunday night: the quietest hours of the week.
    schedule=CronTriggerTimetable("20 3 * * SUN", timezone="UTC", run_immediately=NOT_AT_FIRST_START),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    allowed_run_types=[RunType.SCHEDULED, RunType.MANUAL, RunType.OPERATOR_TRIGGERED],
    tags=["models", "training"],
    doc_md=__doc__,
    params={
        "reason": Param("weekly", type="string", maxLength=200, description="Why now; kept with the version."),
        "tuning_trials": Param(0, type="integer", minimum=0, maximum=500, description="Settings to try a library."),
    },
    default_args=task_defaults(
        owner="research", pool=Pool.TRAINING, timeout=timedelta(hours=6), retries=1, retry_delay=timedelta(minutes=10)
    ),
)
def retrain_models() -> None:
    @task
    def train_and_validate() -> None:
        from tradewind.core.validation import TrainingParams
        from tradewind.jobs.training import retrain_models
        from tradewind.orchestration.runtime import report, task_ports

        params = get_current_context()["params"]
        with task_ports() as ports:
            report(retrain_models(ports, params["reason"], TrainingParams(tuning_trials=params["tuning_trials"])))

    @task
    def report_drift() -> None:
        from tradewind.jobs.training import measure_drift
        from tradewind.orchestration.runtime import report, task_ports

        with task_ports() as ports:
            report(measure_drift(ports))

    train_and_validate() >> report_drift()


retrain_models()
