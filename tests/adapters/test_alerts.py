"""The outbox: one row a key and hour, sent once, tried again with back-off, never raising at the caller."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta

import pytest

from tradewind.adapters.alert_dispatcher import AlertDispatcher
from tradewind.adapters.alerts import OutboxAlerts
from tradewind.adapters.database import Database


@pytest.fixture
def channel() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A webhook that apprise posts JSON to: its apprise URL, and what it received."""
    received: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"json://127.0.0.1:{server.server_port}/", received
    server.shutdown()
    server.server_close()


def test_same_key_within_the_hour_is_one_row_also_when_raised_at_once(database: Database) -> None:
    alerts = OutboxAlerts(database, "main")
    with ThreadPoolExecutor(4) as pool:
        for number in range(8):
            pool.submit(alerts.raise_alert, "warning", "stale:BTC/USDT", "Stale data", f"body {number}")
    alerts.raise_alert("warning", "stale:ETH/USDT", "Stale data", "other key")
    rows = database.rows("SELECT key, repeats FROM alerts ORDER BY key")
    assert rows == [{"key": "stale:BTC/USDT", "repeats": 7}, {"key": "stale:ETH/USDT", "repeats": 0}]


def test_the_same_key_after_the_hour_is_a_new_alert(database: Database) -> None:
    alerts = OutboxAlerts(database, "main")
    alerts.raise_alert("warning", "k", "t", "b")
    database.execute("UPDATE alerts SET last_seen_at = last_seen_at - interval '61 minutes'")
    alerts.raise_alert("warning", "k", "t", "b")
    assert len(database.rows("SELECT 1 FROM alerts")) == 2


def test_a_worse_severity_is_not_swallowed_by_a_milder_one(database: Database) -> None:
    alerts = OutboxAlerts(database, "main")
    alerts.raise_alert("info", "k", "t", "b")
    alerts.raise_alert("critical", "k", "t", "b")
    assert len(database.rows("SELECT 1 FROM alerts")) == 2


def test_alert_reaches_the_channel_once(database: Database, channel: tuple[str, list[dict[str, str]]]) -> None:
    url, received = channel
    OutboxAlerts(database, "main").raise_alert("critical", "breaker", "Breaker tripped", "Day's loss is 3.2 %")
    dispatcher = AlertDispatcher(database, [url])
    assert dispatcher.dispatch_once() == 1
    assert dispatcher.dispatch_once() == 0
    assert len(received) == 1
    assert received[0]["title"] == "[critical] Breaker tripped"
    assert "3.2 %" in received[0]["message"]


def test_a_dead_channel_keeps_the_alert_and_backs_off(database: Database) -> None:
    OutboxAlerts(database, "main").raise_alert("critical", "breaker", "Breaker tripped", "b")
    dispatcher = AlertDispatcher(database, ["json://127.0.0.1:9/"])
    assert dispatcher.dispatch_once() == 0
    assert dispatcher.dispatch_once() == 0, "the second attempt waits"
    row = database.row("SELECT sent_at, attempts, last_error FROM alerts")
    assert row == {"sent_at": None, "attempts": 1, "last_error": "no channel took it"}
    database.execute("UPDATE alerts SET last_attempt_at = now() - interval '3 minutes'")
    delivered = AlertDispatcher(database, [], send=lambda title, body, severity: True)
    assert delivered.dispatch_once() == 1


def test_quiet_hours_hold_back_all_but_the_critical(database: Database) -> None:
    alerts = OutboxAlerts(database, "main")
    alerts.raise_alert("warning", "mild", "mild", "b")
    alerts.raise_alert("critical", "bad", "bad", "b")
    sent: list[str] = []
    dispatcher = AlertDispatcher(
        database, [], quiet=(time(22), time(7)), send=lambda title, body, severity: sent.append(title) is None
    )
    night = datetime.combine(datetime.now(UTC).date(), time(23), UTC)
    dispatcher.dispatch_once(night)
    assert sent == ["[critical] bad"]
    dispatcher.dispatch_once(night + timedelta(hours=9))
    assert sent == ["[critical] bad", "[warning] mild"]


def test_without_channels_alerts_stay_for_the_page(database: Database) -> None:
    OutboxAlerts(database, "main").raise_alert("info", "k", "t", "b")
    assert AlertDispatcher(database, []).dispatch_once() == 0
    row = database.row("SELECT attempts FROM alerts")
    assert row == {"attempts": 0}


def test_a_store_that_is_down_does_not_replace_the_callers_error(caplog: pytest.LogCaptureFixture) -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    database._pool.timeout = 1
    OutboxAlerts(database, "main").raise_alert("critical", "k", "Naked position", "b")
    database.close()
    assert "Naked position" in caplog.text


def test_unknown_severity_is_a_mistake_of_the_caller(database: Database) -> None:
    with pytest.raises(ValueError, match="severity"):
        OutboxAlerts(database, "main").raise_alert("fatal", "k", "t", "b")


def test_one_accounts_alert_is_no_repeat_of_anothers(database: Database) -> None:
    """A demo's database holds an account for each of its runs, and their keys are the same."""
    mine, theirs = OutboxAlerts(database, "demo-2"), OutboxAlerts(database, "demo-1")
    theirs.raise_alert("critical", "halt-1", "Trading is halted", "yesterday")
    assert not mine.is_known("halt-1")
    mine.raise_alert("critical", "halt-1", "Trading is halted", "today")
    rows = database.rows("SELECT account, body, repeats FROM alerts ORDER BY account")
    assert [tuple(row.values()) for row in rows] == [("demo-1", "yesterday", 0), ("demo-2", "today", 0)]
