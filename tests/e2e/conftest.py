"""One whole stack for the session: PostgreSQL, Valkey, the paper exchange and Airflow, on ports of its own.

Its market is stepped by hand and lies in the past, so that what Airflow starts by the wall's clock finds its interval
still open and leaves the tests alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tradewind.paper.admin import PaperAdmin
from tradewind.settings import Settings
from tradewind.stack.airflow_api import AirflowClient
from tradewind.stack.postgres import discard
from tradewind.stack.processes import free_ports
from tradewind.stack.stack import running_stack, with_secrets
from tradewind.wiring import Wiring

BAR = timedelta(minutes=15)
DAY_RUNS = 96


@dataclass(frozen=True)
class RunningSystem:
    """The stack as a person sees it: its Airflow, its exchange, its rows."""

    settings: Settings
    airflow: AirflowClient
    admin: PaperAdmin
    wiring: Wiring

    def now(self) -> datetime:
        """The market's clock."""
        return datetime.fromtimestamp(self.admin.clock().market_ms / 1000, UTC)

    def run(self, dag_id: str, conf: dict[str, Any] | None = None, timeout_s: float = 240) -> dict[str, Any]:
        """Trigger a DAG with a null date, wait for its end, return the run."""
        run = self.airflow.trigger_dag(dag_id, conf=conf)
        return self.airflow.wait_dag_run(dag_id, run["dag_run_id"], timeout_s=timeout_s)

    def rows(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        return self.wiring.database.rows(sql, params)

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """State by task, mapped ones with their index: `place_brackets[0]`."""
        return {
            task["task_id"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else ""): task["state"]
            for task in self.airflow.task_instances(dag_id, run_id)
        }


@pytest.fixture(scope="session")
def system() -> Iterator[RunningSystem]:
    """A stack that is ready; it is gone when the session ends."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with ExitStack() as held:
        # PostgreSQL's unprivileged user must be able to walk there, which pytest's own directories forbid.
        home = Path(
            held.enter_context(tempfile.TemporaryDirectory(prefix="tradewind-e2e-", ignore_cleanup_errors=True))
        )
        home.chmod(0o711)
        settings = with_secrets(
            mode="demo",
            home_dir=home / "state",
            account_id="e2e",
            market_start=today - timedelta(days=1),
            **free_ports(),
        )
        held.callback(discard, settings.home_dir / "postgres")
        held.enter_context(running_stack(settings))
        airflow = held.enter_context(
            AirflowClient(settings.airflow_url, settings.airflow_username, settings.airflow_password.get_secret_value())
        )
        admin = held.enter_context(PaperAdmin(settings.exchange_url, settings.exchange_admin_token.get_secret_value()))
        yield RunningSystem(settings, airflow, admin, held.enter_context(closing(Wiring(settings))))
