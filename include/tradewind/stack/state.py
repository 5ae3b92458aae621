"""What the supervisor writes down, so that another command finds its processes, also after it was killed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tradewind.errors import AlreadyRunning
from tradewind.settings import Settings
from tradewind.stack.processes import ProcessMark

STARTING, READY, FAILED, RESTARTING, STOPPING = "starting", "ready", "failed", "restarting", "stopping"


@dataclass(slots=True)
class ProcessState:
    """One process of the stack, as the supervisor knows it."""

    name: str
    state: str
    mark: ProcessMark | None
    port: int | None
    log: str
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which deployment the stack is, for the commands of other shells. No secret is in it.

    Attributes
    ----------
    settings : what was given, by field (`Settings.on_record`).
    database : where our own database is, "" for the embedded one.
    exchange_key_sha256 : of the key that orders are signed with, "" without one.
    """

    settings: dict[str, str]
    database: str
    exchange_key_sha256: str

    @classmethod
    def of(cls, settings: Settings) -> Deployment:
        return cls(settings.on_record(), settings.database_place, settings.exchange_key_sha256)


@dataclass(slots=True)
class StackState:
    """The supervisor, its processes, and every session leader it ever started and has not seen end."""

    supervisor: ProcessMark
    state: str
    reloads: int = 0
    processes: list[ProcessState] = field(default_factory=list)
    leaders: list[ProcessMark] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)
    deployment: Deployment | None = None

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(asdict(self), indent=1))
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> StackState | None:
        """What was written last, or None."""
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        return cls(
            supervisor=ProcessMark(**data["supervisor"]),
            state=data["state"],
            reloads=data["reloads"],
            processes=[
                ProcessState(**{**process, "mark": ProcessMark(**process["mark"]) if process["mark"] else None})
                for process in data["processes"]
            ],
            leaders=[ProcessMark(**mark) for mark in data["leaders"]],
            urls=data["urls"],
            # A stack that an older version started has none.
            deployment=Deployment(**data["deployment"]) if data.get("deployment") else None,
        )


def state_file(home_dir: Path) -> Path:
    return home_dir / "run" / "stack.json"


@contextmanager
def home_lock(home_dir: Path) -> Iterator[None]:
    """Hold the home directory for one supervisor. Raises AlreadyRunning, saying who holds it.

    The kernel gives the lock back when its holder dies, however that happens.
    """
    path = home_dir / "run" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise AlreadyRunning(
                    f"the stack in {home_dir} is run by process {holder}: ./tradewind down ends it"
                ) from None
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue  # its last holder removed the file between our opening and locking it
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
