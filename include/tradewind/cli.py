"""`./tradewind`: the one command.

Command modules import only the standard library, Typer and our errors at their top, and everything heavy inside their
functions, so that `./tradewind --help` answers at once.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer

from tradewind import commands
from tradewind.errors import TradewindError

app = typer.Typer(
    name="tradewind",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def prepare() -> None:
    """A crypto trading system that Apache Airflow orchestrates."""
    from tradewind.adapters.logs import log_beside_output

    log_beside_output()


def _register() -> None:
    """Let every module of `tradewind.commands` add its commands: each has a `register(app)`."""
    for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda module: module.name):
        importlib.import_module(f"{commands.__name__}.{module.name}").register(app)


def main() -> None:
    """Run the command; an error of ours is told in one line, and the exit status is 0 only when it worked."""
    _register()
    try:
        app(prog_name="tradewind")
    except TradewindError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(141) from None


if __name__ == "__main__":
    main()
