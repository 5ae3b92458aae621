"""Container health checks that do not start Airflow to ask about Airflow.

python health.py airflow scheduler|triggerer|dag_processor     Airflow's own answer about a component
python health.py worker                                        this container's Celery worker sent a heartbeat lately
python health.py process MODULE                                the container's process runs that module
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from pathlib import Path

_HEALTH = "http://api-server:8080/api/v2/monitor/health"
# Touched by plugins/airflow_local_settings.py at each heartbeat, every two seconds.
_WORKER_ALIVE = Path("/tmp/celery_worker_alive")  # noqa: S108  (a container's own memory)
_WORKER_SILENT_S = 60.0


def component_is_healthy(name: str, url: str = _HEALTH) -> bool:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  (a fixed http address)
        return bool(json.load(answer)[name]["status"] == "healthy")


def worker_beats(file: Path = _WORKER_ALIVE) -> bool:
    return file.exists() and time.time() - file.stat().st_mtime < _WORKER_SILENT_S


def process_runs(module: str, proc: Path = Path("/proc")) -> bool:
    for path in proc.glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if arguments[1:3] == [b"-m", module.encode()]:
            return True
    return False


def main(argv: list[str]) -> int:
    match argv:
        case ["airflow", name]:
            well = component_is_healthy(name)
        case ["worker"]:
            well = worker_beats()
        case ["process", module]:
            well = process_runs(module)
        case _:
            raise SystemExit(__doc__)
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
