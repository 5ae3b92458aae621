"""The inside of a task: adapters from Airflow's connections, ids on every log line, our errors as Airflow's."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import structlog
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.providers.redis.hooks.redis import RedisHook
from airflow.sdk import Connection, get_current_context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from tradewind.addresses import cache_url
from tradewind.errors import BadInput, ReconcileError, RetryError, StopError
from tradewind.settings import Settings, load_settings
from tradewind.wiring import Wiring

DATABASE_CONNECTION = "tradewind_db"
CACHE_CONNECTION = "tradewind_cache"

log = structlog.get_logger(__name__)


@contextmanager
def task_ports(**ids: str | None) -> Iterator[Wiring]:
    """The ports of one task, closed when it ends.

    `ids` (bar, intent_id, job_id ...) are bound to every log line within, and so are the DAG, run and task.

    Raises
    ------
    AirflowException : the job may succeed later; the task's retries apply.
    AirflowFailException : repeating would change nothing, or must not happen before somebody has looked.
    """
    bound = {name: value for name, value in ids.items() if value is not None}
    named = task_names()
    with structlog.contextvars.bound_contextvars(**bound, **named), translated_errors():
        wiring = build_wiring()
        started_s = time.monotonic()
        try:
            yield wiring
        finally:
            names = {name: named.get(f"{name}_id", "none") for name in ("dag", "task")}
            wiring.metrics.timing_ms("tradewind.task.duration", (time.monotonic() - started_s) * 1000, **names)
            wiring.close()


def task_names() -> dict[str, str]:
    """DAG, run and task that this process runs; empty outside a task."""
    try:
        task = get_current_context()["ti"]
    except RuntimeError:
        return {}
    return {"dag_id": task.dag_id, "run_id": task.run_id, "task_id": task.task_id}


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn our exception tree into Airflow's, and say in one line what happened.

    An exception that is not ours is a defect and passes through with its traceback.
    """
    try:
        yield
    except RetryError as error:
        line = f"{type(error).__name__}: {error} (retried while tries are left)"
        log.warning(line)
        raise AirflowException(line) from None
    except (StopError, ReconcileError) as error:
        why = "repeating would not help" if isinstance(error, StopError) else "reconciliation must look first"
        line = f"{type(error).__name__}: {error} ({why})"
        log.error(line)
        raise AirflowFailException(line) from None


def build_wiring() -> Wiring:
    """Wiring from settings, with the servers' addresses from Airflow's connections."""
    database = PostgresHook.get_connection(DATABASE_CONNECTION)
    return Wiring(connected_settings(database, RedisHook.get_connection(CACHE_CONNECTION)))


async def build_wiring_async() -> Wiring:
    """The same for a trigger, whose event loop must not be blocked."""
    database = await PostgresHook.aget_connection(DATABASE_CONNECTION)
    return Wiring(connected_settings(database, await RedisHook.aget_connection(CACHE_CONNECTION)))


def connected_settings(database: Connection, cache: Connection) -> Settings:
    """The process's settings with the DSNs of these connections."""
    return load_settings(database_url=dsn_of(database, "postgresql"), cache_url=dsn_of(cache, "redis"))


def dsn_of(connection: Connection, scheme: str) -> str:
    """The URL by which psycopg or redis-py reaches what an Airflow connection describes.

    Extras become query parameters (`sslmode` for PostgreSQL; redis-py takes `ssl=true` as the scheme `rediss`), except
    the database number of Redis, which Airflow's hook reads from the extra `db`. A server on a Unix socket is named as
    libpq does, by the extra `host`, and Redis by a URL of the scheme `unix`.
    """
    extra: dict[str, Any] = dict(connection.extra_dejson)
    database = connection.schema or ""
    if connection.conn_type == "unix":
        return cache_url(Path(f"/{database}"), connection.password or "", int(extra.get("db", 0)))
    if scheme == "redis":
        database = str(extra.pop("db", database or 0))
        scheme = "rediss" if extra.pop("ssl", False) else "redis"
    login = quote(connection.login or "", safe="")
    secret = f":{quote(connection.password, safe='')}" if connection.password else ""
    port = f":{connection.port}" if connection.port else ""
    query = f"?{urlencode(extra, quote_via=quote)}" if extra else ""
    at = "@" if login or secret else ""
    return f"{scheme}://{login}{secret}{at}{connection.host or ''}{port}/{database}{query}"


def report(result: object) -> None:
    """Log what a job did, in one line. Rows lie in PostgreSQL; XCom carries ids and times alone."""
    log.info("job done", **fields_of(result))


def fields_of(result: object) -> dict[str, Any]:
    """A job's result as the fields of a log line."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, Mapping):
        # "event" is structlog's own name for the message.
        return {"event_" if name == "event" else str(name): value for name, value in result.items()}
    return {"result": result}


def parse_moment(text: str | None) -> datetime:
    """An ISO time with its offset, from XCom or a run's params, in UTC.

    Raises BadInput, also for None: that is what XCom gives when the task before was marked as successful by hand.
    """
    if text is None:
        raise BadInput("no time was given by the task before; clear that task instead of marking it")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is no ISO time; give it as 2026-01-31T14:15:00+00:00") from None
    if moment.tzinfo is None:
        raise BadInput(f"{text!r} has no offset; give it as {text}+00:00")
    return moment.astimezone(UTC)


def history_request(ports: Wiring, params: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Arguments of `jobs.market.backfill_history` from a run's params; what is empty gets the configured value.

    The job keeps the run's id, so that a cleared run carries on instead of starting anew.
    """
    from tradewind.jobs.fetching import collected_symbols

    end = parse_moment(params["to"]) if params["to"] else ports.clock.now()
    start = parse_moment(params["from"]) if params["from"] else end - timedelta(days=30 * ports.settings.history_months)
    return {
        "job_id": params["job_id"] or f"history__{run_id}",
        "symbols": tuple(params["symbols"]) or collected_symbols(ports),
        "timeframes": tuple(params["timeframes"]),
        "start": start,
        "end": end,
    }
