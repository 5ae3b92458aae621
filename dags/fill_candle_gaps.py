"""Find what is missing in the stored candles, and fetch it.

One SQL query finds every missing range of every series, head and tail included: over the whole history once a UTC day
and whenever a person triggers it, over the last seven days in every other hourly run. Ranges that the exchange has
answered as empty are remembered for a while and skipped; the rest is fetched in bulk under the shared rate limit. What
the exchange does not have stays missing: no bar is invented. `./tradewind gaps` shows what is missing and what is known
to be empty.

## What the buttons do

- **Clear** looks again, now. Bars that are stored stay.
- **Mark success** fills nothing; the next hour's run finds the same gaps.
- **Retry** happens by itself, three times with growing pauses; ranges that were filled are no gaps any more.
- **Backfill** is refused: a run looks at what is missing now, whatever its date. **Trigger** looks at everything.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag, get_current_context, task

from tradewind.orchestration.defaults import NOT_AT_FIRST_START, Pool, RunType, task_defaults


@dag(
    # Seven minutes past: the hour's own candles have landed by then.
    schedule=CronTriggerTimetable("7 * * * *", timezone="UTC", run_immediately=NOT_AT_FIRST_START),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    allowed_run_types=[RunType.SCHEDULED, RunType.MANUAL, RunType.OPERATOR_TRIGGERED],
    tags=["candles", "market-data"],
    doc_md=__doc__,
    default_args=task_defaults(owner="market-data", pool=Pool.BULK, timeout=timedelta(minutes=50), retries=3),
)
def fill_candle_gaps() -> None:
    @task
    def fill_gaps() -> None:
        from tradewind.jobs.market import fill_candle_gaps
        from tradewind.orchestration.runtime import report, task_ports

        routine = get_current_context()["dag_run"].run_type == RunType.SCHEDULED
        with task_ports() as ports:
            report(fill_candle_gaps(ports, routine=routine))

    fill_gaps()


fill_candle_gaps()
