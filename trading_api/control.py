"""The control side of the API: start runs, halt, resume, flatten. Each call is audited, refused ones too.

Halting writes the latch in PostgreSQL before anything else and needs nothing but PostgreSQL. The calls that start work
do so through Airflow's REST API and answer 202 with a job to follow.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from flask import Response, g, url_for

from tradewind.core.ports import Ports
from tradewind.core.types import TradingMode
from tradewind.errors import TradewindError
from tradewind.jobs import safety

from . import schemas
from .audit import record, source
from .job_rows import job_for, remember, start
from .problems import ExactJson
from .read import queries, tagged
from .security import may_control
from .services import services

blueprint = APIBlueprint("control", __name__, url_prefix="/api", tag="Control")

_CONTROLLERS: Any = [{"ControlToken": []}]
_PROBLEMS: Any = {
    400: {"description": "The body is no JSON."},
    401: {"description": "No valid token."},
    403: {"description": "The control token is missing or wrong."},
    409: {"description": "Refused in the present state; the detail says why."},
    415: {"description": "The body must be JSON."},
    422: {"description": "A value is out of range."},
    429: {"description": "Too many requests."},
    503: {"description": "PostgreSQL or Airflow does not answer."},
}


@blueprint.post("/collect-historical-data")
@may_control
@blueprint.input(schemas.HistoryRequest, location="json")
@blueprint.input(schemas.IdempotencyHeader, location="headers", arg_name="headers")
@blueprint.output(schemas.Started, status_code=202)
@blueprint.doc(summary="Load months or years of candles", security=_CONTROLLERS, responses=_PROBLEMS)
def collect_historical_data(json_data: dict[str, Any], headers: dict[str, Any]) -> tuple[dict[str, Any], int]:
    params = {
        "symbols": json_data["symbols"],
        "timeframes": sorted(set(json_data["timeframes"])),
        "from": _iso(json_data["start"]),
        "to": _iso(json_data["end"]),
    }
    return _start("backfill_history", params, headers["idempotency_key"], names_job=True)


@blueprint.post("/train")
@may_control
@blueprint.input(schemas.TrainRequest, location="json")
@blueprint.input(schemas.IdempotencyHeader, location="headers", arg_name="headers")
@blueprint.output(schemas.Started, status_code=202)
@blueprint.doc(summary="Train challengers now", security=_CONTROLLERS, responses=_PROBLEMS)
def train(json_data: dict[str, Any], headers: dict[str, Any]) -> tuple[dict[str, Any], int]:
    return _start("retrain_models", {"reason": json_data["reason"]}, headers["idempotency_key"])


@blueprint.post("/trigger-trade-cycle")
@may_control
@blueprint.input(schemas.CycleRequest, location="json")
@blueprint.input(schemas.IdempotencyHeader, location="headers", arg_name="headers")
@blueprint.output(schemas.Started, status_code=202)
@blueprint.doc(
    summary="Decide on a bar now; a bar that is too old is never traded", security=_CONTROLLERS, responses=_PROBLEMS
)
def trigger_trade_cycle(json_data: dict[str, Any], headers: dict[str, Any]) -> tuple[dict[str, Any], int]:
    return _start("run_trade_cycle", {"bar": _iso(json_data["bar"])}, headers["idempotency_key"])


@blueprint.post("/halt")
@may_control
@blueprint.input(schemas.HaltRequest, location="json")
@blueprint.output(schemas.LatchAnswer)
@blueprint.doc(
    summary="Stop new entries; positions stay protected and managed. Works with Airflow down.",
    security=_CONTROLLERS,
    responses=_PROBLEMS,
)
def halt(json_data: dict[str, Any]) -> Response:
    return _latched(lambda ports: safety.halt(ports, json_data["reason"], g.actor, source=source()))


@blueprint.post("/resume")
@may_control
@blueprint.input(schemas.EmptyRequest, location="json")
@blueprint.output(schemas.LatchAnswer)
@blueprint.doc(
    summary="Open the latch; refused unless the ledger is flat and reconciled after a breaker",
    security=_CONTROLLERS,
    responses=_PROBLEMS,
)
def resume(json_data: dict[str, Any]) -> Response:
    return _latched(lambda ports: safety.resume(ports, g.actor, source=source()))


@blueprint.post("/flatten")
@may_control
@blueprint.input(schemas.EmptyRequest, location="json")
@blueprint.output(schemas.LatchAnswer)
@blueprint.doc(
    summary="Latch, then close every position and verify that nothing is left",
    security=_CONTROLLERS,
    responses=_PROBLEMS,
)
def flatten(json_data: dict[str, Any]) -> Response:
    return _latched(_latch_and_flatten)


def _latch_and_flatten(ports: Ports) -> dict[str, Any]:
    """Latch first; then let the breaker's DAG do the work, or do it here when Airflow does not answer."""
    made = services()
    reason = f"flatten by {g.actor}"
    latch = ports.trading_store.set_latch(TradingMode.HALTED, reason, ports.wall.now(), actor=g.actor)
    run_id = f"api__latch_{latch.sequence}_{secrets.token_hex(4)}"
    try:
        run = made.airflow.trigger_dag("trip_circuit_breaker", run_id=run_id)
    except TradewindError as error:
        return {"by": "status app", "airflow": str(error)} | safety.flatten(ports, g.actor, source=source())
    record(made, g.actor, "flatten", "latched", {"sequence": latch.sequence, "dag_run_id": run_id})
    return {"by": "trip_circuit_breaker", "dag_run_id": run["dag_run_id"]}


def _start(
    dag_id: str, params: Mapping[str, Any], idempotency_key: str | None, *, names_job: bool = False
) -> tuple[dict[str, Any], int]:
    made = services()
    job = job_for(dag_id, idempotency_key)
    conf = {**params, "job_id": job.job_id} if names_job else params
    try:
        remember(made.database, job, params, g.actor)
        state = start(made, job, conf)
    except TradewindError as error:
        record(made, g.actor, dag_id, "failed", {**params, "error": str(error)[:500]})
        raise
    record(made, g.actor, dag_id, "started", {**params, "job_id": job.job_id})
    return {
        "job_id": job.job_id,
        "state": state,
        "dag_id": dag_id,
        "dag_run_id": job.run_id,
        "href": url_for("read.job", job_id=job.job_id),
    }, 202


def _latched(act: Callable[[Ports], dict[str, Any]]) -> Response:
    """Do it (the job writes its own audit row) and answer with the latch as it lies now."""
    detail = act(services().wiring)
    return tagged({**queries().latch(), "detail": detail})


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else str(ExactJson.default(moment))
