"""`./tradewind parity`: what this account did against its own replay."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from tradewind.commands import acting_ports
from tradewind.errors import BadInput


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Research")(parity)


def parity(
    since: Annotated[str, typer.Option(help="First bar, UTC: 2026-01-05 or 2026-01-05T12:00.")],
    until: Annotated[str, typer.Option(help="End, UTC, not included; now by default.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Replay a stored paper or live period over the same bars and models, and compare every decision, order and fill.

    Exit status 1 when a difference has no known cause. The result is stored, as the nightly one is.
    """
    from tradewind.jobs.parity import check_parity

    first, last = _moment(since, "--since"), _moment(until, "--until") if until else None
    with acting_ports(quietly=as_json) as ports:
        result = check_parity(ports, first, last, matching=ports.matching)
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        _print(result)
    if result["unexplained"]:
        raise typer.Exit(1)


def _moment(text: str, option: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{option} {text!r} is no date; write 2026-01-05 or 2026-01-05T12:00") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{result['since']} to {result['until']}: {result['cycles']} cycles, {result['decisions']} decisions, "
        f"{result['orders']} orders, {result['fills']} fills"
    )
    console.print(f"{result['differences']} differences, {result['unexplained']} without a known cause")
    if not result["shown"]:
        return
    table = Table("what", "field", "live", "replay", "cause")
    for row in result["shown"]:
        table.add_row(
            f"{row['kind']} {row['subject']}", row["field"], row["live"], row["replay"], row["cause"] or "unexplained"
        )
    console.print(table)
