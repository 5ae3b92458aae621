"""The stack's own commands: up, down, status, logs, airflow, paper, secrets."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from tradewind.commands import acting_settings
from tradewind.errors import BadInput, RetryError, StackFailed, TradewindError

if TYPE_CHECKING:
    from tradewind.core.params import StrategyParams
    from tradewind.settings import Settings
    from tradewind.stack import Stack

_PANEL = "The stack"
_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

secrets_app = typer.Typer(help="The deployment's own secrets.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=_PANEL)(up)
    app.command(rich_help_panel=_PANEL)(down)
    app.command(rich_help_panel=_PANEL)(status)
    app.command(rich_help_panel=_PANEL)(logs)
    app.command(rich_help_panel=_PANEL, context_settings=_PASS_THROUGH, add_help_option=False)(airflow)
    app.command(rich_help_panel=_PANEL)(paper)
    app.add_typer(secrets_app, name="secrets", rich_help_panel=_PANEL)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all is ready; ./tradewind down ends it.")
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart what runs our code in the stack that is up.")
    ] = False,
    as_daemon: Annotated[bool, typer.Option("--as-daemon", hidden=True)] = False,
    fresh: Annotated[bool, typer.Option("--fresh", hidden=True)] = False,
) -> None:
    """Start the stack and keep it running until Ctrl-C."""
    from tradewind.adapters.strategy_file import load_params
    from tradewind.settings import STRATEGY_FILE
    from tradewind.stack import daemon, with_secrets
    from tradewind.stack.progress import LiveReporter
    from tradewind.stack.weaknesses import weaknesses

    if reload:
        settings = acting_settings()
        load_params(STRATEGY_FILE, settings.default_leader)
        daemon.reload(settings)
        print("The processes that run Tradewind's code were restarted.")
        return
    settings = with_secrets()
    params = load_params(STRATEGY_FILE, settings.default_leader)
    _require_safe_key(settings)
    _tell_missing_markets(settings, params)
    if as_daemon:
        daemon.serve_detached(settings, fresh=fresh)
        return
    print(f"mode {settings.mode}, account {settings.account_id} (in {settings.home_dir})")
    for weakness in weaknesses(settings):
        print(weakness, file=sys.stderr)
    if detach:
        daemon.detach(settings)
        _print_addresses(settings)
    else:
        with LiveReporter() as reporter:
            daemon.serve(settings, reporter, on_ready=lambda stack: _announce(stack, reporter))


def _require_safe_key(settings: Settings) -> None:
    """Refuse to start live with a key that may withdraw. An exchange that does not tell, or not now, is told about."""
    if settings.mode != "live":
        return
    from tradewind.adapters.ccxt_client import client_from_settings
    from tradewind.adapters.ccxt_key_rights import key_rights

    try:
        rights = key_rights(client_from_settings(settings, None))
    except RetryError as error:
        print(f"the key's rights could not be asked for: {error}; entries wait until they are known", file=sys.stderr)
        return
    if rights.can_withdraw:
        raise BadInput(
            "the API key may withdraw or transfer: make one that may read and trade alone, and delete this one"
        )
    if rights.can_withdraw is None:
        print("the exchange does not tell whether this key may withdraw: see to it that it may not", file=sys.stderr)


def _tell_missing_markets(settings: Settings, params: StrategyParams) -> None:
    """Say which markets a real exchange does not list. No reason not to start: what is held must be managed."""
    if settings.is_paper_exchange:
        return
    from tradewind.jobs.fetching import market_symbols
    from tradewind.wiring import Wiring

    with closing(Wiring(settings, params)) as wiring:
        wanted = market_symbols(wiring)
        try:
            listed = wiring.market_data.instruments(wanted)
        except TradewindError as error:
            print(f"the exchange's markets could not be asked for: {error}", file=sys.stderr)
            return
    if params.leader_symbol not in listed:
        print(
            f"nothing can be decided: {settings.exchange} does not list {params.leader_symbol}, the market leader; "
            "name another leader_symbol in include/strategy.toml",
            file=sys.stderr,
        )
    if absent := [symbol for symbol in settings.symbols if symbol not in listed]:
        print(f"{settings.exchange} does not list {', '.join(absent)}: nothing is entered there", file=sys.stderr)


def down() -> None:
    """Stop the stack; returns when nothing of it is left."""
    from tradewind import stack
    from tradewind.stack.running import find_target

    # It ends what runs in this home, whatever else this shell says.
    target = find_target(whatever_the_shell_says=True)
    print(target.words)
    print("The stack is down." if stack.down(target.settings) else "No stack was up.")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show the stack's processes, ports and health, and the trading state. Exit status 0 when all of it is well."""
    from tradewind.stack.report import print_report, stack_report

    report = stack_report(acting_settings(quietly=as_json))
    if as_json:
        print(json.dumps(report, indent=2, default=str))
    else:
        print_report(report)
    if not report["healthy"]:
        raise typer.Exit(1)


