"""When a part dies it is named within seconds, somebody is told, it is back by itself, and no log holds a secret."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tests.e2e.conftest import RunningSystem
from tests.e2e.test_stack import leader_pid
from tradewind.errors import RetryError
from tradewind.jobs.permission import permission_now
from tradewind.stack.environment import task_log_dir
from tradewind.stack.services import log_dir

pytestmark = pytest.mark.e2e
# What is looked for passes by itself: a service that was back before all of it was seen is killed again.
PATIENCE_S = 600.0


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


def wrong_on_page(system: RunningSystem) -> set[str]:
    """What the page names under "Is anything wrong?"."""
    url = f"http://127.0.0.1:{system.settings.status_port}/panels"
    headers = {"Authorization": f"Bearer {system.settings.api_read_token.get_secret_value()}"}
    html = httpx.get(url, headers=headers, timeout=20, trust_env=False).text
    return set(re.findall(r'<li class="(?:bad|warn)"><strong>([^<]+)</strong>', html))


def no_entry(system: RunningSystem) -> bool:
    """Whether a task that is about to send an entry would be told not to, or could not even ask."""
    try:
        return not permission_now(system.wiring).allowed
    except (RetryError, psycopg.Error):
        return True


def server_start(system: RunningSystem) -> Any:
    """When the PostgreSQL that answers began; None while none does."""
    try:
        return system.rows("SELECT pg_postmaster_start_time() AS at")[0]["at"]
    except (RetryError, psycopg.Error):
        return None


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("service", "names", "told"),
    [
        ("triggerer", {"processes", "airflow", "watch"}, {"process:triggerer"}),
        ("postgres", {"processes", "postgresql"}, {"process:postgres"}),
        ("exchange", {"processes", "exchange"}, {"process:exchange"}),
    ],
)
def test_an_outage_is_named_blocks_entries_is_told_and_passes(
    system: RunningSystem, service: str, names: set[str], told: set[str]
) -> None:
    wait(lambda: ready(system)["ready"], 240)
    before = system.rows("SELECT coalesce(max(alert_id), 0) AS last FROM alerts")[0]["last"]
    server_before = server_start(system)
    killed = leader_pid(system.settings, service)
    psutil.Process(killed).kill()
    stopped_s = time.monotonic()
    wanted: dict[str, Callable[[], Any]] = {
        "ready": lambda: names & set(ready(system)["failed"]),
        "page": lambda: names & wrong_on_page(system),
    }
    if service == "postgres":  # who asks may also be kept waiting: then the answer is another server's
        wanted["entries"] = lambda: no_entry(system) or server_start(system) != server_before
    elif service != "exchange":  # it is back before anybody could send it an entry
        wanted["entries"] = lambda: no_entry(system)
    took_s: dict[str, float] = {}
    while wanted.keys() - took_s.keys():
        took_s |= {
            what: time.monotonic() - stopped_s for what, holds in wanted.items() if what not in took_s and holds()
        }
        assert time.monotonic() - stopped_s < PATIENCE_S, took_s
        present = leader_pid(system.settings, service)
        if wanted.keys() - took_s.keys() and present != killed and ready(system)["ready"]:
            killed = present
            psutil.Process(killed).kill()
        time.sleep(0.1)
    wait(lambda: ready(system)["ready"], 180)
    recovered_s = time.monotonic() - stopped_s
    assert wait(lambda: _alerts_since(system, before) & told, 240) == told
    wait(lambda: not no_entry(system), 240)
    print(f"{service}: {took_s}, ready again {recovered_s:.1f} s after, alerts {_alerts_since(system, before)}")


def _alerts_since(system: RunningSystem, alert_id: int) -> set[str]:
    return {row["key"] for row in system.rows("SELECT key FROM alerts WHERE alert_id > %(last)s", last=alert_id)}


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
