"""Look after open positions, every minute.

Exchange against ledger, both ways; fills into positions; protection healed where it is missing; −2R and the breach
checked; once a closed bar, unless its cycle has done so, break-even, trailing and time stop; a flatten that was begun
is carried on. Stop and target rest at the exchange: this DAG is not the stop engine. It is the second pair of eyes
beside `watch_risk`, and it starts `run_trade_cycle` for a fresh bar that stayed undecided, and `trip_circuit_breaker`
when it latched a breach itself.

## What the buttons do

- **Clear** looks again, at the state of now; it acts on what is, not on what was then.
- **Mark success** does nothing, and the next minute's run does what this one did not.
- **Retry** happens by itself once. Whatever was sent is known by its client order id and looked up, never sent blindly.
- **Backfill** is refused: there is no position to look after in the past.

Pausing this DAG blocks entries and raises an alert.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import CronTriggerTimetable, dag, task

from tradewind.orchestration import cycle
from tradewind.orchestration.defaults import START_DATE, Pool, RunType, task_defaults


@dag(
    schedule=CronTriggerTimetable("* * * * *", timezone="UTC"),
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(minutes=5),
    allowed_run_types=[RunType.SCHEDULED, RunType.MANUAL, RunType.OPERATOR_TRIGGERED],
    tags=["money", "positions"],
    doc_md=__doc__,
    default_args=task_defaults(
        owner="trading", pool=Pool.TRADING, timeout=timedelta(minutes=3), retries=1, retry_delay=timedelta(seconds=2)
    ),
)
def manage_positions() -> None:
    @task
    def reconcile_and_manage() -> list[dict[str, object]]:
        return cycle.manage_positions()

    # Mapped over nothing in almost every minute: then it is skipped without costing a worker anything.
    TriggerDagRunOperator.partial(
        task_id="start_due_runs",
        logical_date=None,
        skip_when_already_exists=True,
    ).expand_kwargs(reconcile_and_manage())


manage_positions()
