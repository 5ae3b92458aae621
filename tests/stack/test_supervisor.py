"""The supervisor over small processes of the test's own: order, restarts, failures, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tradewind.errors import AlreadyRunning, PortTaken, StackFailed
from tradewind.stack import supervisor as supervisor_module
from tradewind.stack.processes import LOCALHOST, accepts_connections, free_port, spawn
from tradewind.stack.state import StackState, home_lock, state_file
from tradewind.stack.supervisor import Service, Step, Supervisor

LISTEN = """
import os, signal, socket, sys, time
if len(sys.argv) > 2:
    for _ in range(int(sys.argv[2])):
        if os.fork() == 0:  # a worker that ignores what ends its parent
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""


class Recorder:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.details: list[str] = []

    def changed(self, name: str, state: str, detail: str = "") -> None:
        self.changes.append((name, state))
        self.details.append(detail)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_FIRST_BACKOFF_S", 0.1)
    monkeypatch.setattr(supervisor_module, "_PROBE_EVERY_S", 0.2)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """Builds supervisors that are stopped after the test."""
    made: list[Supervisor] = []

    def build(*nodes: Service | Step, reporter: Recorder | None = None) -> Supervisor:
        made.append(Supervisor(nodes, state_file(tmp_path), reporter or Recorder(), {}))
        return made[-1]

    yield build
    for supervisor in made:
        supervisor.stop()


def listener(tmp_path: Path, name: str, *needs: str, workers: int = 0, port: int | None = None) -> Service:
    port = port or free_port()
    log = tmp_path / f"{name}.log"
    argv = [sys.executable, "-c", LISTEN, str(port), *([str(workers)] if workers else [])]
    return Service(
        name=name,
        needs=needs,
        launch=lambda: spawn(argv, log=log, env=dict(os.environ)),
        ready=lambda: accepts_connections(port),
        log=log,
        port=port,
        port_setting=f"TRADEWIND_{name.upper()}_PORT",
        grace_s=2.0,
        start_timeout_s=20.0,
    )


def crasher(tmp_path: Path, name: str, *needs: str) -> Service:
    log = tmp_path / f"{name}.log"
    argv = [sys.executable, "-c", "import sys; sys.exit('no licence to run')"]
    return Service(name, needs, lambda: spawn(argv, log=log, env=dict(os.environ)), lambda: False, log)


def pids(tmp_path: Path) -> dict[str, int]:
    state = StackState.load(state_file(tmp_path))
    assert state is not None
    return {process.name: process.mark.pid for process in state.processes if process.mark}


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_each_waits_for_what_it_needs_and_all_end_in_reverse(tmp_path: Path, make: Callable[..., Supervisor]) -> None:
    recorder = Recorder()
    base = listener(tmp_path, "base")
    seen: list[bool] = []
    prepare = Step("prepare", ("base",), lambda: seen.append(base.ready()))
    supervisor = make(listener(tmp_path, "top", "prepare"), prepare, base, reporter=recorder)
    supervisor.start()
    assert seen == [True]
    ready = [name for name, state in recorder.changes if state == "ready"]
    assert ready == ["base", "prepare", "top"]
    marks = pids(tmp_path)
    supervisor.stop()
    stopped = [name for name, state in recorder.changes if state == "stopped"]
    assert stopped == ["top", "base"]
    assert not any(psutil.pid_exists(pid) for pid in marks.values())
    assert not state_file(tmp_path).exists()


def test_forked_workers_that_ignore_sigterm_end_too(tmp_path: Path, make: Callable[..., Supervisor]) -> None:
    supervisor = make(listener(tmp_path, "forker", workers=3))
    supervisor.start()
    workers = psutil.Process(pids(tmp_path)["forker"]).children(recursive=True)
    assert len(workers) == 3
    supervisor.stop()
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


def test_a_killed_service_starts_again_without_its_orphans(tmp_path: Path, make: Callable[..., Supervisor]) -> None:
    service = listener(tmp_path, "forker", workers=2)
    supervisor = make(service)
    supervisor.start()
    before = pids(tmp_path)["forker"]
    orphans = psutil.Process(before).children()
    os.kill(before, signal.SIGKILL)
    until(lambda: pids(tmp_path).get("forker", before) != before and service.ready())
    assert not any(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE for orphan in orphans)
    state = StackState.load(state_file(tmp_path))
    assert state is not None
    assert state.processes[0].restarts == 1


@pytest.mark.parametrize(("well_after_s", "waits"), [(0.0, ["0", "0", "0"]), (60.0, ["0", "1", "2"])])
def test_what_was_well_before_it_died_starts_again_at_once(
    tmp_path: Path,
    make: Callable[..., Supervisor],
    monkeypatch: pytest.MonkeyPatch,
    well_after_s: float,
    waits: list[str],
) -> None:
    """Each wait is longer only for what died before it had answered for a while."""
    monkeypatch.setattr(supervisor_module, "_WELL_AFTER_S", well_after_s)
    monkeypatch.setattr(supervisor_module, "_FIRST_BACKOFF_S", 0.4)
    monkeypatch.setattr(supervisor_module, "_PROBE_SOON_S", 0.05)
    recorder = Recorder()
    make(listener(tmp_path, "killed"), reporter=recorder).start()
    for restarts in (1, 2, 3):
        os.kill(pids(tmp_path)["killed"], signal.SIGKILL)
        until(lambda restarts=restarts: _is_ready_again(tmp_path, restarts))
    said = [detail for detail in recorder.details if "starts again in" in detail]
    assert [detail.split("starts again in ")[1].split(" s")[0] for detail in said] == waits


