"""Airflow's processes forked from one parent: real forks, of a small `airflow` that stands before the real one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tradewind.errors import StackFailed
from tradewind.stack import airflow_parent
from tradewind.stack.airflow_parent import UNKNOWN_STATUS, AirflowParent
from tradewind.stack.processes import end_sessions

pytestmark = pytest.mark.skipif(not airflow_parent.CAN_FORK, reason="processes are forked on Linux alone")
# Says where it stands, then ends with the wanted status, or sleeps.
_COMMAND = """
import json, os, sys, time
def main():
    ours = sorted(name for name in sys.modules if name.startswith("tradewind"))
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    fds = [os.readlink(path) for path in paths if os.path.islink(path)]
    print(json.dumps({"argv": sys.argv, "sid": os.getsid(0), "pid": os.getpid(), "cwd": os.getcwd(),
                      "stdin": os.readlink("/proc/self/fd/0"), "pipes": sum("pipe" in fd for fd in fds), "ours": ours}),
          flush=True)
    if sys.argv[1] == "sleep":
        time.sleep(600)
    sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowParent]:
    fakes = tmp_path / "modules"
    for name in ["airflow.__main__", "setproctitle", *airflow_parent._SHARED_MODULES]:
        path = fakes.joinpath(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in path.parents:
            if package == fakes:
                break
            package.mkdir(exist_ok=True)
            (package / "__init__.py").touch()
        if not path.is_dir():
            path.with_suffix(".py").touch()
    (fakes / "airflow/__main__.py").write_text(_COMMAND)
    (fakes / "setproctitle.py").write_text("def setproctitle(title): pass\n")
    include = str(Path(airflow_parent.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(fakes), include])}
    parent = AirflowParent(environment, tmp_path / "parent.log")
    yield parent
    parent.close()


def said(log: Path) -> dict[str, object]:
    deadline = time.monotonic() + 120
    while not log.exists() or not log.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    answer: dict[str, object] = json.loads(log.read_text().splitlines()[-1])
    return answer


def test_a_forked_process_leads_a_session_with_its_own_streams(parent: AirflowParent, tmp_path: Path) -> None:
    parent.open()
    process = parent.spawn(["sleep", "--flag"], log=tmp_path / "logs/a.log", cwd=tmp_path)
    try:
        answer = said(tmp_path / "logs/a.log")
        assert answer["argv"] == ["airflow", "sleep", "--flag"]
        assert answer["pid"] == answer["sid"] == process.pid
        assert (answer["cwd"], answer["stdin"], answer["pipes"]) == (str(tmp_path), os.devnull, 0)
        # Anything of ours in the parent would be stale after a reload, but for what the forking itself needs.
        assert answer["ours"] == ["tradewind", "tradewind.errors", "tradewind.stack", "tradewind.stack.processes"]
        assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait(timeout=10) == -signal.SIGKILL


@pytest.mark.parametrize("status", [0, 3])
def test_its_exit_status_is_told(parent: AirflowParent, tmp_path: Path, status: int) -> None:
    parent.open()
    process = parent.spawn([str(status)], log=tmp_path / "a.log", cwd=tmp_path)
    assert process.wait(timeout=30) == status
    assert not psutil.pid_exists(process.pid)


def test_what_it_forked_outlives_it_and_the_next_is_started_by_itself(parent: AirflowParent, tmp_path: Path) -> None:
    parent.open()
    process = parent.spawn(["sleep"], log=tmp_path / "a.log", cwd=tmp_path)
    said(tmp_path / "a.log")
    parent.close()
    parent.close()
    assert process.poll() is None
    end_sessions([process._mark], grace_s=5)  # type: ignore[union-attr]
    assert process.wait(timeout=10) == UNKNOWN_STATUS
    alone = parent.spawn(["version"], log=tmp_path / "b.log", cwd=tmp_path)
    alone.wait(timeout=30)
    assert (tmp_path / "b.log").exists()


def test_a_dead_parent_is_told_with_its_last_words(
    parent: AirflowParent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules/fastapi.py").write_text("raise ImportError('no fastapi here')")
    parent.open()
    with pytest.raises(StackFailed, match="no fastapi here"):
        parent.spawn(["0"], log=tmp_path / "a.log", cwd=tmp_path)
