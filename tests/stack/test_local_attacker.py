"""A local user without any secret, before the stack is up, while it is, and after: gets nothing, and stops nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from tests.support.strangers import ROOT, STRANGER, attack, attacking
from tradewind import stack
from tradewind.addresses import cache_socket, socket_dir
from tradewind.errors import PortTaken, ServiceNotReady
from tradewind.settings import Settings
from tradewind.stack import postgres_files, services
from tradewind.stack.backup import backup
from tradewind.stack.on_record import on_record
from tradewind.stack.postgres import discard
from tradewind.stack.processes import ProcessMark, end_sessions, free_port, free_ports, spawn
from tradewind.stack.state import StackState, state_file
from tradewind.stack.supervisor import Service, SilentReporter, Supervisor

PARTS = {"postgres", "valkey", "exchange"}


@pytest.fixture
def settings(server_dir: Path, tmp_path: Path) -> Iterator[Settings]:
    """Of a home in a directory that everybody may pass through."""
    home = server_dir / tmp_path.name
    yield stack.with_secrets(home_dir=home, account_id="rig", **free_ports())
    discard(home / "postgres")


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that is none of the stack's, in a session of its own."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def sockets(settings: Settings) -> list[Path]:
    """Where they lie, or would: a stranger is taken to know it."""
    postgres, valkey = (socket_dir(settings.home_dir / name) for name in services.EMBEDDED)
    return [postgres / ".s.PGSQL.5432", cache_socket(valkey)]


def secrets_of(settings: Settings) -> list[str]:
    return [path.read_text() for path in settings.secrets_dir.iterdir()]


def assert_stranger_gets_nothing(settings: Settings) -> None:
    """Neither a file, nor a socket, nor a place where one of ours will be."""
    if not ROOT:
        # No other user can be played: what is left to see is that the places are closed to all others.
        for place in (settings.home_dir, *(path.parent for path in sockets(settings) if path.parent.exists())):
            assert place.stat().st_mode & 0o077 == 0
        return
    seen = attack("look", settings.home_dir, "/run/tradewind", postgres_files.SHARED_ROOT)
    assert not [path for path in seen if not path.startswith("/proc/")]
    assert not [path for path, content in seen.items() for secret in secrets_of(settings) if secret in content]
    assert attack("listen", *sockets(settings), settings.home_dir / "run" / "stack.json") == []
    assert attack("half-open", 200, *sockets(settings)) == 0


@pytest.mark.timeout(300)
def test_a_stranger_gets_nothing_and_stops_nothing(settings: Settings, tmp_path: Path) -> None:
    assert_stranger_gets_nothing(settings)
    with stack.running_stack(settings, parts=PARTS) as running:
        assert_stranger_gets_nothing(settings)
        state = running.state
        assert state is not None
        pids = [mark.pid for process in state.processes if (mark := process.mark)]
        assert len(pids) == len(PARTS)
        if ROOT:
            assert attack("end", *pids, os.getpid()) == []
        with ExitStack() as held:
            if ROOT:
                held.enter_context(attacking("half-open", 125, *sockets(settings), settings.exchange_port))
            with psycopg.connect(settings.writer_database_url.get_secret_value()) as connection:
                connection.execute("SELECT tighten_latch('rig', 'halted', 'limit', 'watch', now())")
            with redis.Redis.from_url(settings.cache_url.get_secret_value()) as cache:
                assert cache.ping()
            backup(settings, tmp_path / "today.tar")
        after = running.state
        assert after is not None
        assert [process.restarts for process in after.processes] == [0] * len(PARTS)
    assert_stranger_gets_nothing(settings)
    ledger = on_record(settings)
    assert ledger is not None
    assert ledger["latch"]["mode"] == "halted"


def test_who_takes_a_port_before_the_start_is_told_nothing(settings: Settings) -> None:
    if not ROOT:
        assert os.geteuid() != 0
        return
    with attacking("http", settings.exchange_port) as (_, heard), pytest.raises(PortTaken):
        stack.Stack(settings, parts=PARTS).start()
    assert heard == [[]]


def test_who_takes_a_port_during_the_start_is_not_taken_for_ours(tmp_path: Path) -> None:
    """A race that anybody can win: the port is free when it is looked at, and another's when our child wants it."""
    if not ROOT:
        assert os.geteuid() != 0
        return
    port, log = free_port(), tmp_path / "slow.log"
    with ExitStack() as held:

        def launch() -> Any:
            held.enter_context(attacking("http", port))
            return spawn([sys.executable, "-c", "import time; time.sleep(600)"], log=log, env=dict(os.environ))

        slow = Service("slow", (), launch, lambda: True, log, port=port, start_timeout_s=3.0)
        with pytest.raises(ServiceNotReady, match="slow did not answer"):
            Supervisor([slow], tmp_path / "stack.json", SilentReporter(), {}).start()


