"""`./tradewind models …`: look at versions, change the champion."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tradewind.wiring import Wiring

models_app = typer.Typer(name="models", help="Model versions: list, show, promote, roll back.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the group `models`."""
    app.add_typer(models_app)


def _wiring() -> Wiring:
    from tradewind.settings import load_settings
    from tradewind.wiring import Wiring

    return Wiring(load_settings())


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, default=str))


@models_app.command("list")
def list_models(as_json: Json = False) -> None:
    """All versions, newest first, with their state and gates."""
    from rich.console import Console

    wiring = _wiring()
    versions = wiring.model_store.versions()
    wiring.close()
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
def show_model(version: str, as_json: Json = False) -> None:
    """One version: windows, scores, gates with their numbers, and its history."""
    wiring = _wiring()
    row = wiring.model_store.version(version)
    wiring.close()
    if as_json:
        _print_json(row)
        return
    manifest = row["manifest"]
    typer.echo(f"{row['version']}  {row['state']}")
    typer.echo(f"data {row['trained_from']:%Y-%m-%d} to {row['trained_until']:%Y-%m-%d}, files {row['artifact_url']}")
    for family, about in manifest["families"].items():
        typer.echo(f"{family}: {about['rows']} rows, rounds {about['rounds']}, failed {about['failures'] or 'none'}")
    for gate in row["gates"]:
        typer.echo(f"{'passed' if gate['passed'] else 'FAILED'}  {gate['gate']}  {gate['numbers']}")
    for event in row["events"]:
        typer.echo(f"{event['at']:%Y-%m-%d %H:%M}  {event['event']} by {event['actor']}")


@models_app.command("promote")
def promote_model(version: str, actor: Annotated[str, typer.Option(help="Who decides this.")] = "operator") -> None:
    """Make a version that passed its gates the champion."""
    wiring = _wiring()
    wiring.model_store.promote(version, actor, wiring.clock.now())
    wiring.close()
    typer.echo(f"{version} is the champion")


@models_app.command("rollback")
def roll_back_model(actor: Annotated[str, typer.Option(help="Who decides this.")] = "operator") -> None:
    """Bring back the champion before the present one."""
    wiring = _wiring()
    version = wiring.model_store.roll_back(actor, wiring.clock.now())
    wiring.close()
    typer.echo(f"{version} is the champion again")
