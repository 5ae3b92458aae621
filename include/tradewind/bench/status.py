"""How fast the status app answers with a year of trading behind it: as it is served, through the role it has there.

The paper exchange runs beside it; its checks of Airflow fail at once, and are asked in the background as ever.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import psycopg
from pydantic import SecretStr

from tradewind.adapters.migrations import migrate
from tradewind.bench.http_load import as_fast_as_answered
from tradewind.bench.rows import BenchOptions, Row, percentile
from tradewind.bench.servers import scratch_database, scratch_dir, scratch_postgres, scratch_valkey
from tradewind.bench.status_year import store_year
from tradewind.errors import StackFailed
from tradewind.settings import PROJECT_DIR, Settings
from tradewind.stack.environment import paper_environment, status_environment
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.processes import ProcessMark, end_sessions, free_port, spawn

_BOUND_MS: Final = 50.0
_HALT_BOUND_MS: Final = 2000.0
_FLOODING: Final = 32
_HELD: Final = 300
_DAYS: Final = 365
_START_S: Final = 60.0
# As a deployment serves it, but for its limit on requests.
_APP: Final = """
from trading_api import create_app
from trading_api.serve import serve
serve(create_app(config={'READER_REQUESTS_PER_MINUTE': 10**9}), '127.0.0.1', %d)
"""


def measure(options: BenchOptions) -> list[Row]:
    """The 95th percentile of the page and of each answer that it, its charts, or a person asks for."""
    days = _DAYS // 10 if options.quick else _DAYS
    with scratch_dir() as directory, scratch_postgres(directory) as server, scratch_valkey(directory) as cache:
        url = scratch_database(server, "status", schema=False)
        settings = Settings(
            account_id="bench",
            home_dir=directory / "home",
            database_url=SecretStr(url),
            paper_database_url=SecretStr(scratch_database(server, "paper", schema=False)),
            cache_url=SecretStr(cache.url()),
            exchange_port=free_port(),
            status_port=free_port(),
            airflow_url="http://127.0.0.1:9",
            exchange_admin_token=SecretStr(secrets.token_hex(16)),
            api_read_token=SecretStr("read"),
            api_control_token=SecretStr("control"),
            api_session_key=SecretStr("session"),
        )
        migrate(url, settings.identity)
        settings = settings.model_copy(update={"status_database_url": SecretStr(_status_role(server))})
        options.say(f"storing {days} days of five symbols")
        store_year(url, settings, days)
        with _serving(settings, directory) as address:
            return _ask(address, days, 0.3 if options.quick else 3.0)


def _status_role(server: EmbeddedPostgres) -> str:
    password = secrets.token_hex(8)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE tradewind_status LOGIN PASSWORD '{password}'")
    return server.url("status", user="tradewind_status", password=password)


@contextmanager
def _serving(settings: Settings, directory: Path) -> Iterator[str]:
    """The paper exchange and the status app, until the caller is done; yields the status app's address."""
    exchange = [sys.executable, "-m", "tradewind.paper", "--port", str(settings.exchange_port)]
    status = [sys.executable, "-c", _APP % settings.status_port]
    marks = []
    try:
        for name, argv, environment, url in (
            ("exchange", exchange, paper_environment(settings), f"{settings.exchange_url}/api/v3/time"),
            ("status", status, status_environment(settings), f"http://127.0.0.1:{settings.status_port}/api/health"),
        ):
            log = directory / f"{name}.log"
            process = spawn(argv, log=log, env=environment, cwd=PROJECT_DIR)
            marks.append(ProcessMark.of(process.pid))
            _wait_for(url, process, log)
        yield f"http://127.0.0.1:{settings.status_port}"
    finally:
        end_sessions(marks)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5.0, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise StackFailed(f"{url} does not answer: {log.read_text(errors='replace')[-2000:]}")


def _ask(address: str, days: int, duration_s: float) -> list[Row]:
    now = datetime.now(UTC)
    week, long_ago = (f"{now - timedelta(days=ago):%Y-%m-%dT%H:%M:%SZ}" for ago in (7, days // 2))
    rows = []
    for path, words in (
        ("/", "the page"),
        ("/panels", "its panels, asked for every 5 s"),
        ("/api/system-status", ""),
        ("/api/positions", ""),
        ("/api/positions?live=false&limit=50&offset=1000", ""),
        ("/api/orders", ""),
        (f"/api/orders?symbol=BTC/USDT&to={long_ago}", ""),
        ("/api/decisions", ""),
        (f"/api/decisions?symbol=BTC/USDT&to={long_ago}", ""),
        (f"/api/equity?points=400&from={week}", "the chart of a week"),
        ("/api/equity?points=400", "the chart of all"),
        ("/api/candles?symbol=BTC/USDT", "the chart of candles"),
        ("/api/models", ""),
        ("/api/regimes", ""),
        ("/api/sentiment", ""),
    ):
        request = f"GET {path} HTTP/1.1\r\nHost: status\r\nAuthorization: Bearer read\r\n\r\n".encode()
        taken_ms = _latencies_ms(address, request, duration_s)
        shown = path.replace(week, "…").replace(long_ago, "…") + (f", {words}" if words else "")
        spread = (min(taken_ms), max(taken_ms))
        what = f"GET {shown}, {days} days stored: p95"
        rows.append(Row("status", what, percentile(taken_ms, 0.95), "ms", _BOUND_MS, spread=spread))
    return [*rows, _halt_among_strangers(address, duration_s)]


def _halt_among_strangers(address: str, duration_s: float) -> Row:
    """The slowest halt while strangers ask as fast as they are answered, and hold requests that they do not end."""
    stranger = b"GET /login HTTP/1.1\r\nHost: status\r\n\r\n"
    body = b'{"reason": "bench"}'
    halt = b"POST /api/halt HTTP/1.1\r\nHost: status\r\nX-Tradewind-Control: control\r\n"
    halt += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    parts = urlsplit(address)
    with ExitStack() as held, ThreadPoolExecutor(1) as others:
        for _ in range(_HELD):
            connection = socket.create_connection((str(parts.hostname), int(parts.port or 80)))
            held.enter_context(connection)
            connection.sendall(stranger[:-2])
        flood = others.submit(as_fast_as_answered, address, lambda: stranger, _FLOODING, duration_s)
        taken_ms = _latencies_ms(address, halt, duration_s / 2)
        flood.result()
    what = f"POST /api/halt among {_FLOODING} strangers who ask and {_HELD} who do not end asking: the slowest"
    return Row("status", what, max(taken_ms), "ms", _HALT_BOUND_MS, spread=(min(taken_ms), max(taken_ms)))


def _latencies_ms(address: str, request: bytes, duration_s: float) -> list[float]:
    """One request after the other over one connection, after a tenth of the time to warm up."""
    as_fast_as_answered(address, lambda: request, 1, duration_s / 10)
    load = as_fast_as_answered(address, lambda: request, 1, duration_s)
    return [latency_s * 1000 for latency_s in load.latency_s]
