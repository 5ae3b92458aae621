"""When a part dies it is named within seconds, somebody is told, it is back by itself, and no log holds a secret."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.conftest import RunningSystem
from tests.e2e.test_stack import leader_pid
from tradewind.stack.environment import task_log_dir
from tradewind.stack.services import log_dir

pytestmark = pytest.mark.e2e
NAMED_WITHIN_S = 15.0


def ready(system: RunningSystem) -> dict[str, Any]:
    url = f"http://127.0.0.1:{system.settings.status_port}/api/ready"
    answer: dict[str, Any] = httpx.get(url, timeout=20, trust_env=False).json()
    return answer


def wait(condition: Callable[[], Any], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


@pytest.mark.parametrize(("service", "names"), [("triggerer", {"processes", "airflow", "watch"}), ("exchange", None)])
def test_a_killed_part_is_named_told_and_back_by_itself(
    system: RunningSystem, service: str, names: set[str] | None
) -> None:
    wait(lambda: ready(system)["ready"], 240)
    before = system.rows("SELECT coalesce(max(alert_id), 0) AS last FROM alerts")[0]["last"]
    psutil.Process(leader_pid(system.settings, service)).kill()
    failed = set(wait(lambda: ready(system)["failed"], NAMED_WITHIN_S))
    assert failed & (names or {"processes", "exchange"})
    wait(
        lambda: system.rows(
            "SELECT 1 FROM alerts WHERE alert_id > %(last)s AND key = %(key)s", last=before, key=f"process:{service}"
        ),
        30,
    )
    wait(lambda: ready(system)["ready"], 180)


def test_no_log_holds_a_secret(system: RunningSystem) -> None:
    """Every secret of the deployment, looked for in every line that any process or task has written."""
    secrets = {path.name: path.read_text() for path in system.settings.secrets_dir.iterdir()}
    assert len(secrets) > 10
    assert all(len(secret) >= 32 for secret in secrets.values())
    logs = [path for folder in (log_dir(system.settings), task_log_dir(system.settings)) for path in _files(folder)]
    assert len(logs) > 10
    found = []
    for path in logs:
        text = path.read_text(errors="replace")
        found += [f"{name} in {path}" for name, secret in secrets.items() if secret in text]
    assert found == []


def test_task_logs_carry_the_ids(system: RunningSystem) -> None:
    run = system.run("score_sentiment", timeout_s=180)
    folder = task_log_dir(system.settings) / "dag_id=score_sentiment" / f"run_id={run['dag_run_id']}"
    lines = [line for path in _files(folder) for line in path.read_text().splitlines() if '"job done"' in line]
    assert lines
    for name in ("dag_id", "run_id", "task_id"):
        assert all(f'"{name}"' in line for line in lines)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
