"""A day of the market in minutes on the embedded stack, PostgreSQL killed ten times in it: nothing lost, nothing left.

    ./tradewind test tests/e2e/test_day.py --day

One process lives through 96 cycles and 1,440 position checks by the jobs that the tasks call, over HTTP on the stepped
exchange; beside it the whole stack runs by the wall's clock: its risk watch, its minutely position checks, its status
app. Memory is what a process wrote for itself (`Private_Dirty`), summed over what it forked: whether a library's pages
count as its own depends on what else runs on the machine.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tests.support.invariants import judge
from tradewind.bench.rows import BenchOptions
from tradewind.bench.trading_stack import TradingStack, trading_stack
from tradewind.settings import PROJECT_DIR
from tradewind.stack import services

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2 * 3600)]

# Lived through before the day: the ledger is empty at first, and answers of the status app grow up to a hundred rows.
BEFORE_BARS = 24
BARS = 96
HOUR_BARS = 4
KILLS = 10
GROWTH_BOUND = 0.05
JOBS = "jobs"
# What the day's length is felt by. Airflow's own processes live by the wall, a few minutes of it: shown, not judged.
JUDGED = (JOBS, "exchange", "status", "valkey")


@dataclass
class Sample:
    """What one service's processes hold at one moment."""

    written_mib: float = 0.0
    handles: int = 0
    threads: int = 0
    processes: int = 0

    def add(self, process: psutil.Process) -> None:
        try:
            with process.oneshot():
                self.written_mib += _written_mib(process.pid)
                self.handles += process.num_fds()
                self.threads += process.num_threads()
                self.processes += 1
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            return


