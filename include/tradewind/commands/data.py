"""`import` and `gaps`: candles from files into the database, and what is missing there."""

from __future__ import annotations

import json
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tradewind.commands import acting_ports
from tradewind.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tradewind.core.ports import MarketStore
    from tradewind.jobs.importing import CandleFile, Imported

_SHOWN_REFUSALS = 10


def register(app: typer.Typer) -> None:
    app.command("import", rich_help_panel="Data")(import_files)
    app.command("gaps", rich_help_panel="Data")(show_gaps)


def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(help="Parquet or CSV, Binance's kline CSV too, also zipped; or folders of such files."),
    ],
    symbol: Annotated[str | None, typer.Option(help="Such as BTC/USDT; else what SOL_USDT-15m.parquet tells.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Such as 15m or 1h; else by the file's name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Store candles from files. Stored bars stay as they are; impossible rows are refused by their number."""
    from tradewind.core.timeframes import TIMEFRAME_MS

    if timeframe is not None and timeframe not in TIMEFRAME_MS:
        raise BadInput(f"--timeframe {timeframe} is unknown; use one of {', '.join(TIMEFRAME_MS)}")
    if symbol is not None and "/" not in symbol:
        raise BadInput(f"--symbol {symbol} is no pair; write it as BTC/USDT")
    sources = _sources(files, symbol, timeframe)
    with acting_ports(quietly=as_json) as wiring:
        if wiring.settings.market == "synthetic":
            print("note: this deployment's market is synthetic; what is imported stands beside it", file=sys.stderr)
        job_id = f"import__{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
        outcomes = _import_with_progress(wiring.market_store, job_id, sources)
    refused = sum(outcome.refused_rows for outcome in outcomes)
    if as_json:
        rows = [
            {
                "file": str(outcome.file), "symbol": source.symbol, "timeframe": source.timeframe,
                "rows": outcome.rows, "new": outcome.new, "corrections": outcome.corrections,
                "unfinished": outcome.unfinished, "refused": outcome.refused_rows,
            }
            for source, outcome in zip(sources, outcomes, strict=True)
        ]  # fmt: skip
        print(json.dumps({"job_id": job_id, "files": rows}))
    else:
        for outcome in outcomes:
            kept = outcome.rows - outcome.refused_rows - outcome.unfinished
            print(
                f"{outcome.file}: {outcome.rows:,} rows, {outcome.new:,} new, {kept - outcome.new:,} stored before, "
                f"{outcome.corrections:,} differing, {outcome.refused_rows:,} refused"
            )
    for outcome in outcomes:
        for row in outcome.refused[:_SHOWN_REFUSALS]:
            print(f"{outcome.file} row {row.row}: {row.reason}", file=sys.stderr)
        if outcome.refused_rows > _SHOWN_REFUSALS:
            print(f"{outcome.file}: and {outcome.refused_rows - _SHOWN_REFUSALS:,} more rows", file=sys.stderr)
    if refused:
        raise BadInput(f"{refused:,} rows cannot be true and were refused; all others are stored")


def show_gaps(
    symbols: Annotated[list[str] | None, typer.Option("--symbol", help="One or more; else every stored one.")] = None,
    to_now: Annotated[bool, typer.Option("--to-now", help="Also what is missing after the newest stored bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the gaps as JSON.")] = False,
) -> None:
    """List the missing bars of every stored series, and which of them the exchange is known not to have."""
    from tradewind.core.timeframes import from_ms
    from tradewind.jobs.importing import list_gaps

    with acting_ports(quietly=as_json) as wiring:
        until = wiring.clock.now() if to_now else None
        gaps = list_gaps(wiring.market_store, wiring.known_empty, symbols, until)
    if as_json:
        rows = [
            {
                "symbol": found.gap.symbol, "timeframe": found.gap.timeframe,
                "from": from_ms(found.gap.start_ms).isoformat(), "to": from_ms(found.gap.end_ms).isoformat(),
                "bars": found.bars, "known_empty": found.known_empty,
            }
            for found in gaps
        ]  # fmt: skip
        print(json.dumps({"gaps": rows, "missing_bars": sum(found.bars for found in gaps)}))
        return
    if not gaps:
        print("No bar is missing.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("series", "from", "to (excluded)", "bars", "known empty", title=f"{len(gaps)} gaps")
    for found in gaps:
        start, end = from_ms(found.gap.start_ms), from_ms(found.gap.end_ms)
        series = f"{found.gap.symbol} {found.gap.timeframe}"
        table.add_row(series, f"{start:%F %R}", f"{end:%F %R}", str(found.bars), "yes" if found.known_empty else "no")
    Console().print(table)


def _sources(paths: Sequence[Path], symbol: str | None, timeframe: str | None) -> list[CandleFile]:
    """The files, a folder's in the order of their names. Raises BadInput for one of which it is not known what it
    holds, before anything is stored."""
    from tradewind.adapters.candle_files import SUFFIXES, count_rows, read_candle_file, series_named
    from tradewind.jobs.importing import CandleFile

    files: list[Path] = []
    for path in paths:
        inside = sorted(file for file in path.glob("*") if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise BadInput(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
        files += inside
    sources = []
    for file in files:
        if not file.is_file():
            raise BadInput(f"{file} is no file")
        named = (symbol, timeframe) if symbol and timeframe else series_named(file)
        if named is None:
            raise BadInput(
                f"{file}: its name does not tell what it holds; name it like SOL_USDT-15m.parquet, "
                "or give --symbol and --timeframe"
            )
        series = (symbol or named[0], timeframe or named[1])
        sources.append(CandleFile(file, *series, count_rows(file), read_candle_file(file, *series)))
    return sources


def _import_with_progress(store: MarketStore, job_id: str, sources: Sequence[CandleFile]) -> list[Imported]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from tradewind.jobs.importing import import_files

    with Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} rows"), TimeRemainingColumn(), console=Console(stderr=True), transient=True,
    ) as bars:  # fmt: skip
        tasks = {source.file: bars.add_task(source.file.name, total=source.rows or None) for source in sources}
        return import_files(
            store, job_id, sources, datetime.now(UTC), progress=lambda file, rows: bars.advance(tasks[file], rows)
        )
