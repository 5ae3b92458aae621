"""The whole stack as it runs: where it listens, what its processes are told, that it heals, and that it goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import RunningSystem
from tradewind.settings import PROJECT_DIR, Settings
from tradewind.stack.environment import airflow_environment
from tradewind.stack.postgres import discard
from tradewind.stack.processes import accepts_connections, free_ports
from tradewind.stack.state import StackState, state_file

pytestmark = pytest.mark.e2e


def read_state(settings: Settings) -> StackState:
    state = StackState.load(state_file(settings.home_dir))
    assert state is not None
    return state


def leader_pid(settings: Settings, name: str) -> int:
    mark = next(process.mark for process in read_state(settings).processes if process.name == name)
    assert mark is not None
    return mark.pid


def family(settings: Settings) -> list[psutil.Process]:
    found = []
    for process in read_state(settings).processes:
        assert process.mark is not None
        parent = psutil.Process(process.mark.pid)
        found += [parent, *parent.children(recursive=True)]
    return found


def command_line(process: psutil.Process) -> str | None:
    """Its command line; None of one that has ended since it was listed, as the workers of a pool do."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return None


def test_everything_listens_on_this_machine_alone(system: RunningSystem) -> None:
    pids = {process.pid for process in family(system.settings)}
    listening = [
        connection for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.pid in pids
    ]  # fmt: skip
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    settings = system.settings
    wanted = {settings.exchange_port, settings.airflow_port, settings.status_port}
    assert {connection.laddr.port for connection in listening} == wanted


def test_every_dag_is_there_and_the_pools_are_ours(system: RunningSystem) -> None:
    wanted = {path.stem for path in (PROJECT_DIR / "dags").glob("*.py")}
    system.airflow.wait_for_dags(sorted(wanted))
    assert {dag["dag_id"] for dag in system.airflow.list_dags()} == wanted
    assert system.airflow.import_errors() == []
    pools = json.loads((PROJECT_DIR / "include/tradewind/orchestration/pools.json").read_text())
    assert {pool["name"]: pool["slots"] for pool in system.airflow.pools() if pool["name"] in pools} == {
        name: pool["slots"] for name, pool in pools.items()
    }


def test_tasks_are_told_no_secret_of_the_stack(system: RunningSystem) -> None:
    # Airflow writes its processes' titles over what /proc would show of their environment: this is what they are given.
    environment = airflow_environment(system.settings)
    assert "AIRFLOW_CONN_TRADEWIND_DB" in environment
    for secret in ("postgres_password", "airflow_password", "api_read_token", "api_control_token", "paper_api_secret"):
        value = getattr(system.settings, secret).get_secret_value()
        assert value
        assert not [name for name, given in environment.items() if value in given]
    assert not any(name.startswith(("PYTEST", "PIP_", "UV_")) for name in environment)


def test_a_killed_scheduler_comes_back_and_runs_dags(system: RunningSystem) -> None:
    before = psutil.Process(leader_pid(system.settings, "scheduler"))
    workers = before.children(recursive=True)
    assert workers
    before.kill()
    deadline = time.monotonic() + 60
    while leader_pid(system.settings, "scheduler") == before.pid:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]
    run = system.run("score_sentiment", timeout_s=180)
    assert run["state"] == "success"


@pytest.fixture
def command_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tradewind-e2e-", ignore_cleanup_errors=True) as directory:
        # Longer than a socket's name may be, and with spaces in it.
        home = Path(directory).joinpath(*["a directory whose name is rather long"] * 3) / "home of it"
        yield home
        discard(home / "postgres")


def test_up_killed_and_down_leave_nothing(command_home: Path) -> None:
    """The command itself: up detached, status, the supervisor killed, down."""
    ports = free_ports()
    environment = {
        **os.environ,
        **{f"TRADEWIND_{name.upper()}": str(port) for name, port in ports.items()},
        "TRADEWIND_HOME_DIR": str(command_home),
        "PYTHONPATH": os.pathsep.join([str(PROJECT_DIR / "include"), str(PROJECT_DIR)]),
    }

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tradewind.cli", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=280, check=False)

    try:
        up = command("up", "--detach")
        assert up.returncode == 0, up.stderr
        assert f"http://127.0.0.1:{ports['airflow_port']}" in up.stdout
        again = command("up", "--detach")
        assert again.returncode == 1
        assert "runs the stack" in again.stderr
        status = command("status", "--json")
        report = json.loads(status.stdout)
        assert report["healthy"], report
        assert status.returncode == 0
        # The password of PostgreSQL and all the others are in no command line.
        shown = command("status").stdout
        secrets = [path.read_text() for path in (command_home / "secrets").iterdir()]
        assert not [secret for secret in secrets if secret in shown or secret in status.stdout]
        pids = [service["pid"] for service in report["services"]]
        processes = [psutil.Process(pid) for pid in pids]
        processes += [child for process in processes for child in process.children(recursive=True)]
        lines = [line for process in processes if (line := command_line(process)) is not None]
        assert len(lines) >= len(pids)
        assert not [secret for secret in secrets for line in lines if secret in line]
        os.kill(report["supervisor"]["pid"], signal.SIGKILL)
    finally:
        down = command("down")
    assert down.returncode == 0, down.stderr
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert not any(accepts_connections(port) for port in ports.values())
    assert list((command_home / "run").iterdir()) == []
    assert command("down").stdout.splitlines()[-1] == "No stack was up."
