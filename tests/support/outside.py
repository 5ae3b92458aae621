"""What the status app meets outside: an exchange that tells its time, and an Airflow that starts runs. Real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_server import Answer, Request, serving

MONEY_DAGS = ("run_trade_cycle", "manage_positions", "watch_risk", "trip_circuit_breaker")
_HEALTHY = {"status": "healthy"}


def _json(body: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


@dataclass
class Outside:
    """Addresses of the two, and what a test may change about them."""

    exchange_url: str = ""
    airflow_url: str = ""
    market_now_ms: int = 0
    airflow_down: bool = False
    paused: set[str] = field(default_factory=set)
    ill: set[str] = field(default_factory=set)
    runs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def exchange(self, request: Request) -> Answer:
        if request.path.startswith("/api/v3/time"):
            return _json({"serverTime": int(time.time() * 1000)})
        if request.path.startswith("/__admin/clock"):
            return _json({"market_ms": self.market_now_ms})
        return Answer(404)

    def airflow(self, request: Request) -> Answer:
        """The few calls of Airflow's REST API that matter here."""
        if self.airflow_down:
            return Answer(503)
        path = request.path.partition("?")[0]
        if path == "/auth/token":
            return _json({"access_token": "token"}, 201)
        if path == "/api/v2/monitor/health":
            parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
            return _json({part: {"status": "unhealthy"} if part in self.ill else _HEALTHY for part in parts})
        if path == "/api/v2/dags":
            dags = [{"dag_id": dag_id, "is_paused": dag_id in self.paused} for dag_id in MONEY_DAGS]
            return _json({"dags": dags, "total_entries": len(dags)})
        parts = path.split("/")
        if request.method == "GET" and len(parts) == 6 and parts[5] == "dagRuns":
            return self._newest_runs(request, parts[4])
        if len(parts) >= 6 and parts[5] == "dagRuns":
            return self._runs(request, parts[4], parts[6] if len(parts) > 6 else "")
        return Answer(404)

    def _newest_runs(self, request: Request, dag_id: str) -> Answer:
        failed_only = "state=failed" in request.path
        found = [
            run for run in self.runs.values()
            if dag_id in ("~", run["dag_id"]) and (run["state"] == "failed" or not failed_only)
        ]  # fmt: skip
        return _json({"dag_runs": found[::-1], "total_entries": len(found)})

    def _runs(self, request: Request, dag_id: str, run_id: str) -> Answer:
        if request.method == "GET":
            run = self.runs.get((dag_id, run_id))
            return _json(run) if run else Answer(404)
        body = json.loads(request.body)
        key = (dag_id, body["dag_run_id"])
        if key in self.runs:
            return Answer(409)
        self.runs[key] = {
            "dag_id": dag_id,
            "dag_run_id": key[1],
            "state": "queued",
            "conf": body["conf"],
            "start_date": None,
            "end_date": None,
        }
        return _json(self.runs[key])


@contextmanager
def outside() -> Iterator[Outside]:
    """Both, on free ports."""
    made = Outside(market_now_ms=int(time.time() * 1000))
    with serving(made.exchange) as (exchange_url, _), serving(made.airflow) as (airflow_url, _):
        made.exchange_url, made.airflow_url = exchange_url, airflow_url
        yield made
