"""`./tradewind models …`: look at versions, change the champion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradewind.commands import acting_ports

if TYPE_CHECKING:
    from rich.table import Table

models_app = typer.Typer(name="models", help="Model versions: list, show, promote, roll back.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the group `models`."""
    app.add_typer(models_app)


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, default=str))


@models_app.command("list")
def list_models(as_json: Json = False) -> None:
    """All versions, newest first, with their state and gates."""
    from rich.console import Console

    with acting_ports(quietly=as_json) as ports:
        versions = ports.model_store.versions()
    if as_json:
        _print_json([{k: v for k, v in row.items() if k != "manifest"} for row in versions])
        return
    if not versions:
        typer.echo("no model yet: ./tradewind demo trains one, or start the DAG retrain_models")
        return
    Console().print(_versions_table(versions))


def _versions_table(versions: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("version", "state", "data until", "log-loss gain", "expectancy R", "trades", "gates")
    for row in versions:
        promotion = row["manifest"].get("metrics", {}).get("promotion", {})
        pooled, trades = promotion.get("pooled", {}), promotion.get("trades", {})
        gates = " ".join(f"{'✓' if gate['passed'] else '✗'} {gate['gate']}" for gate in row["gates"])
        table.add_row(
            row["version"],
            row["state"],
            f"{row['trained_until']:%Y-%m-%d %H:%M}",
            _number(pooled.get("log_loss_gain"), 5),
            _number(trades.get("expectancy_r"), 3),
            str(trades.get("trades", "")),
            gates,
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


@models_app.command("show")
def show_model(
    version: str,
    report: Annotated[Path | None, typer.Option(help="Write the report with its plots there, one HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """One version: windows, scores, gates with their numbers, and its history."""
    with acting_ports(quietly=as_json) as ports:
        row = ports.model_store.version(version)
    if report is not None:
        _write_report(report, row)
    if as_json:
        _print_json(row)
        return
    manifest = row["manifest"]
    typer.echo(f"{row['version']}  {row['state']}")
    typer.echo(f"data {row['trained_from']:%Y-%m-%d} to {row['trained_until']:%Y-%m-%d}, files {row['artifact_url']}")
    for family, about in manifest["families"].items():
        typer.echo(f"{family}: {about['rows']} rows, rounds {about['rounds']}, failed {about['failures'] or 'none'}")
    _print_gates(row["gates"])
    for event in row["events"]:
        typer.echo(f"{event['at']:%Y-%m-%d %H:%M}  {event['event']} by {event['actor']}")


def _write_report(path: Path, row: dict[str, Any]) -> None:
    from tradewind.backtest.model_report import write_model_report

    write_model_report(path, row)
    typer.echo(f"report: {path.absolute()}", err=True)


@models_app.command("validate")
def validate_models(
    candles: Annotated[Path, typer.Option(help="Candle files named SOL_USDT-15m.parquet.")],
    symbols: Annotated[str, typer.Option(help="Comma-separated; by default every file's.")] = "",
    report: Annotated[Path | None, typer.Option(help="Write the report with its plots there, one HTML file.")] = None,
    folds: Annotated[int, typer.Option(min=0, help="Walk-forward folds.")] = 5,
    trials: Annotated[int, typer.Option(min=0, help="Settings to try for each library; 0 keeps the shipped.")] = 0,
    seed: Annotated[int, typer.Option(help="Of every fit and resampling.")] = 7,
    as_json: Json = False,
) -> None:
    """Train on candle files and judge the result as a retraining would. Nothing is stored, no server is needed."""
    from tradewind.backtest.instruments import inferred_instrument
    from tradewind.commands.doctor import bars_of_files
    from tradewind.core.validation import TrainingParams
    from tradewind.jobs.challenger import Rival, make_challenger

    wanted = [symbol.strip() for symbol in symbols.split(",") if symbol.strip()]
    bars, params = bars_of_files(candles, wanted)

    instruments = {symbol: inferred_instrument(series, params) for symbol, series in bars.items()}
    training = TrainingParams(folds=folds, tuning_trials=trials, seed=seed)
    training = replace(training, fit=replace(training.fit, boosters=replace(training.fit.boosters, seed=seed)))
    challenger = make_challenger(
        bars, instruments, params, training, Rival(), say=lambda step: typer.echo(f"  {step}", err=True)
    )
    row: dict[str, Any] = {
        "version": challenger.version,
        "state": "not stored",
        "manifest": challenger.manifest,
        "gates": [
            {"gate": gate.name, "passed": gate.passed, "numbers": dict(gate.numbers)} for gate in challenger.gates
        ],
        "events": [],
    }
    if report is not None:
        _write_report(report, row)
    if as_json:
        _print_json(row)
        return
    walked = challenger.manifest["metrics"]["walk_forward"].get("pooled")
    if walked:
        _print_scores("folds", walked)
    _print_scores("promotion window", challenger.pooled)
    _print_gates(row["gates"])


def _print_scores(title: str, scores: Mapping[str, Any]) -> None:
    typer.echo(f"{title}: log-loss {scores['log_loss']:.5f} against the base rate's {scores['base_log_loss']:.5f}")
    for label, one in scores["classes"].items():
        typer.echo(
            f"  {label}: AUC {one['auc']:.3f}, calibration error {one['calibration_error']:.4f} (chance "
            f"{one['calibration_error_by_chance']:.4f}), resolution {one['resolution']:.5f} (chance "
            f"{one['resolution_by_chance']:.5f})"
        )


def _print_gates(gates: list[dict[str, Any]]) -> None:
    for gate in gates:
        typer.echo(f"{'passed' if gate['passed'] else 'FAILED'}  {gate['gate']}  {gate['numbers']}")


@models_app.command("promote")
def promote_model(version: str, actor: Annotated[str, typer.Option(help="Who decides this.")] = "operator") -> None:
    """Make a version that passed its gates the champion."""
    with acting_ports() as ports:
        ports.model_store.promote(version, actor, ports.clock.now())
    typer.echo(f"{version} is the champion")


@models_app.command("rollback")
def roll_back_model(actor: Annotated[str, typer.Option(help="Who decides this.")] = "operator") -> None:
    """Bring back the champion before the present one."""
    with acting_ports() as ports:
        version = ports.model_store.roll_back(actor, ports.clock.now())
    typer.echo(f"{version} is the champion again")
