"""`./tradewind demo`: the whole job once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    cycles: Annotated[int, typer.Option(min=1, max=200, help="At least so many bars through the real DAGs.")] = 8,
    crash: Annotated[bool, typer.Option(help="End with a crash that trips the circuit breaker.")] = True,
    structure: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much there is to find in the market; 0 is nothing.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The synthetic market's seed.")] = 7,
    months: Annotated[int, typer.Option(min=3, max=24, help="Months of history to load and train on.")] = 12,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up; ./tradewind down ends it.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary there.")] = None,
) -> None:
    """Do the whole job once, on a synthetic market with paper money: collect, repair, train, trade, crash, report."""
    from tradewind.demo.run import DemoOptions
    from tradewind.demo.stages import run_demo

    options = DemoOptions(
        cycles=cycles, crash=crash, keep=keep, months=months, json_path=json_file.absolute() if json_file else None
    )
    run_demo(options, seed=seed, structure_frac=structure)
