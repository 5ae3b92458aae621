"""Rows of the jobs table: made when the API starts a run, followed by asking Airflow."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg.types.json import Jsonb

from tradewind.adapters.database import Database
from tradewind.errors import BadInput, TradewindError

from .services import Services

_log = logging.getLogger(__name__)

_STATES: Final = {"queued": "queued", "running": "running", "success": "done", "failed": "failed"}

_INSERT: Final = """
    INSERT INTO jobs (job_id, kind, state, params, dag_id, dag_run_id, requested_by)
    VALUES (%(job_id)s, %(kind)s, 'queued', %(params)s, %(dag_id)s, %(run_id)s, %(actor)s)
    ON CONFLICT (job_id) DO NOTHING"""

_PARAMS: Final = "SELECT params, state FROM jobs WHERE job_id = %s"

_NOT_STARTED: Final = """
    UPDATE jobs SET state = 'failed', finished_at = now(), error = %s WHERE job_id = %s AND state = 'queued'"""

_STARTED: Final = """
    UPDATE jobs SET state = 'queued', finished_at = NULL, error = NULL
    WHERE job_id = %s AND state = 'failed' AND started_at IS NULL"""

_FOLLOWED: Final = """
    UPDATE jobs SET state = %(state)s, started_at = coalesce(started_at, %(started)s),
        finished_at = coalesce(finished_at, %(finished)s)
    WHERE job_id = %(job_id)s AND state IN ('queued', 'running')"""


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be started once."""

    job_id: str
    run_id: str
    dag_id: str


def job_for(dag_id: str, idempotency_key: str | None) -> Job:
    """The same key names the same job and run; without one each call is its own."""
    if idempotency_key is None:
        number = secrets.token_hex(12)
    else:
        number = hashlib.sha256(f"{dag_id}\n{idempotency_key}".encode()).hexdigest()[:24]
    return Job(f"{dag_id}-{number}", f"api__{number}", dag_id)


def remember(database: Database, job: Job, params: Mapping[str, Any], actor: str) -> None:
    """Make the row, or find the one that the same request made before.

    Raises BadInput when the key was used for other parameters.
    """
    values = {
        "job_id": job.job_id,
        "kind": job.dag_id,
        "params": Jsonb(dict(params)),
        "dag_id": job.dag_id,
        "run_id": job.run_id,
        "actor": actor,
    }
    if database.execute(_INSERT, values):
        return
    known = database.row(_PARAMS, (job.job_id,))
    if known is not None and known["params"] != dict(params):
        raise BadInput("This Idempotency-Key was used for other parameters; take a new one.")


def start(services: Services, job: Job, conf: Mapping[str, Any]) -> str:
    """Start the run through Airflow; a run that exists is left as it is. Returns the job's state.

    Raises what the client raises when Airflow does not answer or refuses; the row then says so.
    """
    try:
        run = services.airflow.trigger_dag(job.dag_id, conf=conf, run_id=job.run_id)
    except TradewindError as error:
        services.database.execute(_NOT_STARTED, (str(error)[:500], job.job_id))
        raise
    services.database.execute(_STARTED, (job.job_id,))
    return _STATES.get(str(run.get("state")), "queued")


def with_progress(services: Services, row: dict[str, Any]) -> dict[str, Any]:
    """The row with its progress, and with Airflow's word on a run that has not ended here."""
    if row["state"] in ("queued", "running") and row["dag_id"] and row["dag_run_id"]:
        row = _follow(services, row)
    chunks = row["chunks"]
    progress: float | None
    if row["state"] == "done":
        progress = 1.0
    elif chunks:
        progress = row["chunks_done"] / chunks
    else:
        progress = 0.0 if row["state"] == "queued" else None
    return {**row, "progress_frac": progress}


def _follow(services: Services, row: dict[str, Any]) -> dict[str, Any]:
    try:
        run = services.airflow.dag_run(row["dag_id"], row["dag_run_id"])
    except TradewindError as error:
        _log.info("run %s cannot be followed: %s", row["dag_run_id"], error)
        return row
    state = _STATES.get(str(run.get("state")), row["state"])
    if state == row["state"]:
        return row
    # A load that reports its own progress is running as soon as it says so, whatever Airflow's queue thinks.
    if state == "queued":
        return row
    values = {
        "job_id": row["job_id"],
        "state": state,
        "started": run.get("start_date"),
        "finished": run.get("end_date") if state in ("done", "failed") else None,
    }
    services.database.execute(_FOLLOWED, values)
    return {
        **row,
        "state": state,
        "started_at": row["started_at"] or values["started"],
        "finished_at": row["finished_at"] or values["finished"],
    }
