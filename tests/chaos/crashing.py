"""Kill a task at a chosen step: a forked process runs a job and is killed before or after its n-th outside call."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from tests.support.trading_rig import Rig

FINISHED = 0
FAILED = 1


class Mine:
    """Stands before a store or an exchange and dies at one call; every other call passes through."""

    def __init__(self, target: Any, fuse: Fuse) -> None:
        self._target = target
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fuse.burn()
            result = found(*args, **kwargs)
            self._fuse.burn()
            return result

        return call


class Fuse:
    """Counts the moments before and after each call; at the chosen one the process is killed."""

    def __init__(self, at: int) -> None:
        self.left = at

    def burn(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def run_and_die(make: Callable[[], Rig], job: Callable[[Rig], Any], at: int) -> bool:
    """Run the job in a process of its own that is killed at moment `at`; False when it ended before that.

    The child builds its own rig: nothing of the parent's connections is touched.
    """
    child = os.fork()
    if child == 0:
        status = FAILED
        try:
            rig = make()
            fuse = Fuse(at)
            rig.exchange = Mine(rig.exchange, fuse)  # type: ignore[assignment]
            rig.trading_store = Mine(rig.trading_store, fuse)  # type: ignore[assignment]
            job(rig)
            status = FINISHED
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == FINISHED, "the job failed by itself before it could be killed"
    return False
