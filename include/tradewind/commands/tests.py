"""`./tradewind test`: the test suite."""

from __future__ import annotations

import os
import sys

import typer

# Files stay together, for what they share; in the order of collection (tests/conftest.py), the longest first.
_WHOLE_SUITE = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


def register(app: typer.Typer) -> None:
    app.command(
        rich_help_panel="Development",
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    )(test)


def test(context: typer.Context) -> None:
    """Run the test suite; arguments are pytest's, for example: test tests/core -k regime.

    Without arguments all of it runs, in two processes: the tests mostly wait for servers.
    """
    from tradewind.settings import PROJECT_DIR

    os.chdir(PROJECT_DIR)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *(context.args or _WHOLE_SUITE)])
