"""Open the latch, because somebody asked for it on the status page.

The page's Resume button, or `POST /api/resume`, writes an audit row with a number and starts this run with it. The run
acts on that row alone, within ten minutes, and only if the row bears the control token's signature: neither a run that
was started by hand nor a row that another process made opens anything. It opens the latch that was there when it was
asked for, and no later one. It tends every position, compares exchange and ledger, and refuses with every reason unless
they agree and, after a breaker, the account is flat. From then on the day's losses and the peak count anew.
`./tradewind resume` does the same without Airflow.

## What the buttons do

- **Clear** looks again, if it was refused and was asked for less than ten minutes ago; otherwise it does nothing.
- **Mark success** opens nothing, and says the wrong thing about what happened. Look at the audit instead.
- **Retry** never happens: what was refused must be looked at by a person, who asks again.
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
    allowed_run_types=[RunType.MANUAL],
    tags=["money", "safety"],
    doc_md=__doc__,
    params={
        "request": Param("", type="string", maxLength=64, description="Number of the request in the audit."),
    },
    default_args=task_defaults(owner="risk", pool=Pool.TRADING, timeout=timedelta(minutes=3), retries=0),
)
def resume_trading() -> None:
    @task
    def open_latch() -> None:
        safety.resume_trading(get_current_context()["params"]["request"])

    open_latch()


resume_trading()
