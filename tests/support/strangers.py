"""Runs the actions of `attacker.py` as another user of this machine: number 4242, who is nobody's and owns nothing."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.support.attacker import ACTIONS, say

T = TypeVar("T")
STRANGER = 4242
ROOT = os.geteuid() == 0


@contextmanager
def attacking(action: str, *arguments: object, uid: int = STRANGER) -> Iterator[tuple[Any, list[Any]]]:
    """While the action goes on: what it said first, and a list of what it said later, filled when the block ends.

    Only root can be another user; elsewhere it is this one's own, who may do all.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(uid, writing, action, [str(argument) for argument in arguments])
    os.close(writing)
    with os.fdopen(reading) as output:
        later: list[Any] = []
        try:
            yield json.loads(output.readline()), later
        finally:
            os.kill(pid, signal.SIGTERM)
            later += [json.loads(line) for line in output]
            os.waitpid(pid, 0)


def attack(action: str, *arguments: object, uid: int = STRANGER) -> Any:
    """What the action got."""
    with attacking(action, *arguments, uid=uid) as (got, _):
        return got


def as_user(name: str, function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns, as JSON can say it, to a process of this user that began as a copy of ours.

    The user may not reach the interpreter's files: what the function imports must be there already.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        user = pwd.getpwnam(name)
        ACTIONS["function"] = lambda: say(function(*arguments))
        _become(user.pw_uid, writing, "function", [])
    os.close(writing)
    with os.fdopen(reading) as output:
        said = output.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, "it failed: its traceback is above"
    result: T = json.loads(said)
    return result


def _become(uid: int, writing: int, action: str, arguments: list[str]) -> None:
    """In the child: nothing of the tests stays open, and no right of root's is left."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(writing, 1)
        os.closerange(3, 4096)
        os.chdir("/")
        if ROOT:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        sys.stdout = os.fdopen(1, "w")
        ACTIONS[action](*arguments)
        status = 0
    except SystemExit:
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it was, the child ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)
