"""The app as it is served, under what strangers may send: who has the control token is heard, from wherever."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from tests.support.floods import flood
from tests.trading_api.conftest import CONTROL, CONTROLLER, READ, READER
from tradewind.adapters.database import Database
from tradewind.adapters.migrations import migrate
from tradewind.core.types import TradingMode
from tradewind.jobs import safety
from tradewind.settings import PROJECT_DIR, Settings
from tradewind.stack.environment import status_environment
from tradewind.stack.processes import ProcessMark, end_sessions, free_port, spawn
from tradewind.wiring import Wiring

GENEROUS_S = 60.0
PLOTLY = "/static/plotly.js"
FLOODS = {
    "requests": "/login",
    "heads": "/",
    "silence": "/",
    "bodies": "/login",
    "unread": PLOTLY,
}
WAITING = (
    "SELECT count(*) AS waiting FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
every_flood = pytest.mark.parametrize("kind", FLOODS)


@pytest.fixture
def settings(settings: Settings, postgres_url: str) -> Settings:
    """Of a deployment whose database bears its stamp."""
    made = settings.model_copy(
        update={"status_database_url": settings.database_url, "status_port": free_port(), "account_id": "demo"}
    )
    migrate(postgres_url, made.identity)
    return made


@contextmanager
def serving(settings: Settings, directory: Path) -> Iterator[int]:
    """The port at which a process of its own serves the app."""
    argv = [sys.executable, "-m", "trading_api", "--port", str(settings.status_port)]
    log = directory / "status.log"
    process = spawn(argv, log=log, env=status_environment(settings), cwd=PROJECT_DIR)
    mark = ProcessMark.of(process.pid)
    try:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{settings.status_port}/api/health").is_success)
        yield settings.status_port
        assert process.poll() is None, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        end_sessions([mark])


@pytest.fixture
def port(settings: Settings, tmp_path: Path) -> Iterator[int]:
    with serving(settings, tmp_path) as port:
        yield port


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GENEROUS_S
    while True:
        try:
            if reached():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ask(port: int, method: str, path: str, **more: object) -> httpx.Response:
    return httpx.request(method, f"http://127.0.0.1:{port}{path}", timeout=GENEROUS_S, **more)  # type: ignore[arg-type]


@every_flood
def test_halt_is_heard_through_the_api(port: int, database: Database, kind: str) -> None:
    with flood(kind, port, FLOODS[kind]):
        for number in range(5):
            started = time.monotonic()
            answer = ask(port, "POST", "/api/halt", json={"reason": f"lunch {number}"}, headers=CONTROLLER)
            print(f"halt during {kind}: {answer.status_code} after {time.monotonic() - started:.3f} s")
            assert answer.status_code == 200, answer.text
    assert database.row("SELECT mode, reason FROM latches") == {"mode": "reduce_only", "reason": "lunch 0"}


@every_flood
def test_a_person_signs_in_and_halts_on_the_page(port: int, database: Database, kind: str) -> None:
    """As the page does it: the cookie, the word that proves the page, the control token."""
    with (
        flood(kind, port, FLOODS[kind]),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=GENEROUS_S) as browser,
    ):
        # Before that the person is a stranger among the others, and may have to press again.
        wait_for(lambda: browser.post("/login", data={"token": READ}).status_code == 303)
        found = re.search(r'name="csrf" content="([0-9a-f]+)"', browser.get("/").text)
        assert found is not None
        headers = {"X-Tradewind-Control": CONTROL, "X-CSRF-Token": found[1]}
        answer = browser.post("/api/halt", json={"reason": "lunch"}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert browser.get("/api/system-status").json()["trading"]["mode"] == "reduce_only"
        assert browser.get("/api/health").status_code == 200
    assert database.row("SELECT mode, reason FROM latches") == {"mode": "reduce_only", "reason": "lunch"}


@every_flood
def test_the_command_and_the_breaker_need_no_page(port: int, settings: Settings, postgres_url: str, kind: str) -> None:
    owner = Wiring(settings.model_copy(update={"database_url": SecretStr(postgres_url)}))
    with flood(kind, port, FLOODS[kind]):
        assert safety.halt(owner, "lunch", "kim")["mode"] == "reduce_only"
        latch = owner.trading_store.set_latch(TradingMode.HALTED, "breach", owner.wall.now(), actor="watch")
    owner.close()
    assert (latch.mode, latch.reason) == (TradingMode.HALTED, "breach")


def test_what_readers_wait_for_keeps_no_halt_waiting(port: int, postgres_url: str, database: Database) -> None:
    """More of them than the app has threads and connections for readers."""
    with psycopg.connect(postgres_url) as other, ThreadPoolExecutor(20) as readers:
        other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        asked = [readers.submit(ask, port, "GET", "/api/orders", headers=READER) for _ in range(20)]
        wait_for(lambda: database.row(WAITING) == {"waiting": 4})
        answer = ask(port, "POST", "/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
        assert not any(request.done() for request in asked)
        other.rollback()
        assert answer.status_code == 200, answer.text
        assert {request.result().status_code for request in asked} <= {200, 503}


def test_an_airflow_that_hangs_keeps_no_halt_waiting(settings: Settings, database: Database, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(12) as pressed:
        hanging = settings.model_copy(update={"airflow_url": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        with serving(hanging, tmp_path) as port:
            body = {"reason": "retrain"}
            starts = [pressed.submit(ask, port, "POST", "/api/train", json=body, headers=CONTROLLER) for _ in range(12)]
            wait_for(lambda: database.row("SELECT count(*) AS jobs FROM jobs") == {"jobs": 4})
            answer = ask(port, "POST", "/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
            assert not all(start.done() for start in starts)
            assert answer.status_code == 200, answer.text
            assert {start.result().status_code for start in starts} == {503}


@pytest.mark.parametrize(
    "begun",
    [
        b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 40_000,
        b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"8000\r\n%b\r\n" % (b"x" * 0x8000) * 3,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x00" + b"x" * 40_000,
    ],
    ids=["head", "length", "chunks", "pipelined", "two lengths", "length and chunks", "upgrade"],
)
def test_what_is_too_long_or_means_two_things_ends_the_connection(port: int, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), GENEROUS_S) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(begun)
            while piece := connection.recv(65536):
                answer += piece
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert b"HTTP/1.1 200" not in answer


def test_an_answer_has_whole_headers_and_large_ones_come_in_pieces(port: int, database: Database) -> None:
    head = ask(port, "HEAD", "/login")
    assert (head.status_code, head.content) == (200, b"")
    rows = "INSERT INTO fills SELECT 'demo', 'BTC/USDT', n::text, 'x', true, 1, 1, 0, 'USDT', true, now() "
    database.execute(rows + "FROM generate_series(1, 20000) n")
    lines = ask(port, "GET", "/api/export/fills.csv", headers=READER).text.splitlines()
    assert len(lines) == 20_001
    packed = ask(port, "GET", PLOTLY)
    assert len(packed.content) > 1_000_000
    assert int(packed.headers["Content-Length"]) < len(packed.content)
    assert ask(port, "GET", PLOTLY, headers={"Accept-Encoding": "identity"}).content == packed.content
    answer = ask(port, "GET", "/login", headers={"X_Forwarded_Proto": "https", "X-Forwarded-Proto": "https"})
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    cookie = ask(port, "POST", "/login", data={"token": READ}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in cookie.headers["Set-Cookie"]
