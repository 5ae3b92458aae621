"""What happens around a job inside a task: addresses, ids, errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import structlog
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from tradewind import errors
from tradewind.addresses import cache_socket, cache_url, postgres_url
from tradewind.core.params import Geometry, StrategyParams
from tradewind.orchestration.runtime import (
    build_wiring,
    dsn_of,
    fields_of,
    history_request,
    parse_moment,
    report,
    task_ports,
    translated_errors,
)

SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs", "Cc"]), min_size=1)


def leaves(base: type[errors.TradewindError]) -> list[type[errors.TradewindError]]:
    found = base.__subclasses__()
    return found + [leaf for child in found for leaf in leaves(child)]


def an(error: type[errors.TradewindError]) -> errors.TradewindError:
    """One instance, whatever its constructor wants besides."""
    made = error.__new__(error)
    made.args = ("what happened",)
    return made


@given(login=SECRETS, password=SECRETS)
def test_postgres_gets_every_character_of_a_connection(login: str, password: str) -> None:
    connection = Connection(
        conn_id="x", conn_type="postgres", host="db.example", port=5433, login=login, password=password,
        schema="tradewind", extra='{"sslmode": "verify-full"}',
    )  # fmt: skip
    assert conninfo_to_dict(dsn_of(connection, "postgresql")) == {
        "host": "db.example", "port": "5433", "user": login, "password": password, "dbname": "tradewind",
        "sslmode": "verify-full",
    }  # fmt: skip


@given(password=SECRETS)
def test_redis_gets_every_character_of_a_connection(password: str) -> None:
    connection = Connection(
        conn_id="x", conn_type="redis", host="cache.example", port=6380, password=password, extra='{"db": 3}'
    )
    pool = redis.Redis.from_url(dsn_of(connection, "redis")).connection_pool
    wanted = {"host": "cache.example", "port": 6380, "password": password, "db": 3}
    assert {name: pool.connection_kwargs[name] for name in wanted} == wanted


def test_redis_takes_the_number_from_a_url_and_ssl_from_the_extra() -> None:
    from_url = Connection(conn_id="x", uri="redis://:secret@127.0.0.1:6390/2")
    assert dsn_of(from_url, "redis") == "redis://:secret@127.0.0.1:6390/2"
    with_ssl = Connection(conn_id="x", conn_type="redis", host="cache.example", extra='{"ssl": true}')
    assert dsn_of(with_ssl, "redis") == "rediss://cache.example/0"


@pytest.mark.parametrize("directory", ["/run/tradewind/0123", "/home/a b/ü,$HOME/postgres-socket"])
@given(password=SECRETS)
def test_servers_on_sockets_are_named_through_a_connection(directory: str, password: str) -> None:
    database = Connection(conn_id="x", uri=postgres_url(Path(directory), "owner", password, "tradewind_demo"))
    assert conninfo_to_dict(dsn_of(database, "postgresql")) == {
        "host": directory, "port": "5432", "user": "owner", "password": password, "dbname": "tradewind_demo",
        "require_auth": "scram-sha-256",
    }  # fmt: skip
    cache = Connection(conn_id="x", uri=cache_url(cache_socket(Path(directory)), password, 2))
    reached = redis.Redis.from_url(dsn_of(cache, "redis")).connection_pool.connection_kwargs
    assert (reached["path"], reached["password"], reached["db"]) == (f"{directory}/valkey.sock", password, 2)


def test_wiring_takes_the_servers_from_airflows_connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_TRADEWIND_DB", "postgresql://u:p%40ss@db.example:5433/tradewind_demo")
    monkeypatch.setenv("AIRFLOW_CONN_TRADEWIND_CACHE", "redis://:hush@cache.example:6390/0")
    settings = build_wiring().settings
    assert settings.database_url.get_secret_value() == (
        "postgresql://u:p%40ss@db.example:5433/tradewind_demo?require_auth=scram-sha-256"
    )
    assert settings.cache_url.get_secret_value() == "redis://:hush@cache.example:6390/0"
    assert "hush" not in repr(settings)


@pytest.mark.parametrize("error", [errors.RetryError, *leaves(errors.RetryError)])
def test_what_may_pass_is_retried(error: type[errors.TradewindError]) -> None:
    with pytest.raises(AirflowException, match=f"^{error.__name__}: what happened") as caught, translated_errors():
        raise an(error)
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "error", [errors.StopError, errors.ReconcileError, *leaves(errors.StopError), *leaves(errors.ReconcileError)]
)
def test_what_does_not_pass_is_not_retried(error: type[errors.TradewindError]) -> None:
    with pytest.raises(AirflowFailException, match=f"^{error.__name__}: what happened"), translated_errors():
        raise an(error)


def test_a_defect_keeps_its_own_traceback() -> None:
    with pytest.raises(ZeroDivisionError), translated_errors():
        1 / 0  # noqa: B018


def test_ids_are_bound_within_the_task_and_the_wiring_closed_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_TRADEWIND_DB", "postgresql://u:p@127.0.0.1:1/x")
    monkeypatch.setenv("AIRFLOW_CONN_TRADEWIND_CACHE", "redis://127.0.0.1:1/0")
    with task_ports(bar="2026-01-31T14:15:00+00:00", intent_id=None) as ports:
        assert structlog.contextvars.get_contextvars() == {"bar": "2026-01-31T14:15:00+00:00"}
        assert ports.redis.connection_pool is not None
    assert structlog.contextvars.get_contextvars() == {}


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_a_moment_survives_its_text(naive: datetime, offset_minutes: int) -> None:
    moment = naive.replace(tzinfo=UTC).astimezone(tz=_zone(offset_minutes))
    parsed = parse_moment(moment.isoformat())
    assert parsed == moment
    assert parsed.tzinfo is UTC


def _zone(minutes: int) -> Any:
    from datetime import timezone

    return timezone(timedelta(minutes=minutes))


@pytest.mark.parametrize("text", [None, "", "today", "2026-01-31T14:15:00"])
def test_a_moment_without_offset_is_refused(text: str | None) -> None:
    with pytest.raises(errors.BadInput):
        parse_moment(text)


def test_an_empty_request_for_history_takes_what_is_configured() -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    ports: Any = SimpleNamespace(
        clock=SimpleNamespace(now=lambda: now),
        symbols=("ETH/USDT",),
        params=StrategyParams(),
        settings=SimpleNamespace(history_months=2),
        trading_store=SimpleNamespace(live_positions=list),
    )
    empty = {"symbols": [], "timeframes": ["15m"], "from": None, "to": None, "job_id": None}
    assert history_request(ports, empty, "run-1") == {
        "job_id": "history__run-1", "symbols": ("ETH/USDT", "BTC/USDT"), "timeframes": ("15m",),
        "start": now - timedelta(days=60), "end": now,
    }  # fmt: skip


def test_any_result_becomes_fields_of_a_log_line() -> None:
    assert fields_of({"event": "a name of structlog's own", "new": 3}) == {
        "event_": "a name of structlog's own",
        "new": 3,
    }
    assert fields_of(Geometry(2.5, 2.0)) == {"stop_atr": 2.5, "target_r": 2.0}
    assert fields_of(None) == {"result": None}
    for result in ({"event": 1}, Geometry(2.5, 2.0), None, ["id"]):
        report(result)
