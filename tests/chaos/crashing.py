"""Strike a task at a chosen step: before or after its n-th outside call, by death or by whatever else may happen."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from tests.support.trading_rig import Rig

FINISHED = 0
FAILED = 1


class Fuse:
    """Counts the moments before and after each outside call of a job; at the chosen one `strike` happens, once."""

    def __init__(self, at: int | None, strike: Callable[[], None] | None = None) -> None:
        self.at = at
        self.seen = 0
        self.struck = False
        self.has_asked = False  # a market's status was asked for, and nothing was cancelled since
        self._strike = strike or _die

    def burn(self) -> None:
        self.seen += 1
        if self.at is not None and self.seen - 1 == self.at and not self.struck:
            self.struck = True
            self._strike()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Mine:
    """Stands before a store or an exchange and burns the fuse around each call."""

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
            if name == "market_status" or name.startswith("cancel"):
                self._fuse.has_asked = name == "market_status"
            self._fuse.burn()
            return result

        return call


def mined(rig: Rig, fuse: Fuse) -> Rig:
    """The rig with mines before its exchange and its store."""
    rig.exchange = Mine(rig.exchange, fuse)  # type: ignore[assignment]
    rig.trading_store = Mine(rig.trading_store, fuse)  # type: ignore[assignment]
    return rig


def run_and_die(make: Callable[[], Rig], job: Callable[[Rig], Any], at: int) -> bool:
    """Run the job in a process of its own that is killed at moment `at`; False when it ended before that.

    The child builds its own rig: nothing of the parent's connections is touched.
    """
    child = os.fork()
    if child == 0:
        status = FAILED
        try:
            job(mined(make(), Fuse(at)))
            status = FINISHED
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == FINISHED, "the job failed by itself before it could be killed"
    return False
