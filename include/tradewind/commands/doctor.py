"""`./tradewind doctor …`: check your own data and connections, without changing anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradewind.commands import acting_ports, acting_settings
from tradewind.errors import BadInput

if TYPE_CHECKING:
    from tradewind.core.params import StrategyParams
    from tradewind.core.types import Bars

doctor_app = typer.Typer(name="doctor", help="Check your own data and connections.", no_args_is_help=True)

_SHOWN_LEAKS = 40


def register(app: typer.Typer) -> None:
    """Add the group `doctor`."""
    app.add_typer(doctor_app, rich_help_panel="Data")


@doctor_app.command("machine")
def doctor_machine(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Look for what lets other users of this machine at secrets and servers, and for what is not mended yet."""
    from tradewind.stack.weaknesses import weaknesses

    found = weaknesses(acting_settings(quietly=as_json))
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(found) or "nothing was found")


@doctor_app.command("features")
def doctor_features(
    candles: Annotated[
        Path | None, typer.Option(help="Candle files named SOL_USDT-15m.parquet; the stored bars by default.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Random moments to check in each symbol.")] = 50,
    days: Annotated[int, typer.Option(min=1, help="How much history to read, from its end.")] = 120,
    seed: Annotated[int, typer.Option(help="Chooses the moments.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Look for features that know the future, or that a live window cannot reproduce, on your own bars.

    Exit status 1 when one is found, or when there is too little history to look at.
    """
    from tradewind.core.leak_checks import examine

    bars, params = _stored_bars(days, quietly=as_json) if candles is None else bars_of_files(candles, days=days)
    leader = bars[params.leader_symbol]
    moments = 0
    found: list[dict[str, Any]] = []
    for symbol, series in bars.items():
        examined = examine(series, leader, params, rows, seed)
        moments += len(examined.rows)
        found += [
            {
                "symbol": symbol,
                "check": leak.check,
                "feature": leak.feature,
                "open_time_ms": leak.open_time_ms,
                "whole": leak.whole,
                "part": leak.part,
            }
            for leak in examined.leaks
        ]
    if as_json:
        typer.echo(json.dumps({"symbols": list(bars), "moments": moments, "leaks": found}, indent=2))
    elif not moments:
        typer.echo("not enough history to check: load some months first (backfill_history, or ./tradewind import)")
    else:
        for leak in found[:_SHOWN_LEAKS]:
            typer.echo(
                f"{leak['symbol']} {leak['feature']}: {leak['check']} {leak['whole']!r} against {leak['part']!r}"
            )
        typer.echo(f"{moments} moments of {len(bars)} symbols checked three ways, {len(found)} leaks")
    if found or not moments:
        raise typer.Exit(1)


def _stored_bars(days: int, *, quietly: bool) -> tuple[Mapping[str, Bars], StrategyParams]:
    from tradewind.core.timeframes import to_ms
    from tradewind.jobs.fetching import market_symbols

    with acting_ports(quietly=quietly) as ports:
        params = ports.params_in_file()
        end_ms = to_ms(ports.clock.now())
        return ports.market_store.read_last_bars(market_symbols(ports), "15m", end_ms, days * 96), params


def bars_of_files(
    directory: Path, symbols: Sequence[str] = (), days: int | None = None
) -> tuple[Mapping[str, Bars], StrategyParams]:
    """The files' 15m bars (of `symbols`, else of all), the last `days` of each, and the strategy to read them by.

    Its leader leads where it is among them, else the first symbol does. Raises BadInput for what is not there.
    """
    from dataclasses import replace

    from tradewind.adapters.strategy_file import load_params
    from tradewind.backtest.candle_files import read_candles
    from tradewind.settings import STRATEGY_FILE

    found = [path.name.removesuffix("-15m.parquet") for path in sorted(directory.glob("*-15m.parquet"))]
    chosen = tuple(symbols) or tuple(name.replace("_", "/", 1) for name in found)
    if not chosen:
        raise BadInput(f"{directory} holds no file named like SOL_USDT-15m.parquet")
    bitcoin = f"BTC/{chosen[0].partition('/')[2]}"
    params = load_params(STRATEGY_FILE, bitcoin if bitcoin in chosen else chosen[0])
    if params.leader_symbol not in chosen:
        params = replace(params, leader_symbol=chosen[0])
    bars = {}
    for symbol in chosen:
        series, _ = read_candles(directory, symbol)
        bars[symbol] = series if days is None else series.slice(max(len(series) - days * 96, 0), len(series))
    return bars, params