def _written_mib(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (kib,) = re.findall(r"^Private_Dirty: +(\d+) kB$", rollup, re.MULTILINE)
    return int(kib) / 1024


@dataclass
class Watched:
    """The day's samples by service."""

    system: TradingStack
    worker: psutil.Process
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    connections: list[Counter[str]] = field(default_factory=list)  # by role

    def look(self) -> None:
        self.connections.append(_connections(self.system))
        state = self.system.stack.state
        assert state is not None
        leaders = {process.name: process.mark.pid for process in state.processes if process.mark is not None}
        for name, pid in {**leaders, JOBS: self.worker.pid}.items():
            sample = Sample()
            try:
                leader = psutil.Process(pid)
                family = [leader, *leader.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue  # killed, and not started again yet
            for process in family:
                sample.add(process)
            self.samples.setdefault(name, []).append(sample)

    def growth(self, name: str, what: str) -> tuple[float, float]:
        """The median of the second hour, and that of the last."""
        values = [getattr(sample, what) for sample in self.samples[name]]
        return median(values[HOUR_BARS : 2 * HOUR_BARS]), median(values[-HOUR_BARS:])

    def __str__(self) -> str:
        lines = [f"{'':16}{'MiB in 2nd hour':>20}{'last hour':>12}{'grown':>9}{'handles':>16}{'threads':>12}"]
        for name in sorted(self.samples):
            first, last = self.growth(name, "written_mib")
            handles, threads = (self.growth(name, what) for what in ("handles", "threads"))
            lines.append(
                f"{name:16}{first:>20.1f}{last:>12.1f}{last / first - 1:>9.1%}"
                f"{f'{handles[0]:.0f} → {handles[1]:.0f}':>16}{f'{threads[0]:.0f} → {threads[1]:.0f}':>12}"
            )
        held = [f"{role} {first} → {last:g}" for role, (first, last) in sorted(self.connections_held().items())]
        return "\n".join([*lines, f"connections by role: {', '.join(held)}"])

    def connections_held(self) -> dict[str, tuple[int, float]]:
        """By role: the most that were open in the first two hours, and the median of the last."""
        roles = {role for counts in self.connections for role in counts}
        return {
            role: (
                max(counts[role] for counts in self.connections[: 2 * HOUR_BARS]),
                median(counts[role] for counts in self.connections[-HOUR_BARS:]),
            )
            for role in roles
        }


def test_a_day_leaves_nothing_behind(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    if not request.config.getoption("--day"):
        pytest.skip("takes ten minutes: --day")
    with trading_stack(BenchOptions(quick=True)) as system:
        since = system.now()
        worker = _start_worker(system)
        watched = Watched(system, psutil.Process(worker.pid))
        killed: list[float] = []
        last: dict[str, Any] = {}
        assert worker.stdin is not None
        try:
            for number in range(-BEFORE_BARS, BARS):
                last = _next_bar(worker)
                if number >= 0:
                    watched.look()
                _ask_the_status_app(system)
                if number >= HOUR_BARS and (number - HOUR_BARS) % 9 == 0 and len(killed) < KILLS:
                    killed.append(time.monotonic())
                    system.kill("postgres")
                if number < BARS - 1:
                    worker.stdin.write("\n")
                    worker.stdin.flush()
            found = judge(system.wiring, since)
            locks, idle = _left_in_the_database(system)
            worker.stdin.write("\n")
            worker.stdin.close()
            assert worker.wait(60) == 0
        finally:
            worker.kill()
        # The bar before the day was nobody's to decide.
        states = "SELECT state, count(*) AS n FROM cycles WHERE bar >= %(since)s GROUP BY 1"
        rows = system.wiring.database.rows(states, {"since": since})
        with capsys.disabled():
            print(f"\n\n{watched}\n\n{last}\n{len(killed)} kills of PostgreSQL\ncycles: {rows}")
            print(f"locks left {locks}, idle in transaction {idle}\n{json.dumps(found)}")
    assert len(killed) == KILLS
    assert last["checks"] == (BEFORE_BARS + BARS) * 15
    assert sum(row["n"] for row in rows) == BEFORE_BARS + BARS
    assert {row["state"] for row in rows} == {"done"}
    assert {name: words for name, words in found["broken"].items() if words} == {}
    assert found["counted"]["fills"] > 0
    assert (locks, idle) == (0, 0)
    assert all(watched.connections[-HOUR_BARS:]), "somebody is always connected: the count saw nobody"
    for role, (first, end) in watched.connections_held().items():
        # Tasks come and go; what each of ten restarts left behind would be ten.
        assert end <= first + 2, f"{role} holds {end:g} connections, {first} at most in the first two hours"
    for name in JUDGED:
        first, end = watched.growth(name, "written_mib")
        assert end <= first * (1 + GROWTH_BOUND), f"{name} grew from {first:.1f} to {end:.1f} MiB"
        first, end = watched.growth(name, "handles")
        assert end <= first + 2, f"{name} holds {end:.0f} handles, {first:.0f} before"
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


def _superuser(system: TradingStack) -> psycopg.Connection:
    """Everybody else sees of another role's sessions little more than that they exist."""
    return psycopg.connect(services.embedded_postgres(system.settings).url())


def _connections(system: TradingStack) -> Counter[str]:
    """Open connections by role, the looking superuser's left out; none while the server is away."""
    try:
        with _superuser(system) as connection:
            rows = connection.execute(
                "SELECT usename, count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
                "AND usename <> current_user GROUP BY 1"
            ).fetchall()
    except psycopg.OperationalError:
        return Counter()
    return Counter({str(role): int(count) for role, count in rows})


def _left_in_the_database(system: TradingStack) -> tuple[int, int]:
    """Advisory locks of the waiting jobs, and transactions that stand open for longer than a task takes."""
    database = psycopg.conninfo.conninfo_to_dict(system.settings.database_url.get_secret_value())["dbname"]
    with _superuser(system) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE locktype = 'advisory' "
            "AND a.datname = %(name)s AND a.state_change < now() - interval '20 s'), "
            "(SELECT count(*) FROM pg_stat_activity WHERE datname = %(name)s AND state LIKE 'idle in transaction%%' "
            "AND state_change < now() - interval '20 s')",
            {"name": database},
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
