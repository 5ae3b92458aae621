"""What the services of a running stack hold: memory, file handles, and connections by role and by who holds them.

Memory is what a process wrote for itself (`Private_Dirty`), summed over what it forked: whether a library's pages count
as its own depends on what else runs on the machine.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import psycopg

from tests.support.unix_peers import clients_of
from tradewind.bench.trading_stack import TradingStack
from tradewind.stack import services

HOUR_BARS = 4
JOBS = "jobs"
# A pool of ours holds up to four and closes what it does not use, one a minute.
REST_S = 330.0
AIRFLOW_KEEPS = 2
Holder = tuple[str, str]  # a role of the database, and the service that is connected by it


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


def _sample(family: list[psutil.Process]) -> Sample:
    sample = Sample()
    for process in family:
        sample.add(process)
    return sample


def _written_mib(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (kib,) = re.findall(r"^Private_Dirty: +(\d+) kB$", rollup, re.MULTILINE)
    return int(kib) / 1024


@dataclass(frozen=True)
class Held:
    """Connections that one service has by one role of the database: before any kill, at most, and at rest."""

    role: str
    service: str
    before: int
    most: int
    rest: int

    @property
    def bound(self) -> int:
        """At rest no more than before; Airflow's own pools do not shrink, and keep what they once needed."""
        return self.before + (AIRFLOW_KEEPS if self.role == "airflow" else 0)


@dataclass
class Watched:
    """The day's samples by service, and those of the rest after it."""

    system: TradingStack
    worker: psutil.Process
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    connections: list[Counter[Holder]] = field(default_factory=list)
    resting: list[Counter[Holder]] = field(default_factory=list)
    handles_at_rest: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        families = self.families()
        self.connections.append(_connections(self.system, families))
        for name, family in families.items():
            self.samples.setdefault(name, []).append(_sample(family))

    def families(self) -> dict[str, list[psutil.Process]]:
        """Each service's process with what it forked; a service that was killed and has not returned is left out."""
        state = self.system.stack.state
        assert state is not None
        leaders = {process.name: process.mark.pid for process in state.processes if process.mark is not None}
        families = {}
        for name, pid in {**leaders, JOBS: self.worker.pid}.items():
            with suppress(psutil.NoSuchProcess):
                leader = psutil.Process(pid)
                families[name] = [leader, *leader.children(recursive=True)]
        return families

    def growth(self, name: str, what: str) -> tuple[float, float]:
        """The median of the second hour, and that of the last."""
        values = [getattr(sample, what) for sample in self.samples[name]]
        return median(values[HOUR_BARS : 2 * HOUR_BARS]), median(values[-HOUR_BARS:])

    def __str__(self) -> str:
        lines = [f"{'':16}{'MiB in 2nd hour':>20}{'last hour':>12}{'grown':>9}{'handles, at rest':>18}{'threads':>12}"]
        for name in sorted(self.samples):
            first, last = self.growth(name, "written_mib")
            kept = f"{self.growth(name, 'handles')[0]:.0f} → {self.handles_at_rest.get(name, 0)}"
            threads = "{:.0f} → {:.0f}".format(*self.growth(name, "threads"))
            lines.append(f"{name:16}{first:>20.1f}{last:>12.1f}{last / first - 1:>9.1%}{kept:>18}{threads:>12}")
        return "\n".join([*lines, self._connections_in_words()])

    def rest(self) -> float:
        """Look until each pool has closed what a restart had made it open, a minute each; returns the seconds."""
        started_s = time.monotonic()
        while time.monotonic() - started_s < REST_S:
            time.sleep(5)
            families = self.families()
            if counts := _connections(self.system, families):
                self.resting.append(counts)
            if self.resting and all(held.rest <= held.bound for held in self.connections_held()):
                break
        assert self.resting, "the count saw nobody at rest: does PostgreSQL answer?"
        self.handles_at_rest = {name: _sample(family).handles for name, family in families.items()}
        return time.monotonic() - started_s

    def connections_held(self) -> list[Held]:
        """By holder. At rest the least counts: tasks still come and go, what was leaked is there at every look."""
        holders = {holder for counts in [*self.connections, *self.resting] for holder in counts}
        before = self.connections[: HOUR_BARS + 1]  # the first kill comes after it
        return [
            Held(
                *holder,
                before=max(counts[holder] for counts in before),
                most=max(counts[holder] for counts in self.connections),
                rest=min(counts[holder] for counts in self.resting),
            )
            for holder in sorted(holders)
        ]

    def _connections_in_words(self) -> str:
        lines = [f"{'connections':32}{'before a kill':>16}{'at most':>10}{'at rest':>10}"]
        for held in self.connections_held():
            lines.append(f"{f'{held.role} of {held.service}':32}{held.before:>16}{held.most:>10}{held.rest:>10}")
        return "\n".join(lines)


def _superuser(system: TradingStack) -> psycopg.Connection:
    """Everybody else sees of another role's sessions little more than that they exist."""
    return psycopg.connect(services.embedded_postgres(system.settings).url())


def _connections(system: TradingStack, families: dict[str, list[psutil.Process]]) -> Counter[Holder]:
    """Open connections by role and holder, the looking superuser's left out; none while the server is away."""
    try:
        with _superuser(system) as connection:
            rows = connection.execute(
                "SELECT usename, pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
                "AND usename <> current_user"
            ).fetchall()
    except psycopg.OperationalError:
        return Counter()
    names = {process.pid: name for name, family in families.items() for process in family} | {os.getpid(): "test"}
    clients = clients_of([pid for _, pid in rows], names)
    return Counter((str(role), names[clients[pid]] if pid in clients else "somebody") for role, pid in rows)


def left_in_the_database(system: TradingStack) -> tuple[int, int]:
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
