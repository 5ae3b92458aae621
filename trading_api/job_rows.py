"""Rows of the jobs table: made when the API starts a run, followed by asking Airflow.

This process may insert such rows and nothing more: the lookout writes down how each run ended.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg.types.json import Jsonb

from tradewind.adapters.database import Database
from tradewind.adapters.history_store import HistoryRows
from tradewind.errors import BadInput
from tradewind.stack.job_following import followed

from .services import Services

_STATES: Final = {"queued": "queued", "running": "running", "success": "done", "failed": "failed"}

_INSERT: Final = """
    INSERT INTO jobs (job_id, kind, state, params, dag_id, dag_run_id, requested_by)
    VALUES (%(job_id)s, %(kind)s, 'queued', %(params)s, %(dag_id)s, %(run_id)s, %(actor)s)
    ON CONFLICT (job_id) DO NOTHING"""

_PARAMS: Final = "SELECT params FROM jobs WHERE job_id = %s"


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

    Raises what the client raises when Airflow does not answer or refuses.
    """
    run = services.airflow.trigger_dag(job.dag_id, conf=conf, run_id=job.run_id)
    return _STATES.get(str(run.get("state")), "queued")


def with_progress(services: Services, row: dict[str, Any]) -> dict[str, Any]:
    """The row with its progress, and with Airflow's word on a run that has not ended here."""
    unfinished = row["state"] in ("queued", "running") or (row["state"] == "failed" and row["started_at"] is None)
    if unfinished and row["dag_id"] and row["dag_run_id"]:
        row = followed(row, services.airflow)
    counted = counts_of(services.database, row["job_id"])
    progress: float | None
    if row["state"] == "done":
        progress = 1.0
    elif row["chunks"]:
        progress = row["chunks_done"] / row["chunks"]
    elif counted is not None:
        progress = counted["percent"] / 100
    else:
        progress = 0.0 if row["state"] == "queued" else None
    return {**row, "progress_frac": progress, "progress": counted}


def counts_of(database: Database, job_id: str) -> dict[str, Any] | None:
    """What a load or an import has done: bars expected and done, rows, percent, seconds to its end, each by series.

    None for a job that counts nothing.
    """
    job = HistoryRows(database).job(job_id)
    return job["progress"] if job is not None and job["progress"]["series"] else None
