"""`./tradewind models …` and `./tradewind doctor features`: look at versions, change the champion, check for leaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tradewind.wiring import Wiring

models_app = typer.Typer(name="models", help="Model versions: list, show, promote, roll back.", no_args_is_help=True)
doctor_app = typer.Typer(name="doctor", help="Check your own data and connections.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the groups `models` and `doctor`."""
    app.add_typer(models_app)
    app.add_typer(doctor_app)


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


@doctor_app.command("features")
def doctor_features(
    rows: Annotated[int, typer.Option(help="Random moments to check in each symbol.")] = 50,
    days: Annotated[int, typer.Option(help="How much stored history to read.")] = 120,
    seed: Annotated[int, typer.Option(help="Chooses the moments.")] = 7,
    as_json: Json = False,
) -> None:
    """Look for features that know the future, or that a live window cannot reproduce, in the stored bars."""
    from tradewind.core.leak_checks import CHECKS, sample_rows
    from tradewind.core.timeframes import to_ms

    wiring = _wiring()
    params = wiring.params
    wanted = tuple(dict.fromkeys((*wiring.symbols, params.leader_symbol)))
    bars = wiring.market_store.read_last_bars(wanted, "15m", to_ms(wiring.clock.now()), days * 96)
    wiring.close()
    leader = bars[params.leader_symbol]
    found: list[dict[str, Any]] = []
    checked = 0
    for symbol in wiring.symbols:
        common = bars[symbol].slice(
            0, int((bars[symbol].open_time_ms <= leader.open_time_ms[-1:].max(initial=0)).sum())
        )
        chosen = sample_rows(common, rows, seed)
        checked += len(chosen)
        for check in CHECKS:
            # The future check computes everything anew each time, so a few moments are enough there.
            some = chosen[:: max(len(chosen) // 5, 1)] if check is CHECKS[2] else chosen
            found += [{"symbol": symbol, **_leak(leak)} for leak in check(common, leader, params, some)]
    if as_json:
        _print_json({"moments": checked, "leaks": found})
    elif not checked:
        typer.echo("not enough stored history to check: load some months first (backfill_history)")
    else:
        for leak in found[:40]:
            typer.echo(
                f"{leak['symbol']} {leak['feature']}: {leak['check']} {leak['whole']!r} against {leak['part']!r}"
            )
        typer.echo(f"{checked} moments checked, {len(found)} leaks")
    if found or not checked:
        raise typer.Exit(1)


def _leak(leak: Any) -> dict[str, Any]:
    return {
        "check": leak.check,
        "feature": leak.feature,
        "open_time_ms": leak.open_time_ms,
        "whole": leak.whole,
        "part": leak.part,
    }
