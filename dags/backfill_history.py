"""Load months or years of candles.

The range is cut into chunks, each fetched as raw klines under the shared rate limit, giving way to trading, and
committed with its progress row. Give it `symbols`, `timeframes`, `from` and `to` (`to` excluded); what is left empty
means every configured symbol and the market leader, 15m and 1h, and up to now. `./tradewind history`,
`GET /api/jobs/{id}` and the status page show its progress by series, with an estimated end.

## What the buttons do

- **Clear** carries on where the run stopped: a committed chunk is never fetched again, because the job keeps the run's
  id. To fetch a range anew, trigger a new run; bars that are stored still stay.
- **Mark success** stops nothing that is stored and loads nothing more.
- **Retry** happens by itself, ten times with growing pauses, and carries on at the first unfinished chunk.
- **Backfill** is refused: this DAG has no schedule. Its params are the range.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from tradewind.orchestration.defaults import MOMENT, START_DATE, Pool, RunType, task_defaults


@dag(
    schedule=None,
    start_date=START_DATE,
    catchup=False,
    max_active_runs=2,
    is_paused_upon_creation=False,
    allowed_run_types=[RunType.MANUAL, RunType.OPERATOR_TRIGGERED],
    tags=["candles", "history", "market-data"],
    doc_md=__doc__,
    params={
        "symbols": Param([], type="array", items={"type": "string"}, description="Empty: all, and the leader."),
        "timeframes": Param(["15m", "1h"], type="array", items={"type": "string", "enum": ["15m", "1h"]}, minItems=1),
        "from": Param(None, **MOMENT, description="Empty: the configured history."),
        "to": Param(None, **MOMENT, description="Excluded. Empty: now."),
        "job_id": Param(None, type=["null", "string"], description="Set by the API, which made the job's row."),
    },
    default_args=task_defaults(owner="market-data", pool=Pool.BULK, timeout=timedelta(hours=12), retries=10),
)
def backfill_history() -> None:
    @task
    def load_history() -> str:
        from tradewind.jobs.market import backfill_history
        from tradewind.orchestration.runtime import history_request, report, task_ports

        context = get_current_context()
        with task_ports() as ports:
            request = history_request(ports, context["params"], context["run_id"])
            report(backfill_history(ports, **request))
            return request["job_id"]

    load_history()


backfill_history()
