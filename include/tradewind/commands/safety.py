"""What stops, closes, explains and opens: it works without Airflow, on PostgreSQL and the exchange alone."""

from __future__ import annotations

import getpass
import json
import time
from typing import Annotated, Any

import typer

from tradewind.commands import acting_ports
from tradewind.errors import BadInput, NotFlatYet

drill_app = typer.Typer(help="Rehearse what must work on the day it is needed.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
_LONGEST_PAUSE_S = 15.0


def register(app: typer.Typer) -> None:
    for command in (halt, resume, flatten, accept, adopt, write_off):
        app.command(rich_help_panel="Safety")(command)
    app.add_typer(drill_app, name="drill", rich_help_panel="Safety")


def halt(
    reason: Annotated[str, typer.Argument(help="Why, in words that make sense in a year.")], as_json: AsJson = False
) -> None:
    """Stop entries now. Open positions stay protected and managed."""
    from tradewind.jobs import safety

    with acting_ports(quietly=as_json, elsewhere=True) as ports:
        done = safety.halt(ports, reason, _actor())
    _print(
        ports.account,
        done,
        f"Entries are stopped ({done['mode']}): {done['reason']}. ./tradewind resume opens again.",
        as_json,
    )


def resume(
    reason: Annotated[str, typer.Option("--reason", help="What was looked at.")] = "resumed", as_json: AsJson = False
) -> None:
    """Open the latch, after checking that exchange and ledger agree and, after a breaker, that the account is flat."""
    from tradewind.jobs import safety

    with acting_ports(quietly=as_json, elsewhere=True) as ports:
        done = safety.resume(ports, _actor(), reason)
    _print(ports.account, done, f"Trading is {done['mode']}.", as_json)


def flatten(
    patience_s: Annotated[float, typer.Option("--patience-s", help="Try again for so many seconds.", min=0.0)] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Halt, sell everything that is ours at market, and verify that nothing is left."""
    from tradewind.jobs import safety

    with acting_ports(quietly=as_json, elsewhere=True) as ports:
        done = _until_flat(lambda: safety.flatten(ports, _actor()), patience_s)
    _print(
        ports.account,
        done,
        f"Flat, verified after {done['seconds']:.1f} s. Trading stays halted: ./tradewind resume.",
        as_json,
    )


def accept(
    asset: Annotated[str, typer.Argument(help="What the account holds more or less of than the ledger explains.")],
    reason: Annotated[str, typer.Option("--reason", help="Where it went or came from: kept in the audit log.")],
    as_json: AsJson = False,
) -> None:
    """Explain a difference between account and ledger: a deposit, a withdrawal, a sale of your own."""
    from tradewind.jobs.accepting import accept_difference

    with acting_ports(quietly=as_json) as ports:
        done = accept_difference(ports, asset.upper(), reason, _actor())
    rest = "Exchange and ledger agree." if done["clean"] else "Other differences stand: ./tradewind status."
    _print(ports.account, done, f"{done['quantity']} {done['asset']} accepted. {rest}", as_json)


def adopt(
    symbol: Annotated[str, typer.Argument(help="The market in which you traded by hand, such as ETH/USDT.")],
    stop_frac: Annotated[
        float, typer.Option("--stop-frac", help="How far the stop lies from the price paid, as a share of it.")
    ],
    as_json: AsJson = False,
) -> None:
    """Put what you opened by hand under a stop and a target, as a position that is managed from now on."""
    from decimal import Decimal

    from tradewind.jobs.accepting import adopt_purchase

    with acting_ports(quietly=as_json) as ports:
        done = adopt_purchase(ports, symbol.upper(), Decimal(str(stop_frac)), _actor())
    _print(
        ports.account,
        done,
        f"{done['quantity']} adopted as {done['position_id']}, stop at {done['stop']}.",
        as_json,
    )


def write_off(
    position_id: Annotated[str, typer.Argument(help="What cannot be sold any more, as ./tradewind flatten names it.")],
    reason: Annotated[str, typer.Option("--reason", help="What became of its market: kept in the audit log.")],
    settled_at: Annotated[
        str | None, typer.Option("--settled-at", help="On futures, the price at which the exchange settled it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give up a position whose market is delisted, halted, without a price, or takes no order so small.

    Its loss is counted from then on. What is held stays in the account, and is never sold or missed again.
    """
    from decimal import Decimal, InvalidOperation

    from tradewind.jobs import writing_off

    try:
        price = None if settled_at is None else Decimal(settled_at)
    except InvalidOperation:
        raise BadInput(f"--settled-at is {settled_at!r}: give a price, such as 1.25") from None
    with acting_ports(quietly=as_json) as ports:
        done = writing_off.write_off(ports, position_id, reason, _actor(), settled_at=price)
    rest = "Exchange and ledger agree." if done["clean"] else "Other differences stand: ./tradewind status."
    words = f"{done['quantity']} of {done['symbol']} written off, bought for {done['cost_quote']}. {rest}"
    _print(ports.account, done, words, as_json)


@drill_app.command("breaker")
def drill_breaker(as_json: AsJson = False) -> None:
    """Trip the breaker on the paper exchange: latch, flatten, verify. Leaves trading halted, as the real one does."""
    from tradewind.core.types import TradingMode
    from tradewind.jobs import safety

    with acting_ports(quietly=as_json) as ports:
        if not ports.settings.is_paper_exchange:
            raise BadInput(
                "a drill sells every position: it runs on the paper exchange only (TRADEWIND_MODE=demo|paper)"
            )
        before = ports.trading_store.latch()
        started = time.monotonic()
        held = [position.symbol for position in ports.trading_store.live_positions()]
        safety_latch = ports.trading_store.set_latch(
            TradingMode.HALTED, "breaker drill", ports.wall.now(), actor=_actor()
        )
        latched_s = time.monotonic() - started
        ports.trading_store.audit(_actor(), "drill breaker", "latched", {"was": before.mode.value}, source="command")
        done = _until_flat(lambda: safety.trip_circuit_breaker(ports, "breaker drill", _actor()), 120.0)
    outcome = done | {
        "positions_left": held,
        "latch_written_s": latched_s,
        "flat_after_s": time.monotonic() - started,
        "sequence": safety_latch.sequence,
    }
    words = f"Latched in {latched_s:.2f} s, {len(held)} positions left, flat after {outcome['flat_after_s']:.1f} s."
    _print(ports.account, outcome, f"{words} Trading is halted now: ./tradewind resume.", as_json)


def _until_flat(attempt: Any, patience_s: float) -> dict[str, Any]:
    """Try again with growing pauses. Raises NotFlatYet when the patience is over; the latch stays."""
    deadline, pause_s = time.monotonic() + patience_s, 1.0
    while True:
        try:
            found: dict[str, Any] = attempt()
            return found
        except NotFlatYet as error:
            if time.monotonic() + pause_s > deadline:
                raise
            typer.echo(f"{error}; trying again in {pause_s:.0f} s", err=True)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _actor() -> str:
    """Who is at the keyboard, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown user"


def _print(account: str, outcome: dict[str, Any], words: str, as_json: bool) -> None:
    typer.echo(json.dumps({"account": account} | outcome, default=str) if as_json else words)
