"""Real servers for the tests: one PostgreSQL and one Valkey a session, a fresh database a test."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
import redis
from psycopg import sql

from tradewind.adapters.database import Database
from tradewind.adapters.migrations import migrate
from tradewind.stack import postgres_files
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.processes import ProcessMark, end_sessions
from tradewind.stack.valkey import EmbeddedValkey

_PREFIX = "tradewind-tests-"
_numbers = itertools.count()
_LONGEST_FIRST = ("e2e", "parity", "chaos", "paper", "jobs", "stack")
# Two busy cores make any time per example a lottery; the suite's own time-out bounds a test.
hypothesis.settings.register_profile("tradewind", deadline=None)
hypothesis.settings.load_profile("tradewind")
# What a developer's shell or .env says must not decide how a test ends.
for _name in [name for name in os.environ if name.startswith(("TRADEWIND_", "AIRFLOW"))]:
    del os.environ[_name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", default=0.0, type=float, metavar="MINUTES", help="draw faults for so long in tests/chaos"
    )
    parser.addoption("--faults", default=0, type=int, metavar="NUMBER", help="draw so many faults in tests/chaos")
    parser.addoption("--chaos-seed", default=0, type=int, metavar="SEED", help="draw other faults in tests/chaos")
    parser.addoption("--day", action="store_true", help="live through a day in tests/e2e/test_day.py")
    parser.addoption(
        "--scheduled-bars", default=0, type=int, metavar="BARS",
        help="live through so many bars by Airflow's scheduler in tests/e2e/test_live_against_replay.py",
    )  # fmt: skip
    parser.addoption("--all-seeds", action="store_true", help="every seed of tests/jobs/test_shuffled_market.py")


# Before xdist's own, which reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For a run in several processes: what shares servers stays together, and what takes longest comes first."""
    for item in items:
        directory = item.path.parent.name
        # One booted stack serves every file of e2e.
        item.add_marker(pytest.mark.xdist_group("e2e" if directory == "e2e" else item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: _LONGEST_FIRST.index(name) if (name := item.path.parent.name) in _LONGEST_FIRST else 9)


def _remove_left_over_servers() -> None:
    """End servers of test runs that were killed: their owner's process is gone, their own is known by id and time."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if directory.lstat().st_uid != os.geteuid():
                continue  # another user must not choose what we end
            pid, started = (directory / "owner").read_text().split()
            if ProcessMark(int(pid), float(started)).alive():
                continue
            leaders = []
            for line in (directory / "servers").read_text().splitlines():
                server_pid, server_started = line.split()
                leaders.append(ProcessMark(int(server_pid), float(server_started)))
        except (FileNotFoundError, PermissionError, ValueError):
            continue
        end_sessions(leaders, first=signal.SIGINT, grace_s=10)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    """A directory for the session's servers that an unprivileged user can reach, unlike pytest's own."""
    _remove_left_over_servers()
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    directory.chmod(0o711)
    owner = ProcessMark.of(os.getpid())
    (directory / "owner").write_text(f"{owner.pid} {owner.started_s}")
    (directory / "servers").touch()
    # As root, what a home cannot hold lies elsewhere: here it goes with the session.
    postgres_files.SHARED_ROOT = directory / "shared"
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def _record(directory: Path, pid: int) -> None:
    mark = ProcessMark.of(pid)
    with (directory / "servers").open("a") as servers:
        servers.write(f"{mark.pid} {mark.started_s}\n")


@pytest.fixture(scope="session")
def postgres_server(server_dir: Path) -> Iterator[EmbeddedPostgres]:
    """The session's PostgreSQL, without fsync."""
    server = EmbeddedPostgres(server_dir / "postgres", password=secrets.token_hex(8), durable=False)
    process = server.launch()
    _record(server_dir, process.pid)
    server.wait()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey_server(server_dir: Path) -> Iterator[EmbeddedValkey]:
    """The session's Valkey."""
    server = EmbeddedValkey(server_dir / "valkey", password=secrets.token_hex(8))
    process = server.launch()
    _record(server_dir, process.pid)
    server.wait()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _template(postgres_server: EmbeddedPostgres) -> str:
    """The name of a database with our whole schema and no identity; cloned, never used."""
    _create(postgres_server, "tradewind_template")
    migrate(postgres_server.url("tradewind_template"))
    return "tradewind_template"


def _create(server: EmbeddedPostgres, name: str, template: str = "template0") -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )


def _drop(server: EmbeddedPostgres, name: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_url(postgres_server: EmbeddedPostgres, _template: str) -> Iterator[str]:
    """A fresh database with our schema, dropped after the test."""
    name = f"test_{next(_numbers)}"
    _create(postgres_server, name, _template)
    yield postgres_server.url(name)
    _drop(postgres_server, name)


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    """That database through a pool, as its owner."""
    database = Database(postgres_url)
    yield database
    database.close()


@pytest.fixture
def empty_postgres_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A fresh database without any table, dropped after the test."""
    name = f"empty_{next(_numbers)}"
    _create(postgres_server, name)
    yield postgres_server.url(name)
    _drop(postgres_server, name)


@pytest.fixture
def valkey_url(valkey_server: EmbeddedValkey) -> Iterator[str]:
    """The session's Valkey, flushed before and after."""
    client = redis.Redis.from_url(valkey_server.url())
    client.flushall()
    yield valkey_server.url()
    client.flushall()
    client.close()
