"""The stack as one object: start it, use it, stop it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from tradewind.addresses import leave_socket_dir, settle_socket_dir
from tradewind.errors import AlreadyRunning, BadSetting, StackFailed
from tradewind.settings import Settings, exposed_env_file, load_settings
from tradewind.stack import services
from tradewind.stack.airflow_api import AirflowClient
from tradewind.stack.lookout import Lookout
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.processes import end_sessions
from tradewind.stack.secrets import init_secrets
from tradewind.stack.state import Deployment, StackState, home_lock, state_file
from tradewind.stack.supervisor import Reporter, SilentReporter, Supervisor
from tradewind.stack.upkeep import Upkeep

_DOWN_TIMEOUT_S = 120.0


class Stack:
    """The servers of one deployment, supervised by this process.

    Parameters
    ----------
    settings : of the deployment; its secrets must exist (`with_secrets`).
    reporter : is told of every change.
    parts : which servers; all by default.
    fresh : begin from empty databases (demo mode alone).
    """

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter | None = None,
        *,
        parts: Iterable[str] = services.PARTS,
        fresh: bool = False,
    ) -> None:
        self.settings = settings
        self.parts = frozenset(parts)
        if unknown := self.parts - services.PARTS:
            raise StackFailed(f"{sorted(unknown)} are no parts of the stack; there are {sorted(services.PARTS)}")
        self.urls = services.urls(settings, self.parts)
        self._reporter = reporter or SilentReporter()
        self._fresh = fresh
        self._supervisor: Supervisor | None = None
        self._upkeep: Upkeep | None = None
        self._lookout: Lookout | None = None
        self._held = ExitStack()

    def start(self) -> None:
        """Start everything; returns when all is ready. Raises after ending what it had started."""
        self._held.enter_context(home_lock(self.settings.home_dir))
        try:
            _end_left_over(self.settings)
            nodes = services.build(self.settings, self.parts, fresh=self._fresh)
            path, deployment = state_file(self.settings.home_dir), Deployment.of(self.settings)
            self._supervisor = Supervisor(nodes, path, self._reporter, self.urls, deployment)
            self._supervisor.start()
        except BaseException:
            self._held.close()
            raise
        if "airflow" in self.parts:
            self._upkeep = Upkeep(self.settings)
            self._upkeep.start()
            self._lookout = Lookout(self.settings)
            self._lookout.start()

    def stop(self) -> None:
        """End everything; returns when no process, socket or lock of it is left."""
        if self._lookout is not None:
            self._lookout.stop()
        if self._upkeep is not None:
            self._upkeep.stop()
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
            _leave_sockets(self.settings)
        self._held.close()

    def reload(self) -> None:
        """Restart the processes that run our code, after the library changed."""
        assert self._supervisor is not None, "start() comes first"
        self._supervisor.reload()

    def airflow(self) -> AirflowClient:
        """A client of this stack's Airflow."""
        return services.airflow_client(self.settings)

    def postgres(self) -> EmbeddedPostgres:
        """The embedded PostgreSQL server."""
        return services.embedded_postgres(self.settings)

    @property
    def state(self) -> StackState | None:
        """What the supervisor wrote down last: processes, ports, restarts."""
        return StackState.load(state_file(self.settings.home_dir))


def with_secrets(**overrides: object) -> Settings:
    """The settings of a deployment whose own secrets exist, made on the first call.

    Raises BadSetting in mode live when others may read or change the secrets in `.env`: a start is refused then, which
    what runs already is not.
    """
    settings = load_settings(**overrides)
    if settings.mode == "live" and (problem := exposed_env_file()):
        raise BadSetting(".env", f"is not safe enough for mode live: {problem}", "chmod 600 .env")
    init_secrets(settings.home_dir)
    for server in services.EMBEDDED:
        settle_socket_dir(settings.home_dir / server)
    return load_settings(**overrides)


@contextmanager
def running_stack(
    settings: Settings,
    parts: Iterable[str] = services.PARTS,
    *,
    reporter: Reporter | None = None,
    fresh: bool = False,
) -> Iterator[Stack]:
    """A stack that is ready inside the block and gone after it, also on SIGTERM and Ctrl-C."""
    with _interrupted_by_sigterm():
        stack = Stack(settings, reporter, parts=parts, fresh=fresh)
        try:
            stack.start()
            yield stack
        finally:
            with _uninterrupted():
                stack.stop()


def down(settings: Settings) -> bool:
    """End the stack of this home, whoever runs it; returns whether there was one.

    Waits until all of it is gone, and ends what a killed supervisor left behind.
    """
    state = StackState.load(state_file(settings.home_dir))
    if state is None and services.embedded_postgres(settings).mark is None:
        return False
    if state is not None and state.supervisor.alive():
        _end_supervisor(state)
    with home_lock(settings.home_dir):
        _end_left_over(settings)
    return True


def _end_supervisor(state: StackState) -> None:
    """Ask the supervisor to stop and wait; kill it when it does not, which leaves its services to the caller."""
    os.kill(state.supervisor.pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_TIMEOUT_S
    while state.supervisor.alive():
        if time.monotonic() > deadline:
            os.kill(state.supervisor.pid, signal.SIGKILL)
            deadline = time.monotonic() + 10
        time.sleep(0.1)


def _end_left_over(settings: Settings) -> None:
    """End the processes of a supervisor that was killed, known by what it had written down of each."""
    path = state_file(settings.home_dir)
    state = StackState.load(path)
    server = services.embedded_postgres(settings)
    running = server.mark
    if state is not None:
        if state.supervisor.alive():
            raise AlreadyRunning(f"process {state.supervisor.pid} runs the stack: ./tradewind down ends it")
        end_sessions([mark for mark in state.leaders if running is None or mark.pid != running.pid], grace_s=15.0)
    if running is not None:
        server.stop()
    _leave_sockets(settings)
    path.unlink(missing_ok=True)


def _leave_sockets(settings: Settings) -> None:
    for server in services.EMBEDDED:
        leave_socket_dir(settings.home_dir / server)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds the block like Ctrl-C does. Only the main thread can arrange that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM while stopping: half a stop would leave processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
