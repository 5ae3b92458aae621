"""`./tradewind bench`: how fast it is and how much memory it takes, each figure beside its bound."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tradewind.errors import BadInput

if TYPE_CHECKING:
    from tradewind.bench.rows import Row

_SUBJECTS = ("data", "exchange", "models", "trading", "backtest", "status")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Development")(bench)


def bench(
    subjects: Annotated[
        list[str] | None, typer.Argument(help=f"Any of {', '.join(_SUBJECTS)}; all by default.")
    ] = None,
    candles: Annotated[
        Path | None, typer.Option(help="Candle files named SOL_USDT-15m.parquet; the synthetic market by default.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the work: whether it runs, not how fast.")] = False,
    engines_python: Annotated[
        Path | None, typer.Option(help="A Python with backtesting and vectorbt, measured beside ours.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows there.")] = None,
) -> None:
    """Measure speed and memory on servers of its own; exit status 1 when a figure misses its bound."""
    from rich.console import Console

    from tradewind.bench.rows import BenchOptions

    chosen = _chosen(subjects)
    console = Console(stderr=True)
    options = BenchOptions(
        candles_dir=candles.absolute() if candles else None,
        quick=quick,
        engines_python=engines_python,
        say=lambda line: console.print(f"  {line}"),
    )
    rows: list[Row] = []
    for subject in chosen:
        console.print(f"bench {subject}")
        rows += _measure(subject, options)
    _print_table(rows)
    if json_file is not None:
        json_file.write_text(json.dumps({"rows": [row.as_json() for row in rows]}, indent=1) + "\n", encoding="utf-8")
    if not quick and not all(row.holds for row in rows):
        raise typer.Exit(1)


def _chosen(subjects: Iterable[str] | None) -> list[str]:
    """The subjects that were asked for. Raises BadInput for one that does not exist."""
    wanted = list(subjects or _SUBJECTS)
    unknown = [subject for subject in wanted if subject not in _SUBJECTS]
    if unknown:
        raise BadInput(f"no bench is named {', '.join(unknown)}: choose from {', '.join(_SUBJECTS)}")
    return wanted


def _measure(subject: str, options: object) -> list[Row]:
    import importlib

    rows: list[Row] = importlib.import_module(f"tradewind.bench.{subject}").measure(options)
    return rows


def _print_table(rows: Iterable[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("bench", "what", "value", "unit", "bound", "holds")
    for row in rows:
        bound = "" if row.bound is None else f"{row.sense} {row.bound:g}"
        spread = "" if row.spread is None else f" ({row.spread[0]:.4g} to {row.spread[1]:.4g})"
        holds = "" if row.bound is None else ("yes" if row.holds else "NO")
        table.add_row(row.bench, row.what, f"{row.value:.4g}{spread}", row.unit, bound, holds)
    Console().print(table)
