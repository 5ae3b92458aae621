"""The process that holds the stack: in the foreground, or on its own after `up --detach`.

SIGTERM and SIGINT end it with all its services; SIGHUP restarts the services that run our code.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from tradewind.adapters.logs import configure_logging
from tradewind.errors import AlreadyRunning, ServiceNotReady, StackFailed
from tradewind.settings import PROJECT_DIR, STACK_ONLY, Settings
from tradewind.stack import state as states
from tradewind.stack.processes import last_words, spawn
from tradewind.stack.progress import LiveReporter
from tradewind.stack.services import log_dir
from tradewind.stack.stack import Stack, running_stack
from tradewind.stack.state import StackState, state_file
from tradewind.stack.supervisor import LogReporter, Reporter

_START_TIMEOUT_S = 600.0
_RELOAD_TIMEOUT_S = 300.0

log = logging.getLogger(__name__)


def serve(settings: Settings, reporter: Reporter, on_ready: Callable[[Stack], None], *, fresh: bool = False) -> None:
    """Hold the stack until a signal ends it; `on_ready` is called once when all of it answers.

    `fresh` begins from empty databases, in demo mode alone.
    """
    wanted = threading.Event()

    def ask_for_reload(_number: int, _frame: FrameType | None) -> None:
        wanted.set()

    signal.signal(signal.SIGHUP, ask_for_reload)
    with running_stack(settings, reporter=reporter, fresh=fresh) as stack:
        on_ready(stack)
        while True:
            wanted.wait()
            wanted.clear()
            try:
                stack.reload()
            except (ServiceNotReady, StackFailed, OSError) as error:
                # The watcher goes on trying to restart what failed; ending the rest would only make it worse.
                log.error("reload failed: %s", error)


def serve_detached(settings: Settings, *, fresh: bool = False) -> None:
    """The body of the process that `detach` starts."""
    configure_logging(settings.log_level, process="supervisor")
    serve(settings, LogReporter(), on_ready=lambda stack: log.info("ready"), fresh=fresh)


def detach(settings: Settings, *, fresh: bool = False) -> None:
    """Start a supervisor of its own for these settings and show its progress until all is ready.

    `fresh` begins from empty databases, in demo mode alone. Raises StackFailed with the supervisor's reason.
    """
    path = state_file(settings.home_dir)
    before = StackState.load(path)
    if before is not None and before.supervisor.alive():
        raise AlreadyRunning(f"process {before.supervisor.pid} runs the stack: ./tradewind down ends it")
    output = log_dir(settings) / "supervisor.log"
    since = output.stat().st_size if output.exists() else 0
    process = spawn(
        [sys.executable, "-m", "tradewind.cli", "up", "--as-daemon", *(["--fresh"] if fresh else [])],
        log=output,
        env={**os.environ, **settings.environment(also=STACK_ONLY)},
        cwd=PROJECT_DIR,
    )
    deadline = time.monotonic() + _START_TIMEOUT_S
    with LiveReporter() as reporter:
        try:
            while True:
                state = StackState.load(path)
                if state is not None and state.supervisor.pid == process.pid:
                    for service in state.processes:
                        reporter.changed(service.name, service.state)
                    if state.state == states.READY:
                        return
                if process.poll() is not None:
                    raise StackFailed(f"{last_words(output, since)} (see {output})")
                if time.monotonic() > deadline:
                    raise StackFailed(f"the stack was not ready within {_START_TIMEOUT_S:.0f} s (see {output})")
                time.sleep(0.1)
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the supervisor stop what it has started, and wait for it."""
    if process.poll() is None:
        process.terminate()
    process.wait()


def reload(settings: Settings) -> None:
    """Have the running supervisor restart what runs our code, and wait until it has."""
    path = state_file(settings.home_dir)
    state = StackState.load(path)
    if state is None or not state.supervisor.alive():
        raise StackFailed("no stack is up: ./tradewind up starts it")
    os.kill(state.supervisor.pid, signal.SIGHUP)
    deadline = time.monotonic() + _RELOAD_TIMEOUT_S
    while (now := StackState.load(path)) is not None and now.reloads == state.reloads:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    else:
        if now is not None:
            return
    raise StackFailed("the stack did not reload: see ./tradewind logs supervisor")
