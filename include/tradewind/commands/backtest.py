"""`./tradewind backtest`: the decision chain over stored bars, a report and every number."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradewind.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tradewind.backtest.replay import ReplayResult
    from tradewind.backtest.signals import SymbolSeries
    from tradewind.core.params import StrategyParams
    from tradewind.core.types import Bars, Instrument

_FAR_MS = 1 << 45  # the year 3084: still a date


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Research")(backtest)


def backtest(
    symbols: Annotated[str, typer.Option(help="Comma-separated, such as BTC/USDT,ETH/USDT.")],
    start: Annotated[str, typer.Option("--from", help="First bar, UTC: 2024-01-01 or 2024-01-01T12:00.")] = "",
    end: Annotated[str, typer.Option("--to", help="End, UTC, not included.")] = "",
    candles: Annotated[Path | None, typer.Option(help="Folder with SOL_USDT-15m.parquet; else the database.")] = None,
    rule: Annotated[str, typer.Option(help="A model-free rule as the signal: ema_cross.")] = "",
    models: Annotated[str, typer.Option(help="champion: the present model (it may look back).")] = "champion",
    capital: Annotated[float, typer.Option(min=1, help="Quote units to begin with.")] = 10_000.0,
    report: Annotated[Path | None, typer.Option(help="Write a report to this HTML file.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
) -> None:
    """Run the live decision chain over stored bars: the same filters, sizes, brackets and position rules."""
    from decimal import Decimal

    from tradewind.backtest.metrics import measure
    from tradewind.backtest.replay import ReplaySettings, replay
    from tradewind.backtest.report import write_report

    wanted = tuple(dict.fromkeys(symbol.strip() for symbol in symbols.split(",") if symbol.strip()))
    if not wanted:
        raise BadInput("--symbols names no symbol; for example --symbols BTC/USDT,ETH/USDT")
    if not rule and models != "champion":
        raise BadInput(f"--models {models} is not known; use champion, or --rule ema_cross")
    start_ms, end_ms = _moment_ms(start, "--from", 0), _moment_ms(end, "--to", _FAR_MS)
    labels: list[str] = []
    if rule:
        series, params = _rule_series(rule, wanted, candles)
        labels.append(f"rule {rule}: no model")
    else:
        series, params = _champion_series(wanted, candles)
        labels.append("looks back: bars before the model's training end were seen in training")
        typer.echo(
            "warning: --models champion looks back; only bars after its training end are out of sample", err=True
        )
    settings = ReplaySettings(capital_quote=Decimal(repr(capital)))
    result = replay(series, params, start_ms, end_ms, settings, title=f"Backtest {', '.join(wanted)}", labels=labels)
    performance = measure(result.run.trades, result.run.equity, capital)
    _print_summary(result, performance)
    if report is not None:
        write_report(report, result.run, {"Notes": [{"note": note} for note in result.run.notes]})
        typer.echo(f"report: {report}")
    if as_json is not None:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        as_json.write_text(json.dumps(_as_json(result, performance), indent=1))
        typer.echo(f"numbers: {as_json}")


def _moment_ms(text: str, option: str, default: int) -> int:
    if not text:
        return default
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{option} {text!r} is no date; write 2024-01-01 or 2024-01-01T12:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _read_bars(symbols: tuple[str, ...], candles: Path | None) -> dict[str, Bars]:
    from tradewind.backtest.candle_files import read_candles

    bars: dict[str, Bars] = {}
    if candles is None:
        from tradewind.settings import load_settings
        from tradewind.wiring import Wiring

        wiring = Wiring(load_settings())
        try:
            bars = wiring.market_store.read_bars(symbols, "15m", 0, _FAR_MS)
        finally:
            wiring.close()
    else:
        for symbol in symbols:
            bars[symbol], refused = read_candles(candles, symbol)
            if refused:
                typer.echo(f"warning: {refused} rows of {symbol} cannot be true and were left out", err=True)
    empty = [symbol for symbol in symbols if len(bars[symbol]) == 0]
    if empty:
        raise BadInput(f"no 15m bars of {', '.join(empty)}: import them, or point --candles at a folder that has them")
    return bars


def _instrument(bars: Bars, params: StrategyParams) -> Instrument:
    from tradewind.backtest.instruments import inferred_instrument

    return inferred_instrument(bars, params)


def _rule_series(
    name: str, symbols: tuple[str, ...], candles: Path | None
) -> tuple[dict[str, SymbolSeries], StrategyParams]:
    from tradewind.backtest.rules import RULES, rule_series

    if name not in RULES:
        raise BadInput(f"--rule {name} is not known; one of {', '.join(RULES)}")
    rule = RULES[name]
    bars = _read_bars(symbols, candles)
    return {s: rule_series(b, _instrument(b, rule.params), rule) for s, b in bars.items()}, rule.params


def _champion_series(symbols: tuple[str, ...], candles: Path | None) -> tuple[dict[str, SymbolSeries], StrategyParams]:
    from tradewind.backtest.signals import model_series
    from tradewind.errors import ModelUnavailable
    from tradewind.settings import load_settings
    from tradewind.wiring import Wiring

    wiring = Wiring(load_settings())
    try:
        params, model = wiring.params, wiring.model_store.champion()
    finally:
        wiring.close()
    if model is None:
        raise ModelUnavailable("there is no champion model: train one (./tradewind demo), or use --rule ema_cross")
    leader = params.leader_symbol
    bars = _read_bars(tuple(dict.fromkeys((*symbols, leader))), candles)
    series = {s: model_series(bars[s], bars[leader], _instrument(bars[s], params), model, params) for s in symbols}
    return series, params


def _print_summary(result: ReplayResult, performance: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=result.run.title, show_header=False)
    for name, value in _numbers(performance).items():
        table.add_row(
            name, "undefined" if value is None else f"{value:,.4f}" if isinstance(value, float) else str(value)
        )
    Console().print(table)
    funnel = Table("filter", "passed", "refused", "first to refuse", title="Filter funnel")
    for row in result.run.funnel:
        funnel.add_row(row.filter, str(row.passed), str(row.refused), str(row.first_refusals))
    Console().print(funnel)
    for note in result.run.notes:
        typer.echo(note)


def _numbers(performance: Any) -> Mapping[str, float | int | None]:
    """The performance by name; None where a number is undefined, since JSON has no NaN."""
    from dataclasses import asdict
    from math import isfinite

    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in asdict(performance).items()
    }


def _as_json(result: ReplayResult, performance: Any) -> dict[str, Any]:
    from tradewind.core.codec import encode

    run = result.run
    return {
        "title": run.title,
        "labels": list(run.labels),
        "strategy_version": run.strategy_version,
        "start_ms": run.start_ms,
        "end_ms": run.end_ms,
        "bars": result.bars_seen,
        "performance": _numbers(performance),
        "sentiment_coverage_frac": result.sentiment_coverage_frac,
        "breaches": [{"at_ms": at, **encode(breach)} for at, breach in result.breaches],
        "funnel": encode(list(run.funnel)),
        "trades": encode(list(run.trades)),
        "orders": encode(list(result.orders)),
        "fills": encode(list(result.fills)),
        "equity": [[point.at_ms, point.equity_quote] for point in run.equity],
        "notes": list(run.notes),
    }
