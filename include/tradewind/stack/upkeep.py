"""What must be done daily to Airflow's own data, which no task may do: its metadata and its logs."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tradewind.addresses import keep_socket_dir
from tradewind.settings import Settings
from tradewind.stack.environment import airflow_environment, task_log_dir
from tradewind.stack.processes import PRIVATE_UMASK, open_log
from tradewind.stack.services import EMBEDDED, log_dir

KEPT = timedelta(days=14)
_CHECK_EVERY_S = 600.0
_MAX_LOG_BYTES = 50_000_000

log = logging.getLogger(__name__)


class Upkeep:
    """A thread that cleans once a day, counted from a stamp in the home: restarts neither skip nor repeat it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stamp = settings.home_dir / "airflow" / "cleaned"
        self._stopping = threading.Event()
        self._cleaning: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        self._stamp.touch(exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        cleaning = self._cleaning
        if cleaning is not None and cleaning.poll() is None:
            cleaning.terminate()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stopping.wait(_CHECK_EVERY_S):
            trim_logs(log_dir(self._settings))
            for server in EMBEDDED:
                keep_socket_dir(self._settings.home_dir / server)
            if time.time() - self._stamp.stat().st_mtime > timedelta(days=1).total_seconds():
                self.clean()
                self._stamp.touch()

    def clean(self) -> bool:
        """Remove metadata and task logs older than 14 days; returns whether `airflow db clean` succeeded."""
        before = datetime.now(UTC) - KEPT
        remove_old_files(task_log_dir(self._settings), before.timestamp())
        path = log_dir(self._settings) / "airflow-db.log"
        with open_log(path) as output:
            self._cleaning = subprocess.Popen(
                [sys.executable, "-m", "airflow", "db", "clean", "--skip-archive", "--yes",
                 "--clean-before-timestamp", before.isoformat()],
                env=airflow_environment(self._settings), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, umask=PRIVATE_UMASK,
            )  # fmt: skip
        status = self._cleaning.wait()
        if status != 0 and not self._stopping.is_set():
            log.error("airflow db clean ended with status %s (see %s)", status, path)
        return status == 0


def remove_old_files(directory: Path, before_s: float) -> int:
    """Remove files last written before the time, and the directories that this leaves empty; returns how many files."""
    removed = 0
    for path in sorted(directory.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        try:
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()) and path.stat().st_mtime < before_s:
                    path.rmdir()
            elif path.lstat().st_mtime < before_s:
                path.unlink()
                removed += 1
        except (FileNotFoundError, OSError):
            continue  # a task wrote into it just now
    return removed


def trim_logs(directory: Path, max_bytes: int = _MAX_LOG_BYTES) -> None:
    """Keep one older generation of each service log. Services append, so that truncating beneath them is safe."""
    for path in directory.glob("*.log"):
        if path.stat().st_size > max_bytes:
            with path.open("r+b") as current:
                path.with_suffix(".log.1").write_bytes(current.read())
                current.truncate(0)
