"""The control side of the API: start runs, halt, resume, flatten. Each call is audited, refused ones too.

Halting writes the latch in PostgreSQL before anything else and needs nothing but PostgreSQL. The other calls start runs
through Airflow's REST API and answer 202 with a job to follow: this process holds no key of the exchange's, and its
database role may read, insert audit and job rows, and tighten the latch.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import Response, g, request, url_for

from tradewind.adapters.control_requests import sign
from tradewind.core.types import TradingMode
from tradewind.errors import TradewindError

from . import schemas
from .audit import record, source
from .job_rows import job_for, remember, start
from .problems import ExactJson
from .read import tagged
from .security import CONTROL_HEADER, may_control
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
    latch = _tighten(TradingMode.REDUCE_ONLY, json_data["reason"])
    record(services(), g.actor, "halt", latch["mode"], {"reason": json_data["reason"], "sequence": latch["sequence"]})
    return tagged(latch)


@blueprint.post("/resume")
@may_control
@blueprint.input(schemas.EmptyRequest, location="json")
@blueprint.input(schemas.IdempotencyHeader, location="headers", arg_name="headers")
@blueprint.output(schemas.Started, status_code=202)
@blueprint.doc(
    summary="Open the latch; the run refuses unless ledger and exchange agree and, after a breaker, all is flat",
    security=_CONTROLLERS,
    responses=_PROBLEMS,
)
def resume(json_data: dict[str, Any], headers: dict[str, Any]) -> tuple[dict[str, Any], int]:
    made = services()
    key = headers["idempotency_key"] or secrets.token_hex(12)
    number = job_for("resume_trading", key).job_id
    if made.database.row(_ASKED, (number,)) is None:
        # The run acts on this row alone, and on it only as the token that came with this call has signed it: neither
        # starting the run by hand nor making such a row without the token opens anything.
        seen = made.database.row(_SEEN, (made.account,)) or {}
        named: dict[str, str] = {"request": number, "account": made.account}
        signed = sign(request.headers[CONTROL_HEADER], action="resume", actor=g.actor, source=source(), **named, **seen)
        record(made, g.actor, "resume", "requested", {**named, **signed}, must=True)
    return _start("resume_trading", {"request": number}, key)


@blueprint.post("/flatten")
@may_control
@blueprint.input(schemas.EmptyRequest, location="json")
@blueprint.input(schemas.IdempotencyHeader, location="headers", arg_name="headers")
@blueprint.output(schemas.FlattenAnswer, status_code=202)
@blueprint.doc(
    summary="Latch, then close every position and verify that nothing is left",
    security=_CONTROLLERS,
    responses=_PROBLEMS,
)
def flatten(json_data: dict[str, Any], headers: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Latch first; then the breaker's DAG does the work, or whoever finds the latch set and nobody at work on it."""
    latch = _tighten(TradingMode.HALTED, f"flatten by {g.actor}")
    record(services(), g.actor, "flatten", "latched", {"sequence": latch["sequence"]})
    params = {"reason": latch["reason"], "latch_sequence": latch["sequence"]}
    answer = {**latch, "job_id": None, "href": None}
    try:
        started, _ = _start("trip_circuit_breaker", params, headers["idempotency_key"])
    except TradewindError as error:
        words = "It is flattened as soon as Airflow answers again; ./tradewind flatten does it now."
        return {**answer, "detail": f"{error} {words}"}, 202
    return {**answer, **{name: started[name] for name in ("job_id", "href")}, "detail": "The breaker is at work."}, 202


_ASKED = "SELECT 1 FROM audit WHERE action = 'resume' AND outcome = 'requested' AND detail ->> 'request' = %s"
_SEEN = """
    SELECT coalesce((SELECT sequence FROM latches WHERE account = %s), 0) AS latch_sequence,
           extract(epoch FROM clock_timestamp())::bigint AS at"""
_TIGHTEN = "SELECT mode, reason, since, sequence FROM tighten_latch(%s, %s, %s, %s, now())"


def _tighten(mode: TradingMode, reason: str) -> dict[str, Any]:
    """The one write of ledger state that this process may do: it never loosens."""
    made = services()
    row = made.database.row(_TIGHTEN, (made.account, mode.value, reason, g.actor))
    assert row is not None  # the function always returns the latch
    return row


def _start(
    dag_id: str, params: Mapping[str, Any], idempotency_key: str | None, *, names_job: bool = False
) -> tuple[dict[str, Any], int]:
    made = services()
    job = job_for(dag_id, idempotency_key)
    conf = {**params, "job_id": job.job_id} if names_job else params
    structlog.contextvars.bind_contextvars(dag_id=dag_id, run_id=job.run_id, job_id=job.job_id)
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


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else str(ExactJson.default(moment))