@pytest.mark.parametrize(
    "written", ["{pid}\n/data\n{started}\n5432\n", "{pid}\n", "x\n\ny\n", "", "{pid}\n/data\nnever\n", "-1\n/\n0\n"]
)
def test_the_databases_user_cannot_choose_what_is_ended(
    settings: Settings, victim: subprocess.Popen[bytes], written: str
) -> None:
    """`postmaster.pid` is his: neither what it names is ended, nor does what it holds stop a command."""
    server = services.embedded_postgres(settings)
    server.start()
    server.stop()
    path = server.data_dir / "postmaster.pid"
    path.write_text(written.format(pid=victim.pid, started=int(psutil.Process(victim.pid).create_time())))
    if ROOT:
        os.chown(path, server.data_dir.stat().st_uid, -1)
    assert server.mark is None
    assert not stack.down(settings)
    server.stop()
    assert victim.poll() is None


def test_a_record_that_names_another_process_ends_none(settings: Settings, victim: subprocess.Popen[bytes]) -> None:
    """As after a restart of the machine, or once a number was given out again: time, user and program are compared."""
    true = ProcessMark.of(victim.pid)
    others = [
        ProcessMark(true.pid, true.started_s - 3600, true.uid, true.program),
        ProcessMark(true.pid, true.started_s - 3600),
        ProcessMark(true.pid, true.started_s, STRANGER, true.program),
        ProcessMark(true.pid, true.started_s, true.uid, "/usr/lib/postgresql/bin/postgres"),
        ProcessMark(true.pid, psutil.boot_time() - 3600, true.uid, true.program),
    ]
    assert true.alive()
    assert not any(mark.alive() for mark in others)
    # What our own would end is seen by a session of our own, whose leader has ended.
    end_sessions([others[0], others[1], others[4]], grace_s=0.0)
    assert victim.poll() is None
    path = state_file(settings.home_dir)
    path.parent.mkdir(exist_ok=True)
    StackState(ProcessMark(os.getpid(), 0.0), "ready", leaders=others[:2]).save(path)
    assert stack.down(settings)
    assert victim.poll() is None


def test_a_process_that_is_just_ending_still_lives(
    victim: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel forgets its program before it lets go of the process, whose exit status is still to come."""
    mark = ProcessMark.of(victim.pid)
    assert mark.program
    monkeypatch.setattr(psutil.Process, "exe", lambda _: "")
    assert mark.alive()
    victim.kill()
    victim.wait()
    assert not mark.alive()


def test_descendants_of_a_dead_leader_are_still_found(tmp_path: Path) -> None:
    script = "import os, time\nif os.fork() == 0: time.sleep(600)\nprint('forked', flush=True); time.sleep(600)"
    log = tmp_path / "log"
    leader = spawn([sys.executable, "-c", script], log=log, env=dict(os.environ))
    mark = ProcessMark.of(leader.pid)
    deadline = time.monotonic() + 60
    while "forked" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    orphans = psutil.Process(leader.pid).children()
    os.kill(leader.pid, signal.SIGKILL)
    leader.wait()
    assert [found.pid for found in mark.session()] == [orphan.pid for orphan in orphans]
    end_sessions([mark], grace_s=0.0)
    assert not any(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE for orphan in orphans)


def test_a_state_file_of_the_version_before_is_still_read(tmp_path: Path) -> None:
    mark = {"pid": os.getpid(), "started_s": psutil.Process().create_time()}
    content = {"supervisor": mark, "state": "ready", "reloads": 0, "processes": [], "leaders": [mark], "urls": {}}
    (tmp_path / "stack.json").write_text(json.dumps(content))
    state = StackState.load(tmp_path / "stack.json")
    assert state is not None
    assert state.supervisor.alive()
    assert state.leaders == [state.supervisor]
