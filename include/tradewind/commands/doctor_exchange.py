"""`./tradewind doctor exchange`: what each exchange gives an entry, and whether yours is fit to be traded on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradewind.commands import acting_ports

if TYPE_CHECKING:
    from tradewind.wiring import Wiring

_LARGEST_OFFSET_MS = 500.0


def register(app: typer.Typer) -> None:
    """Add `exchange` to the group `doctor`."""
    from tradewind.commands.doctor import doctor_app

    doctor_app.command("exchange")(doctor_exchange)


def doctor_exchange(
    offline: Annotated[bool, typer.Option("--offline", help="Only what ccxt knows; ask no exchange.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show what each supported exchange gives an entry; then your own: clock, key, filters, fees.

    Exit status 1 when something keeps entries from being sent: a clock too far off, a key that may not trade or that
    may withdraw, a symbol that is not listed or not active, a fee above what the strategy is judged with.
    """
    from dataclasses import asdict

    from tradewind.adapters.ccxt_support import EXCHANGES, support_of

    supports = [support_of(exchange) for exchange in EXCHANGES]
    found: dict[str, Any] = {"exchanges": [asdict(s) | {"words": s.words} for s in supports]}
    if not offline:
        with acting_ports(quietly=as_json) as ports:
            found["yours"] = examine(ports)
    if as_json:
        typer.echo(json.dumps(found, indent=2, default=str))
    else:
        _print(found)
    if found.get("yours", {}).get("problems"):
        raise typer.Exit(1)


def examine(wiring: Wiring) -> dict[str, Any]:
    """Clock, key, rules and fees of the configured exchange; `problems` are what keeps entries from being sent."""
    from dataclasses import asdict

    from tradewind.core.gates import pays_more_than_judged
    from tradewind.jobs.fetching import market_symbols
    from tradewind.settings import STRATEGY_FILE

    settings = wiring.settings
    offset_ms = wiring.market_data.clock_offset_ms()
    rights = wiring.exchange.key_rights()
    symbols, leader = market_symbols(wiring), wiring.params.leader_symbol
    instruments = wiring.exchange.instruments(symbols)
    problems = []
    if abs(offset_ms) > wiring.exchange.recv_window_s * 1000:
        problems.append(f"the clock is {offset_ms:.0f} ms off: requests are refused; synchronise it (chrony, ntpd)")
    elif abs(offset_ms) > _LARGEST_OFFSET_MS:
        problems.append(f"the clock is {offset_ms:.0f} ms off: synchronise it (chrony, ntpd)")
    if rights.can_trade is False:
        problems.append("the key may not trade")
    if rights.can_withdraw:
        problems.append("the key may withdraw or transfer: make one that may read and trade alone")
    for symbol in symbols:
        if symbol not in instruments:
            mend = f": name another leader_symbol in {STRATEGY_FILE.name}" if symbol == leader else ""
            problems.append(f"{symbol} is not listed{mend}")
            continue
        rules = instruments[symbol]
        if not rules.active:
            problems.append(f"{symbol} is not active")
        if pays_more_than_judged(rules, wiring.params):
            problems.append(
                f"a taker pays {float(rules.taker_fee_frac):.4%} in {symbol}, the strategy is judged with "
                f"{wiring.params.fee_frac:.4%}: set fee_frac in {STRATEGY_FILE.name} to what is paid and train again"
            )
    return {
        "exchange": settings.exchange,
        "market_type": settings.market_type,
        "mode": settings.mode,
        "url": settings.exchange_url or "the exchange's own",
        "clock_offset_ms": round(offset_ms, 1),
        "recv_window_ms": wiring.exchange.recv_window_s * 1000,
        "key": asdict(rights),
        "symbols": {symbol: asdict(instrument) for symbol, instrument in instruments.items()},
        "problems": problems,
    }


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("exchange", "an entry gets", "stop orders", "fill or kill", "traded here", title="By ccxt's features")
    for row in found["exchanges"]:
        table.add_row(row["exchange"], row["words"], *(_yes(row[k]) for k in ("stop_orders", "fill_or_kill", "traded")))
    console.print(table)
    yours = found.get("yours")
    if yours is None:
        return
    key = yours["key"]
    console.print(f"{yours['exchange']} {yours['market_type']}, mode {yours['mode']}, at {yours['url']}")
    console.print(f"clock: {yours['clock_offset_ms']} ms off, requests are good for {yours['recv_window_ms']:.0f} ms")
    may = ", ".join(f"{name.replace('_', ' ')}: {_yes(value)}" for name, value in key.items())
    console.print(f"key: {may}")
    sizes = ("tick", "step", "least quantity", "least notional")
    rules = Table("symbol", "bracket", *sizes, "maker", "taker", "fees", "active")
    for symbol, row in yours["symbols"].items():
        numbers = ("tick_size", "step_size", "min_quantity", "min_notional_quote", "maker_fee_frac", "taker_fee_frac")
        told = (*(str(row[name]) for name in numbers), _whose(row), _yes(row["active"]))
        rules.add_row(symbol, str(row["bracket"]), *told)
    console.print(rules)
    for problem in yours["problems"]:
        console.print(f"[red]✗[/red] {problem}")
    if not yours["problems"]:
        console.print("[green]✓[/green] nothing keeps entries from being sent")


def _whose(row: dict[str, Any]) -> str:
    return "the account's" if row["fees_are_own"] else "published"


def _yes(value: bool | None) -> str:
    return "not told" if value is None else ("yes" if value else "no")
