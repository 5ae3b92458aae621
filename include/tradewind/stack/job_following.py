"""The state of jobs that cannot tell it themselves: those that wait for an Airflow run, and those that were killed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tradewind.adapters.database import Database
from tradewind.errors import BadInput, RetryError
from tradewind.stack.airflow_api import AirflowClient

_STATES: Final = {"queued": "queued", "running": "running", "success": "done", "failed": "failed"}
# A row is made before its run; one whose run is still missing after this was refused.
_STARTS_WITHIN: Final = timedelta(seconds=60)
NEVER_STARTED: Final = "Airflow never started it: send the request again, with the same Idempotency-Key"

_OPEN: Final = """
    SELECT job_id, state, dag_id, dag_run_id, created_at, started_at, finished_at, error FROM jobs
    WHERE dag_run_id IS NOT NULL AND created_at > now() - interval '7 days'
      AND (state IN ('queued', 'running') OR (state = 'failed' AND started_at IS NULL))
    ORDER BY created_at DESC LIMIT 20"""
_FOLLOWED: Final = """
    UPDATE jobs SET state = %(state)s, started_at = coalesce(started_at, %(started_at)s),
        finished_at = %(finished_at)s, error = %(error)s
    WHERE job_id = %(job_id)s AND (state IN ('queued', 'running') OR (state = 'failed' AND started_at IS NULL))"""

# A chunk under the exchange's rate limit takes minutes; silence for this long is death.
_SILENT_FOR: Final = timedelta(minutes=30)
DIED: Final = "it ended without a word: start it again, what is stored is neither fetched nor stored twice"
_FAIL_SILENT: Final = """
    UPDATE jobs AS j SET state = 'failed', finished_at = now(), error = %(error)s
    WHERE state = 'running' AND dag_run_id IS NULL
      AND greatest(started_at, reported_at, (SELECT max(done_at) FROM history_chunks AS c WHERE c.job_id = j.job_id))
          < now() - %(silent_for)s"""


def fail_silent_jobs(database: Database) -> int:
    """End the rows of jobs without a run that said nothing for half an hour; returns how many. A job that goes on after
    all moves its row back. Raises StoreUnavailable."""
    return database.execute(_FAIL_SILENT, {"error": DIED, "silent_for": _SILENT_FOR})


def follow_jobs(database: Database, airflow: AirflowClient) -> int:
    """Bring the rows of unfinished jobs up to their runs; returns how many changed. Raises StoreUnavailable."""
    changed = 0
    for row in database.rows(_OPEN):
        after = followed(row, airflow)
        if after != row:
            changed += database.execute(_FOLLOWED, after)
    return changed


def followed(row: dict[str, Any], airflow: AirflowClient) -> dict[str, Any]:
    """The row with Airflow's word on its run; as it is while Airflow does not answer."""
    try:
        run = airflow.dag_run(row["dag_id"], row["dag_run_id"])
    except RetryError:
        return row
    except BadInput:
        if row["state"] == "queued" and datetime.now(UTC) - row["created_at"] > _STARTS_WITHIN:
            return {**row, "state": "failed", "finished_at": datetime.now(UTC), "error": NEVER_STARTED}
        return row
    state = _STATES.get(str(run.get("state")), row["state"])
    # A load that reports its own progress is running as soon as it says so, whatever Airflow's queue thinks.
    if state == row["state"] or (state == "queued" and row["state"] == "running"):
        return row
    ended = state in ("done", "failed")
    return {
        **row,
        "state": state,
        "started_at": row["started_at"] or _moment(run.get("start_date")),
        "finished_at": _moment(run.get("end_date")) if ended else None,
        "error": row["error"] if state == "failed" and row["error"] != NEVER_STARTED else None,
    }


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
