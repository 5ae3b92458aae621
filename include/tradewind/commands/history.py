"""`history`: load months or years of candles in this process, or watch a load that runs elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradewind.commands import acting_ports
from tradewind.errors import BadInput, MissingData, RetryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

    from tradewind.wiring import Wiring

_KIND = "backfill_history"
_MOST_BARS = 20
_LOOK_EVERY_S = 1.0


def register(app: typer.Typer) -> None:
    app.command("history", rich_help_panel="Data")(history)


def history(
    job_id: Annotated[str | None, typer.Argument(metavar="[JOB]", help="A load's id; the newest by default.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Load from here on, such as 2024-01-01 (UTC).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Excluded; now by default.")] = None,
    symbols: Annotated[
        list[str] | None, typer.Option("--symbol", help="One or more; the configured by default.")
    ] = None,
    timeframes: Annotated[list[str] | None, typer.Option("--timeframe", help="15m and 1h by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the load's row at the end; without bars.")] = False,
) -> None:
    """Load history from the exchange (with --from), or watch the load that Airflow or the API started.

    A load that was interrupted carries on under its id: what is committed is not fetched again.
    """
    with acting_ports(quietly=as_json) as wiring, _bars(hidden=as_json) as show:
        if start is None:
            row = _watch(wiring, job_id or wiring.market_store.newest_job(_KIND), show)
        else:
            row = _load(wiring, job_id, _moment(start), end, symbols, timeframes, show)
    progress = row["progress"]
    if as_json:
        print(json.dumps({"job_id": row["job_id"], "state": row["state"], "error": row["error"], **progress}))
    else:
        print(f"{row['job_id']}: {row['state']}, {progress['rows_seen']:,} bars, {progress['rows_new']:,} of them new")
    if row["state"] == "failed":
        raise BadInput(row["error"] or f"the load {row['job_id']} failed: see the log of {_KIND}")


def _load(
    wiring: Wiring,
    job_id: str | None,
    start: datetime,
    end: str | None,
    symbols: list[str] | None,
    timeframes: list[str] | None,
    show: Callable[[Mapping[str, Any]], None],
) -> Mapping[str, Any]:
    from tradewind.jobs.fetching import collected_symbols
    from tradewind.jobs.filling import TIMEFRAMES
    from tradewind.jobs.market import backfill_history

    job_id = job_id or f"history__{datetime.now(UTC):%Y%m%dT%H%M%S}"
    until = wiring.clock.now() if end is None else _moment(end)
    wanted = tuple(symbols or collected_symbols(wiring)), tuple(timeframes or TIMEFRAMES)
    try:
        backfill_history(wiring, job_id, *wanted, start, until, progress=show)
    except (RetryError, KeyboardInterrupt):
        print(f"carry on with: ./tradewind history {job_id} --from {start:%Y-%m-%d}", file=sys.stderr)
        raise
    return _row(wiring, job_id)


def _watch(wiring: Wiring, job_id: str | None, show: Callable[[Mapping[str, Any]], None]) -> Mapping[str, Any]:
    if job_id is None:
        raise MissingData("no history was ever loaded here: start a load with --from, or the DAG backfill_history")
    while True:
        row = _row(wiring, job_id)
        show(row)
        if row["state"] in ("done", "failed"):
            return row
        time.sleep(_LOOK_EVERY_S)


def _row(wiring: Wiring, job_id: str) -> Mapping[str, Any]:
    row = wiring.market_store.job(job_id)
    if row is None:
        raise BadInput(f"there is no job {job_id}")
    return row


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is no date; write it as 2024-01-31 or 2024-01-31T14:15") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@contextmanager
def _bars(*, hidden: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Progress bars, one a series and one for all, fed with a job's rows."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    tasks: dict[str, Any] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=Console(stderr=True), disable=hidden) as bars:

        def show(row: Mapping[str, Any]) -> None:
            progress = row["progress"]
            series = progress["series"]
            if len(series) <= _MOST_BARS:
                for name, counts in series.items():
                    _advance(bars, tasks, name, counts, f"{counts['rows_new']:,} new")
            eta_s = progress["eta_s"]
            left = "" if eta_s is None else f", {int(eta_s // 60)}:{int(eta_s % 60):02d} left"
            _advance(bars, tasks, f"{len(series)} series", progress, f"{progress['rows_seen']:,} bars{left}")

        yield show


def _advance(bars: Progress, tasks: dict[str, Any], name: str, counts: Mapping[str, Any], words: str) -> None:
    if name not in tasks:
        tasks[name] = bars.add_task(name, total=counts["expected_bars"], words=words)
    bars.update(tasks[name], total=counts["expected_bars"], completed=counts["done_bars"], words=words)
