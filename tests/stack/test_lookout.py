"""The one who watches the others: what it notices, how often it says so, and that nothing stops it looking."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.http_server import Answer, serving
from tests.support.outside import Outside, outside
from tests.support.status_seed import seed_week
from tradewind.adapters.database import Database
from tradewind.settings import Settings
from tradewind.stack import lookout as module
from tradewind.stack.job_following import NEVER_STARTED
from tradewind.stack.lookout import Lookout
from tradewind.stack.processes import ProcessMark
from tradewind.stack.state import ProcessState, StackState, state_file


@pytest.fixture
def around() -> Iterator[Outside]:
    with outside() as made:
        yield made


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


@pytest.fixture
def settings(postgres_url: str, valkey_url: str, around: Outside, listener: socket.socket, tmp_path: Path) -> Settings:
    return Settings(
        home_dir=tmp_path,
        database_url=SecretStr(postgres_url),
        cache_url=SecretStr(valkey_url),
        exchange_url=around.exchange_url,
        airflow_url=around.airflow_url,
        statsd_host="127.0.0.1",
        statsd_port=listener.getsockname()[1],
    )


@pytest.fixture
def lookout(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lookout]:
    monkeypatch.setattr(module, "_BAD_FOR_S", 0.0)
    seed_week(database, settings.account_id)
    database.execute("DELETE FROM alerts")
    made = Lookout(settings)
    made._wiring.__dict__["database"] = Database(settings.database_url.get_secret_value())
    # An hour that never comes: a test that wants the summary sets another.
    object.__setattr__(made._settings, "summary_hour_utc", 24)
    yield made
    made.stop()


def alerts(database: Database) -> list[tuple[str, str, int]]:
    rows = database.rows("SELECT severity, key, repeats FROM alerts ORDER BY alert_id")
    return [(row["severity"], row["key"], row["repeats"]) for row in rows]


def test_nothing_is_said_while_all_is_well(lookout: Lookout, database: Database) -> None:
    assert [check.name for check in lookout.look() if not check.ok] == []
    lookout.look()
    assert alerts(database) == []


def test_a_part_that_fails_is_told_once_and_again_when_it_is_back(
    lookout: Lookout, database: Database, around: Outside
) -> None:
    around.ill.add("triggerer")
    for _ in range(3):
        lookout.look()
    assert alerts(database) == [("critical", "part:airflow", 0)]
    row = database.row("SELECT title, body FROM alerts")
    assert row is not None
    assert "triggerer" in row["title"]
    assert "No entry is sent" in row["body"]
    around.ill.clear()
    lookout.look()
    assert alerts(database)[1:] == [("info", "part:airflow:over", 0)]


def test_a_silent_watch_late_bars_an_old_model_and_a_naked_position_are_told(
    lookout: Lookout, database: Database, around: Outside
) -> None:
    database.execute("UPDATE heartbeats SET at = at - interval '20 seconds' WHERE name = 'watch_risk'")
    database.execute("UPDATE models SET trained_until = trained_until - interval '60 days'")
    database.execute(
        "INSERT INTO unprotected_spans (position_id, cause, started_at) "
        "SELECT position_id, 'replacement', now() - interval '1 minute' FROM positions WHERE status = 'open' LIMIT 1"
    )
    around.market_now_ms += 3_600_000
    lookout.look()
    found = {(severity, key.split(":")[0]) for severity, key, _ in alerts(database)}
    assert found == {("critical", "part"), ("warning", "stale-data"), ("warning", "model-stale"), ("critical", "naked")}


def test_a_halt_on_the_page_is_told_once(lookout: Lookout, database: Database) -> None:
    database.execute("SELECT tighten_latch('demo', 'reduce_only', 'lunch', 'control', now())")
    lookout.look()
    lookout.look()
    assert alerts(database) == [("warning", "halt-1", 0)]


def test_alerts_wait_while_postgresql_is_away_and_go_out_directly(
    lookout: Lookout, settings: Settings, database: Database
) -> None:
    bodies: list[bytes] = []

    def channel(request: object) -> Answer:
        bodies.append(request.body)  # type: ignore[attr-defined]
        return Answer(200)

    with serving(channel) as (url, _):
        urls = (SecretStr(url.replace("http://", "json://")),)
        away = settings.model_copy(
            update={"writer_database_url": SecretStr("postgresql://x@127.0.0.1:1/none"), "alert_urls": urls}
        )
        blind = Lookout(away)
        blind._wiring.__dict__["database"] = Database("postgresql://x@127.0.0.1:1/none")
        blind._wiring.database._pool.timeout = 0.2
        blind.look()
        blind.look()
        assert any(b"postgresql" in body for body in bodies)
        blind._wiring.__dict__["alerts"] = lookout._wiring.alerts
        blind._deliver()
        assert ("critical", "part:postgresql", 0) in alerts(database)


def test_a_process_that_was_started_again_is_told(lookout: Lookout, settings: Settings, database: Database) -> None:
    path = state_file(settings.home_dir)
    path.parent.mkdir(parents=True)
    mark = ProcessMark.of(1)

    def write(state: str, restarts: int, own: ProcessMark = mark) -> None:
        rows = [ProcessState("triggerer", state, own, None, "x.log", restarts)]
        StackState(supervisor=mark, state="ready", processes=rows).save(path)

    write("ready", 0)
    lookout.look()
    write("restarting", 1)
    ill = [(check.name, check.detail) for check in lookout.look() if not check.ok]
    assert ill == [("processes", "triggerer is restarting")]
    write("ready", 1, ProcessMark(mark.pid, time.time() - 3))
    (ill,) = [check for check in lookout.look() if not check.ok]
    assert ill.detail == "triggerer died and was started again 3 s ago"
    write("ready", 1)
    assert [check for check in lookout.look() if not check.ok] == []
    assert alerts(database) == [("warning", "process:triggerer", 0)]


def test_jobs_follow_their_runs(lookout: Lookout, database: Database, around: Outside) -> None:
    database.execute("DELETE FROM jobs")
    insert = "INSERT INTO jobs VALUES (%s, 'train', 'queued', '{}', 'retrain_models', %s, 'control', %s)"
    now = datetime.now(UTC)
    for number, created in (("ran", now), ("lost", now - timedelta(minutes=2)), ("new", now)):
        database.execute(insert, (number, number, created))
    around.runs["retrain_models", "ran"] = {
        "dag_id": "retrain_models", "dag_run_id": "ran", "state": "success",
        "start_date": "2026-03-01T12:00:00Z", "end_date": "2026-03-01T12:01:00Z",
    }  # fmt: skip
    lookout.look()
    rows = {row["job_id"]: row for row in database.rows("SELECT job_id, state, error, finished_at FROM jobs")}
    assert (rows["ran"]["state"], rows["ran"]["finished_at"].minute) == ("done", 1)
    assert (rows["lost"]["state"], rows["lost"]["error"]) == ("failed", NEVER_STARTED)
    assert rows["new"]["state"] == "queued"


def test_the_day_is_summed_up_once(lookout: Lookout, settings: Settings, database: Database) -> None:
    object.__setattr__(lookout._settings, "summary_hour_utc", 0)
    lookout.look()
    lookout.look()
    row = database.row("SELECT severity, title, body, repeats FROM alerts WHERE key LIKE 'summary-%%'", ())
    assert row is not None
    assert (row["severity"], row["repeats"]) == ("info", 0)
    assert row["title"].startswith("Daily summary: ")
    for words in ("Equity ", "Open: ", "Decisions: ", "Paper money."):
        assert words in row["body"]


def test_levels_are_sent(lookout: Lookout, listener: socket.socket) -> None:
    lookout.look()
    listener.settimeout(0.3)
    names = set()
    # Until nothing more comes.
    with contextlib.suppress(TimeoutError):
        while True:
            names |= {line.split(":")[0].split(",")[0] for line in listener.recv(65536).decode().splitlines()}
    expected = {
        "part.up", "equity_quote", "drawdown_frac", "exposure_frac", "day_result_frac", "positions.open",
        "latch.tightness", "reconciliation.age_s", "heartbeat.age_s", "candles.age_s", "feed.age_s", "regime.active",
        "model.age_s", "model.calibration_error", "dag.paused",
    }  # fmt: skip
    assert {f"tradewind.{name}" for name in expected} <= names
