"""The run of the demo: its parts, its clock, its progress on the terminal, and its stages in order.

The market is stepped, so that days pass in minutes, and always begins at `MARKET_START`, so that a seed tells the same
story whenever it is run. It stays in the past: the DAGs that Airflow starts by the wall's clock meanwhile find their
interval still open on this market and wait.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from tradewind.errors import TradewindError
from tradewind.paper.admin import PaperAdmin
from tradewind.settings import Settings
from tradewind.stack.airflow_api import AirflowClient
from tradewind.wiring import Wiring

BAR = timedelta(minutes=15)
WALK_BARS = 1_000  # at most this many bars through the jobs alone before an intent
CYCLE_BARS = 200  # and this many through the DAGs, twice a position's longest life
MONTHS = 12
MARKET_START = datetime(2026, 1, 1, tzinfo=UTC)
MARKET_SETTINGS = ("market_seed", "market_structure_frac", "symbols")


class DemoFailed(TradewindError):
    """A stage did not do its work; the message says which and where to look."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line chose."""

    cycles: int = 8
    crash: bool = True
    keep: bool = False
    months: int = MONTHS
    json_path: Path | None = None


@dataclass(slots=True)
class DemoRun:
    """The parts that the stages share, and what they have found so far."""

    options: DemoOptions
    settings: Settings
    wiring: Wiring
    airflow: AirflowClient
    admin: PaperAdmin
    console: Console
    start: datetime  # the market's clock when the demo begins
    summary: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_shipped(self) -> bool:
        """Whether this is the market on which a model is known to earn its place.

        On any other the gates may well refuse, and then no champion and no order is the right end.
        """
        shipped = all(getattr(self.settings, n) == Settings.model_fields[n].default for n in MARKET_SETTINGS)
        return shipped and self.start == MARKET_START and self.options.months == MONTHS

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Announce a stage, time it, and say on which one the demo failed."""
        self.console.print(f"[bold]{title}[/bold]")
        started_s = time.monotonic()
        try:
            yield
        except DemoFailed:
            self.console.print(f"  [red]✗ {name} did not do its work[/red]")
            raise
        finally:
            self.seconds[name] = round(time.monotonic() - started_s, 1)
        self.say(f"[green]✓[/green] {self.seconds[name]:.1f} s")

    def now(self) -> datetime:
        """The market's clock."""
        return datetime.fromtimestamp(self.admin.clock().market_ms / 1000, UTC)

    def say(self, text: str) -> None:
        self.console.print(f"  {text}")

    def require(self, condition: bool, complaint: str) -> None:
        """Raise DemoFailed with `complaint` unless `condition` holds."""
        if not condition:
            raise DemoFailed(complaint)

    def count(self, sql: str, **params: Any) -> int:
        """The single number that a query returns; the account is bound as %(account)s."""
        row = self.wiring.database.row(sql, {"account": self.wiring.account, **params})
        return int(next(iter(row.values())) or 0) if row else 0

    def run_dag(self, dag_id: str, conf: dict[str, Any] | None = None, *, timeout_s: float = 300) -> str:
        """Start a DAG run through Airflow's REST API and wait until it succeeded; returns its run id."""
        run_id = f"demo__{dag_id}__{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        self.airflow.trigger_dag(dag_id, conf=conf or {}, run_id=run_id)
        run = self.airflow.wait_dag_run(dag_id, run_id, timeout_s=timeout_s)
        self.require(
            run["state"] == "success",
            f"the run {run_id} of {dag_id} ended as {run['state']}: see `./tradewind logs airflow-scheduler` or the "
            f"task's log in Airflow at {self.settings.airflow_url}",
        )
        return run_id

    def write_json(self) -> None:
        if self.options.json_path:
            text = json.dumps({**self.summary, "seconds": self.seconds}, indent=2, default=str)
            self.options.json_path.parent.mkdir(parents=True, exist_ok=True)
            self.options.json_path.write_text(text + "\n", encoding="utf-8")