def _is_ready_again(tmp_path: Path, restarts: int) -> bool:
    state = StackState.load(state_file(tmp_path))
    assert state is not None
    (process,) = state.processes
    return process.restarts == restarts and process.state == "ready"


def test_a_service_that_hangs_is_restarted(
    tmp_path: Path, make: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_HANGS_AFTER_S", 1.0)
    supervisor = make(listener(tmp_path, "sleeper"))
    supervisor.start()
    before = pids(tmp_path)["sleeper"]
    os.kill(before, signal.SIGSTOP)
    # A stopped process still has its connections accepted by the kernel until the backlog is full.
    held = []
    port = next(process.port for process in StackState.load(state_file(tmp_path)).processes)  # type: ignore[union-attr]
    assert port is not None
    for _ in range(300):
        try:
            held.append(socket.create_connection((LOCALHOST, port), timeout=0.2))
        except OSError:
            break
    until(lambda: pids(tmp_path).get("sleeper", before) != before, timeout_s=40)
    for connection in held:
        connection.close()


def test_one_that_cannot_start_ends_all_and_its_last_words_are_told(
    tmp_path: Path, make: Callable[..., Supervisor]
) -> None:
    base = listener(tmp_path, "base")
    (tmp_path / "crasher.log").write_text("error: of an earlier life\n")
    with pytest.raises(StackFailed, match="no licence to run"):
        make(base, crasher(tmp_path, "crasher", "base")).start()
    assert not base.ready()
    assert not state_file(tmp_path).exists()


def test_a_failing_step_ends_all(tmp_path: Path, make: Callable[..., Supervisor]) -> None:
    def fail() -> None:
        raise StackFailed("no such database")

    base = listener(tmp_path, "base")
    with pytest.raises(StackFailed, match="no such database"):
        make(base, Step("prepare", ("base",), fail), listener(tmp_path, "top", "prepare")).start()
    assert not base.ready()


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path, make: Callable[..., Supervisor]) -> None:
    with socket.create_server((LOCALHOST, 0)) as other:
        port = other.getsockname()[1]
        recorder = Recorder()
        supervisor = make(listener(tmp_path, "a"), listener(tmp_path, "b", port=port), reporter=recorder)
        with pytest.raises(PortTaken, match=f"{port}.*TRADEWIND_B_PORT"):
            supervisor.start()
        assert recorder.changes == []


def test_reload_restarts_our_own_services_alone(tmp_path: Path, make: Callable[..., Supervisor]) -> None:
    from dataclasses import replace

    supervisor = make(listener(tmp_path, "theirs"), replace(listener(tmp_path, "ours"), is_ours=True))
    supervisor.start()
    before = pids(tmp_path)
    supervisor.reload()
    after = pids(tmp_path)
    assert after["theirs"] == before["theirs"]
    assert after["ours"] != before["ours"]


def test_one_supervisor_a_home(tmp_path: Path) -> None:
    with home_lock(tmp_path), pytest.raises(AlreadyRunning, match=str(os.getpid())), home_lock(tmp_path):
        pass
    with home_lock(tmp_path):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_what_a_killed_supervisor_left_is_ended_by_the_next_command(server_dir: Path) -> None:
    """The real thing: a process holding PostgreSQL and Valkey is killed; `down` finds both by id and start time."""
    from tradewind import stack
    from tradewind.stack import services
    from tradewind.stack.postgres import discard
    from tradewind.stack.processes import free_ports

    home = server_dir / "killed"
    settings = stack.with_secrets(home_dir=home, **free_ports())
    script = textwrap.dedent("""
        from tradewind.settings import load_settings
        from tradewind.stack import running_stack
        import time
        with running_stack(load_settings(), parts={"postgres", "valkey"}):
            print("ready", flush=True)
            time.sleep(600)
    """)
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = spawn([sys.executable, "-c", script], log=home / "holder.log", env=environment)
    until(lambda: "ready" in (home / "holder.log").read_text(), timeout_s=60)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    servers = [services.embedded_postgres(settings), services.embedded_valkey(settings)]
    assert all(server.ready() for server in servers)
    assert stack.down(settings)
    assert not any(server.ready() for server in servers)
    assert not (home / "postgres" / "postmaster.pid").exists()
    assert list((home / "run").iterdir()) == []
    assert not stack.down(settings)
    discard(home / "postgres")


def test_sigterm_ends_the_holder_with_all_it_holds(server_dir: Path) -> None:
    from tradewind import stack
    from tradewind.stack import services
    from tradewind.stack.postgres import discard
    from tradewind.stack.processes import free_ports

    home = server_dir / "terminated"
    settings = stack.with_secrets(home_dir=home, **free_ports())
    script = textwrap.dedent("""
        from tradewind.settings import load_settings
        from tradewind.stack import running_stack
        import time
        with running_stack(load_settings(), parts={"postgres", "valkey"}):
            print("ready", flush=True)
            time.sleep(600)
    """)
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = spawn([sys.executable, "-c", script], log=home / "holder.log", env=environment)
    until(lambda: "ready" in (home / "holder.log").read_text(), timeout_s=60)
    holder.terminate()
    assert holder.wait(timeout=60) == 128 + signal.SIGTERM
    assert not services.embedded_postgres(settings).ready()
    assert not services.embedded_valkey(settings).ready()
    assert list((home / "run").iterdir()) == []
    discard(home / "postgres")
