"""A parent that has imported Airflow once and forks its long-lived processes, which then share those pages.

Airflow's four processes load the same 100 MB of modules each; forked from one parent they hold them once, and boot
without importing them again. The parent imports third-party packages alone, runs nothing of Airflow's, opens no
connection and starts no thread, so that its children begin as if each had been started by itself.

::

    supervisor ──{"argv", "log", "cwd"}──▶ parent ──fork, setsid──▶ airflow scheduler
               ◀────────{"pid"}──────────
               ──{"status_of"}───────────▶
               ◀────────{"status"}───────

One JSON object a line. The parent ends when its standard input is closed: by a supervisor that died, or by one whose
stack is up, since the pages that each child has written to meanwhile would live on in the parent alone. Its children
are sessions of their own and go on; one that dies later is started again by itself.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tradewind.errors import StackFailed
from tradewind.stack.processes import PRIVATE_UMASK, ProcessMark, last_words, open_log, spawn

# On macOS a forked process may not use the system's frameworks: there each process is started by itself.
CAN_FORK = sys.platform == "linux"
# What most of the four processes import before they serve.
_SHARED_MODULES = (
    "airflow.__main__",
    "airflow.executors.executor_loader",
    "airflow.jobs.job",
    "airflow.models.dagrun",
    "airflow.plugins_manager",
    "airflow.providers_manager",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.serialization.serialized_objects",
    "asyncpg",
    "fastapi",
    "psycopg2",
    "uvicorn",
)
_ANSWER_TIMEOUT_S = 120.0
_REAP_EVERY_S = 0.5
# Nobody was there to see how the process ended; no signal has this number.
UNKNOWN_STATUS = -255


class ForkedProcess:
    """A process that the parent forked, with as much of `subprocess.Popen` as a supervisor uses."""

    def __init__(self, pid: int, parent: AirflowParent) -> None:
        self.pid = pid
        self._mark = ProcessMark.of(pid)
        self._parent = parent

    def poll(self) -> int | None:
        """None while it lives, then its exit status, negative for a signal; UNKNOWN_STATUS once the parent is gone."""
        return None if self._mark.alive() else self._parent.status_of(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if timeout is not None and deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.05)
        return status


class AirflowParent:
    """The supervisor's side: starts the parent and asks it for processes. Safe to call from several threads.

    Parameters
    ----------
    environment : of the parent, and so of all that it forks.
    log : where the parent's own words go.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = dict(environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Start the parent without waiting for its imports; without effect where a process cannot be forked."""
        if not CAN_FORK:
            return
        with self._lock, open_log(self._log) as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=self._environment,
                start_new_session=True,
                umask=PRIVATE_UMASK,
            )

    def close(self) -> None:
        """End the parent; what it forked goes on."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.communicate(timeout=_ANSWER_TIMEOUT_S)

    def spawn(self, argv: Sequence[str], *, log: Path, cwd: Path) -> ForkedProcess | subprocess.Popen[bytes]:
        """Start `airflow ARGV` as the leader of its own session, its output appended to `log`.

        Forked from the parent while that is open, which waits for its imports; else started by itself. Raises
        StackFailed when the parent died.
        """
        if self._process is None:
            return spawn([sys.executable, "-m", "airflow", *argv], log=log, env=self._environment, cwd=cwd)
        open_log(log).close()
        answer = self._ask({"argv": list(argv), "log": str(log), "cwd": str(cwd)})
        if answer is None:
            raise StackFailed(f"the parent of Airflow's processes forked no {argv[0]}: {last_words(self._log)}")
        return ForkedProcess(answer["pid"], self)

    def status_of(self, pid: int) -> int:
        """With which status a process that is dead ended."""
        answer = self._ask({"status_of": pid})
        return UNKNOWN_STATUS if answer is None or answer["status"] is None else int(answer["status"])

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The parent's answer, or None when it has none to give."""
        with self._lock:
            process = self._process
            if process is None or process.stdin is None or process.stdout is None:
                return None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                return None
            readable, _, _ = select.select([process.stdout], [], [], _ANSWER_TIMEOUT_S)
            line = process.stdout.readline() if readable else b""
        return json.loads(line) if line else None


def main() -> None:
    """The parent itself: import, then fork on request until standard input is closed."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # What is printed while importing must not be read as an answer.
    os.dup2(2, 1)
    for name in _SHARED_MODULES:
        importlib.import_module(name)
    gc.collect()
    # Collecting these objects later would write into each of them, and so copy every shared page.
    gc.freeze()
    statuses: dict[int, int] = {}
    for request in _requests(statuses):
        if "status_of" in request:
            _reap(statuses)
            answer = {"status": statuses.get(request["status_of"])}
        else:
            pid = os.fork()
            if pid == 0:
                answers.close()
                _become_airflow(request)
                return
            answer = {"pid": pid}
        print(json.dumps(answer), file=answers)


def _requests(statuses: dict[int, int]) -> Any:
    """Requests from standard input as they come, collecting dead children meanwhile."""
    unread = b""
    while True:
        readable, _, _ = select.select([0], [], [], _REAP_EVERY_S)
        _reap(statuses)
        if not readable:
            continue
        received = os.read(0, 65536)
        if not received:
            return
        *lines, unread = (unread + received).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _reap(statuses: dict[int, int]) -> None:
    """Collect children that have ended: as zombies they would keep their process ids."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        statuses[pid] = os.waitstatus_to_exitcode(status)


def _become_airflow(request: Mapping[str, Any]) -> None:
    """In the child: leave the parent's session and streams, then run Airflow's command to its end."""
    from setproctitle import setproctitle

    os.setsid()
    with open(os.devnull, "rb") as null, open(request["log"], "ab") as output:
        os.dup2(null.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(request["cwd"])
    sys.argv = ["airflow", *request["argv"]]
    setproctitle(" ".join(sys.argv))
    importlib.import_module("airflow.__main__").main()


if __name__ == "__main__":
    main()
