"""A small client of Airflow's REST API, for the demo, the status app and the supervisor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from tradewind.errors import AuthenticationFailed, BadInput, RetryError, ServiceNotReady
from tradewind.listeners import own_listeners_only

FINISHED = frozenset({"success", "failed"})
_PAGE = 100

Json = dict[str, Any]


class AirflowUnreachable(RetryError):
    """Airflow's API server gave no answer, or a 5xx."""


class AirflowClient:
    """Airflow over HTTP; its token is fetched on first use and again when it has expired.

    Parameters
    ----------
    url : of the API server, without `/api`.
    username, password : of Airflow's user.
    timeout_s : for one request.

    Raises
    ------
    AirflowUnreachable : from every call, when there is no answer or a 5xx.
    AuthenticationFailed : when the user is refused.
    BadInput : when Airflow refuses the request; its reason is in the message.
    """

    def __init__(self, url: str, username: str, password: str, *, timeout_s: float = 30.0) -> None:
        # trust_env: a proxy of the environment must not be asked for 127.0.0.1.
        self._http = httpx.Client(
            base_url=url.rstrip("/"), timeout=timeout_s, trust_env=False, event_hooks={"request": [own_listeners_only]}
        )
        self._credentials = {"username": username, "password": password}
        self._token: str | None = None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> AirflowClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- health ------------------------------------------------------------------------------------------------------

    def health(self) -> Json:
        """Each component's status and last heartbeat; needs no login."""
        return self._send("GET", "/monitor/health", login=False)

    def is_healthy(self, *components: str) -> bool:
        """Whether the named components (metadatabase, scheduler, triggerer, dag_processor) are healthy now."""
        try:
            health = self.health()
        except (RetryError, BadInput):
            return False
        return all(health.get(component, {}).get("status") == "healthy" for component in components)

    # --- DAGs --------------------------------------------------------------------------------------------------------

    def list_dags(self) -> list[Json]:
        return list(self._pages("/dags", "dags"))

    def dag(self, dag_id: str) -> Json:
        return self._send("GET", f"/dags/{_part(dag_id)}")

    def import_errors(self) -> list[Json]:
        return list(self._pages("/importErrors", "import_errors"))

    def unpause(self, dag_id: str) -> None:
        self._send("PATCH", f"/dags/{_part(dag_id)}", params={"update_mask": "is_paused"}, json={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        self._send("PATCH", f"/dags/{_part(dag_id)}", params={"update_mask": "is_paused"}, json={"is_paused": True})

    def wait_for_dags(self, dag_ids: Sequence[str], timeout_s: float = 120.0) -> None:
        """Wait until every DAG has been parsed. Raises ServiceNotReady with the import errors."""
        deadline = time.monotonic() + timeout_s
        while missing := sorted(set(dag_ids) - self._known_dags()):
            if time.monotonic() > deadline:
                errors = [f"{error['filename']}: {error['stack_trace']}" for error in self.import_errors()]
                raise ServiceNotReady(
                    f"DAGs {missing} did not appear within {timeout_s:.0f} s; import errors: {errors}"
                )
            time.sleep(0.5)

    def _known_dags(self) -> set[str]:
        try:
            return {dag["dag_id"] for dag in self.list_dags()}
        except AirflowUnreachable:
            return set()  # a busy machine: it is asked again

    # --- runs --------------------------------------------------------------------------------------------------------

    def trigger_dag(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        logical_date: datetime | None = None,
    ) -> Json:
        """Start a run and return it; a run id that exists already returns that run, so a repeat starts nothing."""
        body: Json = {
            "conf": dict(conf or {}),
            "logical_date": logical_date.isoformat() if logical_date else None,
        }
        if run_id is not None:
            body["dag_run_id"] = run_id
        try:
            return self._send("POST", f"/dags/{_part(dag_id)}/dagRuns", json=body)
        except _Conflict:
            if run_id is None:
                raise
            return self.dag_run(dag_id, run_id)

    def dag_run(self, dag_id: str, run_id: str) -> Json:
        return self._send("GET", f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}")

    def dag_runs(self, dag_id: str, **filters: Any) -> list[Json]:
        """Every run of a DAG (`~` for all DAGs); filters as Airflow names them, such as `state` or `run_type`."""
        return list(self._pages(f"/dags/{_part(dag_id)}/dagRuns", "dag_runs", filters))

    def newest_runs(self, dag_id: str, *, count: int = _PAGE, **filters: Any) -> list[Json]:
        """The newest runs of a DAG (`~` for all DAGs), newest first, at most `count` of them in one request."""
        params = {**filters, "limit": count, "order_by": "-run_after"}
        runs: list[Json] = self._send("GET", f"/dags/{_part(dag_id)}/dagRuns", params=params)["dag_runs"]
        return runs

    def wait_dag_run(self, dag_id: str, run_id: str, timeout_s: float = 300.0, poll_s: float = 0.25) -> Json:
        """Wait until the run has succeeded or failed and return it. Raises ServiceNotReady after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (run := self.dag_run(dag_id, run_id))["state"] not in FINISHED:
            if time.monotonic() > deadline:
                raise ServiceNotReady(f"run {run_id} of {dag_id} is still {run['state']} after {timeout_s:.0f} s")
            time.sleep(poll_s)
        return run

    # --- tasks -------------------------------------------------------------------------------------------------------

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        path = f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}/taskInstances"
        return list(self._pages(path, "task_instances"))

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> Json:
        path = f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}/taskInstances/{_part(task_id)}/logs/{try_number}"
        return self._send("GET", path, params={"map_index": map_index, "full_content": True})

    def clear_tasks(
        self, dag_id: str, run_id: str, task_ids: Sequence[str] | None = None, *, downstream: bool = False
    ) -> list[Json]:
        """Clear tasks of a run, whatever their state, so that they run again; None clears them all."""
        body: Json = {
            "dag_run_id": run_id,
            "dry_run": False,
            "only_failed": False,
            "include_downstream": downstream,
        }
        if task_ids is not None:
            body["task_ids"] = list(task_ids)
        answer = self._send("POST", f"/dags/{_part(dag_id)}/clearTaskInstances", json=body)
        cleared: list[Json] = answer["task_instances"]
        return cleared

    # --- backfills ---------------------------------------------------------------------------------------------------

    def create_backfill(
        self,
        dag_id: str,
        from_date: datetime,
        to_date: datetime,
        *,
        max_active_runs: int = 4,
        reprocess: str = "none",
        conf: Mapping[str, Any] | None = None,
    ) -> Json:
        """Start a backfill. `to_date` is inclusive. `reprocess`: none, failed or completed."""
        body = {
            "dag_id": dag_id,
            "from_date": from_date.isoformat(),
            "to_date": to_date.isoformat(),
            "max_active_runs": max_active_runs,
            "reprocess_behavior": reprocess,
            "dag_run_conf": dict(conf or {}),
        }
        return self._send("POST", "/backfills", json=body)

    def backfill(self, backfill_id: int) -> Json:
        return self._send("GET", f"/backfills/{backfill_id}")

    def wait_backfill(self, backfill_id: int, timeout_s: float = 600.0, poll_s: float = 1.0) -> Json:
        """Wait until every run of the backfill has ended. Raises ServiceNotReady after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (backfill := self.backfill(backfill_id))["completed_at"] is None:
            if time.monotonic() > deadline:
                raise ServiceNotReady(f"backfill {backfill_id} has not ended after {timeout_s:.0f} s")
            time.sleep(poll_s)
        return backfill

    # --- pools -------------------------------------------------------------------------------------------------------

    def pools(self) -> list[Json]:
        return list(self._pages("/pools", "pools"))

    def set_pools(self, pools: Mapping[str, Mapping[str, Any]]) -> None:
        """Make or change pools, given as `airflow pools import` reads them."""
        existing = {pool["name"] for pool in self.pools()}
        for name, pool in pools.items():
            if name in existing:
                self._send("PATCH", f"/pools/{_part(name)}", json={**pool, "pool": name})
            else:
                self._send("POST", "/pools", json={**pool, "name": name})

    # --- HTTP --------------------------------------------------------------------------------------------------------

    def _pages(self, path: str, key: str, filters: Mapping[str, Any] | None = None) -> Iterator[Json]:
        offset = 0
        while True:
            page = self._send("GET", path, params={**(filters or {}), "limit": _PAGE, "offset": offset})
            yield from page[key]
            offset += len(page[key])
            if not page[key] or offset >= page["total_entries"]:
                return

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
        login: bool = True,
    ) -> Json:
        response = self._request(method, path, params, json, login=login)
        if response.status_code == httpx.codes.UNAUTHORIZED and login:
            self._token = None
            response = self._request(method, path, params, json, login=True)
        if response.is_server_error:
            raise AirflowUnreachable(f"Airflow answered {response.status_code} to {method} {path}")
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise AuthenticationFailed(f"Airflow refused {method} {path} with {response.status_code}")
        if response.status_code == httpx.codes.CONFLICT:
            raise _Conflict(f"Airflow refused {method} {path}: {response.text}")
        if response.is_error:
            raise BadInput(f"Airflow refused {method} {path} with {response.status_code}: {response.text}")
        return dict(response.json()) if response.content else {}

    def _request(
        self, method: str, path: str, params: Mapping[str, Any] | None, json: Mapping[str, Any] | None, *, login: bool
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._fetch_token()}"} if login else {}
        try:
            return self._http.request(method, f"/api/v2{path}", params=params, json=json, headers=headers)
        except httpx.TransportError as error:
            raise AirflowUnreachable(f"Airflow did not answer {method} {path}: {error}") from error

    def _fetch_token(self) -> str:
        if self._token is None:
            try:
                answer = self._http.post("/auth/token", json=self._credentials)
            except httpx.TransportError as error:
                raise AirflowUnreachable(f"Airflow did not answer the login: {error}") from error
            if answer.is_server_error:
                raise AirflowUnreachable(f"Airflow answered {answer.status_code} to the login")
            if answer.is_error:
                raise AuthenticationFailed("Airflow refused the login: see TRADEWIND_AIRFLOW_USERNAME and its password")
            self._token = str(answer.json()["access_token"])
        return self._token


class _Conflict(BadInput):
    """What should be made exists already."""


def _part(text: str) -> str:
    return quote(text, safe="~")
