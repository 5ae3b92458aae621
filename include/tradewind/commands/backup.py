"""`backup` and `restore`: the whole deployment in one file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tradewind.commands import acting_settings

if TYPE_CHECKING:
    from tradewind.stack.backup_file import Outcome

AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
_PANEL = "The stack"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=_PANEL)(backup)
    app.command(rich_help_panel=_PANEL)(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="A new file; only you may read it.")], as_json: AsJson = False
) -> None:
    """Write ledger, decisions, latch, candles, models and the paper exchange into one file. Trading goes on."""
    from tradewind.stack.backup import backup as write

    done = write(acting_settings(quietly=as_json), file)
    _print(done, f"{file}: {done.bytes / 1e6:.1f} MB, {_rows(done)}.", as_json)


def restore(file: Annotated[Path, typer.Argument(help="What backup wrote.")], as_json: AsJson = False) -> None:
    """Bring a deployment back into an empty home. It starts stopped: look at it, then ./tradewind resume."""
    from tradewind.settings import load_settings
    from tradewind.stack.restore import restore as bring_back

    settings = load_settings()  # what is brought back is never what is up
    typer.echo(f"mode {settings.mode}, account {settings.account_id} (into {settings.home_dir})", err=as_json)
    done = bring_back(file)
    words = f"Restored the backup of {done.created_at}: {_rows(done)}."
    if done.migrations:
        words += f" Its schema was brought forward by {', '.join(done.migrations)}."
    if done.left_out:
        words += f"\nLeft out, as this code knows no such table: {', '.join(done.left_out)}."
    _print(done, f"{words}\nEntries are stopped. ./tradewind up, look at it, then ./tradewind resume.", as_json)


def _rows(done: Outcome) -> str:
    return ", ".join(f"{count} {name}" for name, count in done.rows.items())


def _print(done: Outcome, words: str, as_json: bool) -> None:
    typer.echo(json.dumps(asdict(done)) if as_json else words)
