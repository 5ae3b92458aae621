"""Container health checks that do not start Airflow to ask about Airflow.

python health.py airflow scheduler|triggerer|dag_processor     Airflow's own answer about a component
python health.py worker                                        this container's Celery worker answers a ping
python health.py process MODULE                                the container's process runs that module
"""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from pathlib import Path

_HEALTH = "http://api-server:8080/api/v2/monitor/health"
_BROKER = Path("/run/secrets/airflow_broker_url")


def component_is_healthy(name: str, url: str = _HEALTH) -> bool:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  (a fixed http address)
        return bool(json.load(answer)[name]["status"] == "healthy")


def worker_answers(broker: Path = _BROKER) -> bool:
    from celery import Celery  # type: ignore[import-untyped,unused-ignore]

    with Celery(broker=broker.read_text().strip()) as app:
        name = f"celery@{socket.gethostname()}"
        return bool(app.control.ping(destination=[name], timeout=10))


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
            well = worker_answers()
        case ["process", module]:
            well = process_runs(module)
        case _:
            raise SystemExit(__doc__)
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
