"""`./tradewind study`: sweep the strategy's thresholds, and hear how much of the best is luck."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tradewind.commands import acting_settings, ports_of
from tradewind.commands.backtest import moment_ms, wanted_symbols, warn


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Research")(study)


def study(
    name: Annotated[str, typer.Argument(help="The study's name; one that exists is resumed.")],
    symbols: Annotated[str, typer.Option(help="Comma-separated, such as BTC/USDT,ETH/USDT.")],
    trials: Annotated[int, typer.Option(min=1, help="Finished trials to reach in all.")] = 50,
    folds: Annotated[int, typer.Option(min=2, help="Purged folds that the sweep sees.")] = 5,
    start: Annotated[str, typer.Option("--from", help="First bar, UTC.")] = "",
    end: Annotated[str, typer.Option("--to", help="End, UTC, not included.")] = "",
    candles: Annotated[Path | None, typer.Option(help="Folder with SOL_USDT-15m.parquet; else the database.")] = None,
    rule: Annotated[str, typer.Option(help="A model-free rule as the signal: ema_cross.")] = "",
    models: Annotated[str, typer.Option(help="walk-forward, or champion (looks back).")] = "walk-forward",
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")] = None,
) -> None:
    """Sweep StrategyParams by Optuna over purged folds; every trial is stored, and a stopped study goes on.

    The report deflates the best by the number of trials, says how likely the choice is overfitted, and shows it on a
    hold-out that no trial has seen.
    """
    from rich.console import Console

    from tradewind.backtest.loading import inputs_of
    from tradewind.jobs.study import StudySettings, run_study

    wanted = wanted_symbols(symbols)
    console = Console(stderr=True)
    start_ms, end_ms = moment_ms(start, "--from", 0), moment_ms(end, "--to", 1 << 45)

    def step(words: str) -> None:
        console.print(f"  {words}")

    open_ports = partial(ports_of, acting_settings(), judging=True)
    made = inputs_of(rule, models, wanted, candles, open_ports, end_ms, step, warn=warn)
    first = max(int(series.bars.open_time_ms[0]) for series in made.series.values())
    last = max(int(series.bars.open_time_ms[-1]) for series in made.series.values()) + 900_000
    settings = StudySettings(
        wanted, max(start_ms, first), min(end_ms, last), folds, strategy_version=made.params.strategy_version
    )
    with open_ports() as ports:
        report = run_study(
            ports.study_store,
            ports.wall,
            name,
            made.series,
            made.params,
            settings,
            trials,
            models=made.spans,
            say=lambda trial: console.print(f"  trial {trial.number}: Sharpe {trial.value:+.2f} over the folds"),
        )
    _print(report)
    if as_json is not None:
        as_json.write_text(json.dumps(report, indent=1))


def _print(report: dict[str, Any]) -> None:
    best = report["best"]
    typer.echo(f"best of {report['trials']}: trial {best['trial']}, Sharpe {best['sharpe']:+.2f} over the folds")
    for name, value in best["params"].items():
        typer.echo(f"  {name} = {value:.4g}")
    typer.echo(f"chance that its Sharpe is no luck (deflated): {_percent(report['deflated_sharpe'])}")
    typer.echo(f"chance that the choice is overfitted: {_percent(report['overfitting_probability'])}")
    for words, outcome in (("hold-out", report["holdout"]), ("hold-out, unchanged", report["holdout_shipped"])):
        sharpe = "undefined" if outcome["sharpe"] is None else f"{outcome['sharpe']:+.2f}"
        typer.echo(f"{words}: {outcome['trades']} trades, {outcome['return_frac']:+.2%}, Sharpe {sharpe}")


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.0%}"
