"""Processes of ours: started in a session of their own, recognised later, ended with all that they forked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from tradewind.errors import PortTaken

LOCALHOST = "127.0.0.1"
PRIVATE_UMASK = 0o077
# The kernel's start time is exact, but psutil adds the boot time, which moves when the machine's clock is corrected.
_START_TOLERANCE_S = 5.0
_LOG_TAIL_BYTES = 8000


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """A process recognised by its id, start time, user and program, so that no other is ever taken for it.

    What was written down before users and programs were is recognised by the rest.
    """

    pid: int
    started_s: float
    uid: int | None = None
    program: str | None = None

    @classmethod
    def of(cls, pid: int) -> ProcessMark:
        """Mark a process that lives now. Raises psutil.NoSuchProcess."""
        process = psutil.Process(pid)
        return cls(pid, process.create_time(), process.uids().real, _program(process))

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE or not self._started(process):
                return False
            program = _program(process)
            return (self.uid in (None, process.uids().real)) and (
                None in (self.program, program) or self.program == program
            )
        except psutil.NoSuchProcess:
            return False

    def _started(self, process: psutil.Process) -> bool:
        return bool(abs(process.create_time() - self.started_s) < _START_TOLERANCE_S)

    def session(self) -> list[ProcessMark]:
        """Every living process of the session that this process leads or led.

        A process id is not given out again while a session bears it, so members found after the leader's death are
        its descendants, wherever they were re-parented; none, where the id has gone to another process since.
        """
        try:
            if psutil.boot_time() - self.started_s > _START_TOLERANCE_S or not self._started(psutil.Process(self.pid)):
                return []
        except psutil.NoSuchProcess:
            pass  # the leader has ended
        members = []
        for pid in psutil.pids():
            try:
                if os.getsid(pid) != self.pid:
                    continue
                mark = ProcessMark.of(pid)
            except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
                continue
            is_younger = mark.started_s > self.started_s - _START_TOLERANCE_S
            if is_younger and self.uid in (None, mark.uid) and mark.alive():
                members.append(mark)
        return members


def _program(process: psutil.Process) -> str | None:
    """The file it runs; None where the kernel does not tell: of one that may not be dumped, or that is just ending."""
    try:
        return str(process.exe()).removesuffix(" (deleted)") or None  # deleted by an upgrade while it runs
    except psutil.AccessDenied:
        return None


def spawn(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
    user: int | None = None,
    group: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process as the leader of its own session, its output appended to `log`, its files for its user alone."""
    with open_log(log) as output:
        return subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            user=user,
            group=group,
            extra_groups=[] if user is not None else None,
            start_new_session=True,
            umask=PRIVATE_UMASK,
        )


def open_log(path: Path) -> BinaryIO:
    """The log, to be appended to; made where it is missing, for our own eyes."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def end_sessions(
    leaders: Iterable[ProcessMark], *, first: signal.Signals = signal.SIGTERM, grace_s: float = 20.0
) -> None:
    """End the leaders, and then whatever they left in their sessions; returns when none of it lives.

    The leader alone gets the first signal, because servers end their own children in order; members that outlive
    `grace_s`, or their leader, are killed.
    """
    marks = list(leaders)
    for mark in marks:
        if mark.alive():
            _send(mark, first)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(mark.alive() for mark in marks):
        time.sleep(0.05)
    _reap(marks)
    # Orphans first get the chance to end by themselves: a forked worker notices its parent's death within moments.
    for sign, wait_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 10.0)):
        rest = [member for mark in marks for member in mark.session()]
        if not rest:
            return
        for member in rest:
            _send(member, sign)
        limit = time.monotonic() + wait_s
        while time.monotonic() < limit and any(member.alive() for member in rest):
            time.sleep(0.05)
        _reap([*marks, *rest])


def last_words(log: Path, since: int = 0) -> str:
    """What a log says last, for error messages: the last error of ours in it, else its last line.

    `since` is the log's size when the process was started, so that an earlier one's words are not taken for its.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - _LOG_TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return "it wrote no log"
    for line in reversed(lines):
        for start in ("error: ", "tradewind.errors."):
            if line.startswith(start):
                return line.removeprefix(start)
    return lines[-1] if lines else "its log is empty"


def _send(mark: ProcessMark, sign: signal.Signals) -> None:
    if mark.alive():
        try:
            os.kill(mark.pid, sign)
        except ProcessLookupError:
            return


def _reap(marks: Iterable[ProcessMark]) -> None:
    """Collect those that were our own children: as zombies they would still hold their process ids."""
    for mark in marks:
        try:
            os.waitpid(mark.pid, os.WNOHANG)
        except ChildProcessError:
            continue


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports() -> dict[str, int]:
    """A free port for every port setting, for a stack that must not meet another one."""
    names = ("exchange_port", "airflow_port", "status_port")
    return {name: free_port() for name in names}


def require_port(port: int, setting: str, what: str) -> None:
    """Raise PortTaken, naming the setting, when another program listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError as error:
            raise PortTaken(
                f"port {port} on {LOCALHOST} is taken, and the {what} needs it: "
                f"set {setting} to a free one, for example {setting}={free_port()}"
            ) from error


def accepts_connections(port: int) -> bool:
    """Whether something listens on the port now."""
    try:
        with socket.create_connection((LOCALHOST, port), timeout=1.0):
            return True
    except OSError:
        return False
