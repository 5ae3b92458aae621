"""A day of the market in minutes on the embedded stack, PostgreSQL killed ten times in it: nothing lost, nothing left.

    ./tradewind test tests/e2e/test_day.py --day

One process lives through 96 cycles and 1,440 position checks by the jobs that the tasks call, over HTTP on the stepped
exchange; beside it the whole stack runs by the wall's clock: its risk watch, its minutely position checks, its status
app. Memory is judged by the day's last hour. Connections and handles are judged at rest after it: while PostgreSQL is
away a pool tries again with more than one connection, keeps those that succeed, and closes what it does not use.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.day_watch import HOUR_BARS, JOBS, Watched, left_in_the_database
from tests.support.invariants import judge
from tradewind.bench.rows import BenchOptions
from tradewind.bench.trading_stack import TradingStack, trading_stack
from tradewind.settings import PROJECT_DIR

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2 * 3600)]

# Lived through before the day: the ledger is empty at first, and answers of the status app grow up to a hundred rows.
BEFORE_BARS = 24
BARS = 96
KILLS, APART_S = 10, 0.3  # a bar takes some three seconds
GROWTH_BOUND = 0.05
# What the day's length is felt by. Airflow's own processes live by the wall, a few minutes of it: shown, not judged.
JUDGED = (JOBS, "exchange", "status", "valkey")


def test_a_day_leaves_nothing_behind(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    if not request.config.getoption("--day"):
        pytest.skip("takes ten minutes: --day")
    with trading_stack(BenchOptions(quick=True)) as system:
        since = system.now()
        worker = _start_worker(system)
        watched = Watched(system, psutil.Process(worker.pid))
        kills = 0
        last: dict[str, Any] = {}
        assert worker.stdin is not None
        try:
            for number in range(-BEFORE_BARS, BARS):
                last = _next_bar(worker)
                if number >= 0:
                    watched.look()
                _ask_the_status_app(system)
                if number == BARS - 1:
                    break
                worker.stdin.write("\n")
                worker.stdin.flush()
                if number >= HOUR_BARS and (number - HOUR_BARS) % 9 == 0 and kills < KILLS:
                    # Each time a little later in the bar: between two transactions or within one, whatever comes.
                    time.sleep(kills * APART_S)
                    system.kill("postgres")
                    kills += 1
            found = judge(system.wiring, since)
            locks, idle = left_in_the_database(system)
            rested_s = watched.rest()
            worker.stdin.write("\n")
            worker.stdin.close()
            assert worker.wait(60) == 0
        finally:
            worker.kill()
        # The bar before the day was nobody's to decide.
        states = "SELECT state, count(*) AS n FROM cycles WHERE bar >= %(since)s GROUP BY 1"
        rows = system.wiring.database.rows(states, {"since": since})
        with capsys.disabled():
            print(f"\n\n{watched}\n\n{last}\n{kills} kills of PostgreSQL\ncycles: {rows}")
            print(f"at rest after {rested_s:.0f} s")
            print(f"locks left {locks}, idle in transaction {idle}\n{json.dumps(found)}")
    assert kills == KILLS
    assert last["checks"] == (BEFORE_BARS + BARS) * 15
    assert sum(row["n"] for row in rows) == BEFORE_BARS + BARS
    assert {row["state"] for row in rows} == {"done"}
    assert {name: words for name, words in found["broken"].items() if words} == {}
    assert found["counted"]["fills"] > 0
    assert (locks, idle) == (0, 0)
    assert all(watched.connections[: HOUR_BARS + 1]), "somebody is always connected: the count saw nobody"
    for held in watched.connections_held():
        assert held.rest <= held.bound, f"{held.service} keeps connections: {held}"
    for name in JUDGED:
        first, end = watched.growth(name, "written_mib")
        assert end <= first * (1 + GROWTH_BOUND), f"{name} grew from {first:.1f} to {end:.1f} MiB"
        before, rest = watched.growth(name, "handles")[0], watched.handles_at_rest[name]
        assert rest <= before + 2, f"{name} keeps {rest} handles, {before:.0f} before"
    for name in watched.samples.keys() - {"postgres"}:  # whose processes are the connections
        first, end = watched.growth(name, "processes")
        assert end <= first + 1, f"{name} has {end:.0f} processes, {first:.0f} before"


def _start_worker(system: TradingStack) -> subprocess.Popen[str]:
    settings = system.settings
    environment = os.environ | settings.environment() | {
        "PYTHONPATH": os.pathsep.join([str(PROJECT_DIR / "include"), str(PROJECT_DIR)]),
        "TRADEWIND_DATABASE_URL": settings.writer_database_url.get_secret_value(),
        "TRADEWIND_CACHE_URL": settings.cache_url.get_secret_value(),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.day_worker", str(BEFORE_BARS + BARS)],
        env=environment, cwd=PROJECT_DIR, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def _next_bar(worker: subprocess.Popen[str]) -> dict[str, Any]:
    """What the jobs say when a bar is over; their log lines come between."""
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.startswith('{"bar"'):
            found: dict[str, Any] = json.loads(line)
            return found
    raise AssertionError("the jobs ended before the day did: see above")


def _ask_the_status_app(system: TradingStack) -> None:
    """As often in a bar as its limit of requests lets: an open page asks 180 times in fifteen minutes."""
    token = system.settings.api_read_token.get_secret_value()
    with httpx.Client(
        base_url=f"http://127.0.0.1:{system.settings.status_port}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=20,
        trust_env=False,
    ) as client:
        for path in ("/api/health", "/api/system-status", "/api/positions", "/api/orders", "/api/decisions") * 20:
            try:
                answer = client.get(path)
            except httpx.TransportError:
                return
            if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                return  # its database is away, or the bar was over sooner than usual
            answer.raise_for_status()
