"""`./tradewind test`: the test suite."""

from __future__ import annotations

import os
import sys

import typer


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Development",
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    )(test)


def test(context: typer.Context) -> None:
    """Run the test suite; arguments are pytest's, for example: test tests/core -k regime."""
    from tradewind.settings import PROJECT_DIR

    os.chdir(PROJECT_DIR)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *context.args])
