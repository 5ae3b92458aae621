"""Flatten the account, and prove that it is flat.

Started by the watch after the latch was written, by the status page, or by hand. It latches (if nobody has), cancels
working entries, closes positions one by one, each losing its protection only when its exit is sent, verifies that no
ledger position above dust and no working order of ours is left, and alerts. It fails and is retried until that is true.
Nothing that the account held before is touched. What cannot be sold (a delisted or halted market) keeps what rests, and
is named with what to do; everything else is left as ever. Only `./tradewind resume` opens the latch again.

## What the buttons do

- **Clear** verifies again and flattens what is left, for the same latch alone: once somebody has resumed, a cleared run
  does nothing. To trip the breaker anew, trigger a new run.
- **Mark success** stops this run's retries. The latch stays, and `manage_positions` carries the flatten on.
- **Retry** happens by itself: every few seconds at first, then once a minute, until the account is verified flat.
- **Backfill** is refused: this DAG has no schedule.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from tradewind.orchestration import safety
from tradewind.orchestration.defaults import START_DATE, Pool, RunType, task_defaults


@dag(
    schedule=None,
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    allowed_run_types=[RunType.MANUAL, RunType.OPERATOR_TRIGGERED],
    tags=["money", "safety"],
    doc_md=__doc__,
    params={
        "reason": Param("tripped by hand", type="string", maxLength=300, description="Kept with the latch."),
        "latch_sequence": Param(None, type=["null", "integer"], description="Act only while this very latch is set."),
    },
    default_args=task_defaults(
        owner="risk",
        pool=Pool.TRADING,
        timeout=timedelta(minutes=5),
        retries=10_000,
        retry_delay=timedelta(seconds=3),
    )
    | {"max_retry_delay": timedelta(minutes=1)},
)
def trip_circuit_breaker() -> None:
    @task
    def flatten_and_verify() -> None:
        safety.trip_circuit_breaker(get_current_context())

    flatten_and_verify()


trip_circuit_breaker()
