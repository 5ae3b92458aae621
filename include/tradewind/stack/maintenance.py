"""Once a day, clean Airflow's metadata and task logs: `python -m tradewind.stack.maintenance`.

No task may do that. The embedded stack's supervisor does it (`upkeep.py`); elsewhere this is a process of its own,
whose configuration comes from its environment.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tradewind.adapters.logs import configure_logging
from tradewind.settings import load_settings
from tradewind.stack.upkeep import KEPT, remove_old_files

_EVERY_S = timedelta(days=1).total_seconds()
_AGAIN_S = 600.0

log = logging.getLogger(__name__)


def clean(logs: Path, now: datetime) -> bool:
    """Remove metadata and task logs older than 14 days; returns whether `airflow db clean` succeeded."""
    before = now - KEPT
    removed = remove_old_files(logs, before.timestamp())
    arguments = ["db", "clean", "--skip-archive", "--yes", "--clean-before-timestamp", before.isoformat()]
    done = subprocess.run([sys.executable, "-m", "airflow", *arguments], stdin=subprocess.DEVNULL, check=False)
    log.info("cleaned: %s old log files, airflow db clean ended with status %s", removed, done.returncode)
    return done.returncode == 0


def main() -> None:
    """Clean now and then daily, until SIGTERM; what failed is tried again after ten minutes."""
    configure_logging(load_settings().log_level, process="maintenance")
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: done.set())
    logs = Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"])
    while not done.is_set():
        done.wait(_EVERY_S if clean(logs, datetime.now(UTC)) else _AGAIN_S)


if __name__ == "__main__":
    main()