def logs(
    name: Annotated[str | None, typer.Argument(help="A service; without it, the list of them.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
) -> None:
    """Show the log of one of the stack's services."""
    from tradewind.stack.running import find_target
    from tradewind.stack.services import log_dir

    directory = log_dir(find_target(whatever_the_shell_says=True).settings)
    found = {path.stem: path for path in sorted(directory.glob("*.log"))}
    if name is None:
        print("\n".join(found) or f"There are no logs in {directory} yet.")
        return
    if name not in found:
        raise BadInput(f"there is no log of {name!r}; there are: {', '.join(found) or 'none yet'}")
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), str(found[name])])


def airflow(context: typer.Context) -> None:
    """Run Airflow's own command against the stack, for example: airflow dags list."""
    from tradewind.settings import home_of_shell
    from tradewind.stack.environment import airflow_environment, prepare_airflow_home
    from tradewind.stack.secrets import init_secrets

    init_secrets(home_of_shell())
    settings = acting_settings(quietly=True)
    prepare_airflow_home(settings)
    environment = airflow_environment(settings)
    # For a terminal, and as narrow or wide as that is.
    environment |= {name: os.environ[name] for name in ("TERM", "COLUMNS") if name in os.environ}
    environment |= {"AIRFLOW__LOGGING__JSON_LOGS": "False", "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *context.args], environment)


def paper(
    port: Annotated[int | None, typer.Option(help="Where it listens on 127.0.0.1.", min=1, max=65535)] = None,
    market: Annotated[str, typer.Option(help="synthetic, replay:DIR with candle files, or public.")] = "synthetic",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON on a terminal too.")] = False,
) -> None:
    """Run the paper exchange alone, with a fresh account, until Ctrl-C."""
    from tradewind.stack.paper import running_paper_exchange

    with running_paper_exchange(port=port, market=market) as account:
        if as_json or not sys.stdout.isatty():  # whoever reads a pipe is a program
            print(json.dumps(account), flush=True)
        else:
            for name, value in account.items():
                print(f"{name:10s} {value}", flush=True)
        _wait_for_signal()


@secrets_app.command("init")
def init_secrets() -> None:
    """Make the secrets that are missing, and docker-compose's files of them. Existing ones are kept."""
    from tradewind.settings import load_settings
    from tradewind.stack import secrets
    from tradewind.stack.compose_secrets import DIRECTORY, init_compose_secrets

    settings = load_settings()
    made = secrets.init_secrets(settings.home_dir)
    print(f"{len(made)} secrets made in {settings.secrets_dir}" + (f": {', '.join(made)}" if made else ""))
    files = init_compose_secrets(settings)
    print(f"{len(files)} files written in {settings.home_dir / DIRECTORY}, for docker-compose.yaml")


def _announce(stack: Stack, reporter: object) -> None:
    from tradewind.stack.progress import LiveReporter

    assert isinstance(reporter, LiveReporter)
    reporter.finish()
    _print_addresses(stack.settings)
    print("Ctrl-C stops it.", flush=True)


def _print_addresses(settings: Settings) -> None:
    from tradewind.adapters.login_tickets import login_link
    from tradewind.stack.state import StackState, state_file

    state = StackState.load(state_file(settings.home_dir))
    if state is None:
        raise StackFailed("the stack ended right after its start: see ./tradewind logs supervisor")
    for name, url in state.urls.items():
        print(f"{name:10s} {url}")
    if "status" in state.urls:
        link = login_link(state.urls["status"], settings.api_session_key.get_secret_value())
        print(f"{'':10s} {link} (signs in once, within ten minutes)")
    print(f"{'login':10s} {settings.airflow_username}, password in {settings.secrets_dir}/tradewind_airflow_password")


def _wait_for_signal() -> None:
    import threading

    threading.Event().wait()
