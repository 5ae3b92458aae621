"""Watch the day's loss, every two seconds.

One run a UTC day: `open_day` keeps the opening equity, and `watch_equity`, deferred into the triggerer, marks equity
until midnight. At −3 % on the day or −10 % from the peak, confirmed by a second mark, the watch writes the latch first
and then wakes `trip_circuit_breaker`. Each look also tends a position that a killed task left without a stop, unless
somebody holds its lock. Its heartbeat is a condition of every entry: a watch silent for 15 s blocks them.
The schedule is continuous, one run at a time: the watch starts with the stack, and a new one follows at once whenever a
run ends, at midnight, after a breach, or because it failed. `manage_positions` checks the same once a minute.

## What the buttons do

- **Clear** ends the running watch and starts it again: entries are blocked for the seconds between. The day's opening
  equity is kept. A cleared older run waits until the present watch ends; an old breach trips nothing again.
- **Mark success** on the watch ends it and turns the run red; a new run begins at once. It neither trips nor opens
  the latch.
- **Retry** happens by itself, every five seconds, for as long as it takes.
- **Trigger** and **Backfill** are refused: there is one watch, it runs already, and yesterday cannot be watched.

Pausing this DAG blocks entries and raises an alert.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import dag, task

from tradewind.orchestration.defaults import START_DATE, Pool, RunType, task_defaults
from tradewind.orchestration.sensors import RiskWatchSensor


@dag(
    schedule="@continuous",
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    allowed_run_types=[RunType.SCHEDULED],
    tags=["money", "safety"],
    doc_md=__doc__,
    default_args=task_defaults(
        # Few: a run that retries elsewhere than in the watch would keep the next watch from starting.
        owner="risk",
        pool=Pool.TRADING,
        timeout=timedelta(minutes=2),
        retries=3,
        retry_delay=timedelta(seconds=2),
    ),
)
def watch_risk() -> None:
    @task
    def open_day() -> None:
        from tradewind.jobs.safety import open_day
        from tradewind.orchestration.runtime import report, task_ports

        with task_ports() as ports:
            report(open_day(ports))

    watch_equity = RiskWatchSensor(
        task_id="watch_equity",
        retries=100_000,
        retry_delay=timedelta(seconds=5),
        retry_exponential_backoff=0,
        # Deferred time counts; the watch itself ends at midnight.
        execution_timeout=timedelta(hours=25),
    )
    # Mapped over the breach, so that only a breach starts the breaker, and each breach once.
    TriggerDagRunOperator.partial(
        task_id="trip_breaker",
        logical_date=None,
        skip_when_already_exists=True,
    ).expand_kwargs(watch_equity.output)
    # Beside the watch: a snapshot that fails must not keep it from starting.
    open_day()


watch_risk()
