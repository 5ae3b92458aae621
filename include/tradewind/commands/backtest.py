"""`./tradewind backtest`: the decision chain over stored bars, a report and every number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradewind.errors import BadInput, ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tradewind.backtest.replay import ReplayResult
    from tradewind.backtest.signals import ModelSpan, SymbolSeries
    from tradewind.core.params import StrategyParams
    from tradewind.core.types import Bars

_FAR_MS = 1 << 45  # the year 3084: still a date


_MODELS = ("walk-forward", "champion")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Research")(backtest)


def backtest(
    symbols: Annotated[str, typer.Option(help="Comma-separated, such as BTC/USDT,ETH/USDT.")],
    start: Annotated[str, typer.Option("--from", help="First bar, UTC: 2024-01-01 or 2024-01-01T12:00.")] = "",
    end: Annotated[str, typer.Option("--to", help="End, UTC, not included.")] = "",
    candles: Annotated[Path | None, typer.Option(help="Folder with SOL_USDT-15m.parquet; else the database.")] = None,
    rule: Annotated[str, typer.Option(help="A model-free rule as the signal: ema_cross.")] = "",
    models: Annotated[
        str, typer.Option(help="walk-forward: only versions trained on earlier data decide; champion: looks back.")
    ] = "walk-forward",
    capital: Annotated[float, typer.Option(min=1, help="Quote units to begin with.")] = 10_000.0,
    report: Annotated[Path | None, typer.Option(help="Write a report to this HTML file.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
) -> None:
    """Run the live decision chain over stored bars: the same filters, sizes, brackets and position rules."""
    from decimal import Decimal

    from rich.console import Console
    from rich.progress import Progress

    from tradewind.backtest.metrics import measure
    from tradewind.backtest.replay import ReplaySettings, replay

    wanted = wanted_symbols(symbols)
    start_ms, end_ms = moment_ms(start, "--from", 0), moment_ms(end, "--to", _FAR_MS)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=len(wanted) + 1)

        def step(words: str) -> None:
            progress.update(task, description=words, advance=1)

        made = inputs_of(rule, models, wanted, candles, end_ms, step)
        for label in made.labels[:1] if models == "champion" and not rule else ():
            typer.echo(f"warning: {label}", err=True)
        settings = ReplaySettings(capital_quote=Decimal(repr(capital)), models=made.spans)
        step("trading")
        title = f"Backtest {', '.join(wanted)}"
        result = replay(made.series, made.params, start_ms, end_ms, settings, title=title, labels=made.labels)
        span = (result.run.start_ms, result.run.end_ms)
        performance = measure(result.run.trades, result.run.equity, capital, span_ms=span)
    _print_summary(result, performance)
    if report is not None:
        from tradewind.backtest.report import write_report

        write_report(report, result.run, {})
        typer.echo(f"report: {report}")
    if as_json is not None:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        as_json.write_text(json.dumps(_as_json(result, performance)))
        typer.echo(f"numbers: {as_json}")


def wanted_symbols(symbols: str) -> tuple[str, ...]:
    """The symbols of a comma-separated option. Raises BadInput for none."""
    wanted = tuple(dict.fromkeys(symbol.strip() for symbol in symbols.split(",") if symbol.strip()))
    if not wanted:
        raise BadInput("--symbols names no symbol; for example --symbols BTC/USDT,ETH/USDT")
    return wanted


def moment_ms(text: str, option: str, default: int) -> int:
    """Epoch milliseconds of a date option, `default` for none. Raises BadInput."""
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
            # One symbol a query: what is read at once does not grow with their number.
            for symbol in symbols:
                bars |= wiring.market_store.read_bars((symbol,), "15m", 0, _FAR_MS)
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


@dataclass(frozen=True)
class Inputs:
    """What a run is made of."""

    series: dict[str, SymbolSeries]
    params: StrategyParams
    labels: list[str]
    spans: tuple[ModelSpan, ...] | None = None


def inputs_of(
    rule: str,
    models: str,
    symbols: tuple[str, ...],
    candles: Path | None,
    end_ms: int,
    step: Callable[[str], None],
) -> Inputs:
    """Everything that a run over these symbols is made of; `step` hears what is being done."""
    if rule:
        return _rule_inputs(rule, symbols, candles, step)
    if models not in _MODELS:
        raise BadInput(f"--models {models} is not known; use {' or '.join(_MODELS)}, or --rule ema_cross")
    return _model_inputs(models, symbols, candles, end_ms, step)


def _rule_inputs(name: str, symbols: tuple[str, ...], candles: Path | None, step: Callable[[str], None]) -> Inputs:
    from tradewind.backtest.instruments import inferred_instrument
    from tradewind.backtest.rules import RULES, rule_series

    if name not in RULES:
        raise BadInput(f"--rule {name} is not known; one of {', '.join(RULES)}")
    rule = RULES[name]
    bars = _read_bars(symbols, candles)
    series = {}
    for symbol in symbols:
        step(f"columns of {symbol}")
        series[symbol] = rule_series(bars[symbol], inferred_instrument(bars[symbol], rule.params), rule)
    return Inputs(series, rule.params, [f"rule {name}: no model"])


def _model_inputs(
    models: str, symbols: tuple[str, ...], candles: Path | None, end_ms: int, step: Callable[[str], None]
) -> Inputs:
    """Series with forecasts, stored news scores and, with stored bars, the rules that the account last traded by."""
    from tradewind.backtest.instruments import inferred_instrument
    from tradewind.backtest.parallel import build_all
    from tradewind.backtest.walk_forward import spans_of, walk_forward_series
    from tradewind.core.timeframes import from_ms, to_ms
    from tradewind.settings import load_settings
    from tradewind.wiring import Wiring

    wiring = Wiring(load_settings())
    try:
        params, store = wiring.params, wiring.model_store
        if models == "champion":
            champion = store.champion()
            ends = {} if champion is None else {champion.version: 0}
            label = "looks back: bars before the model's training end were seen in training"
        else:
            ends = {row["version"]: to_ms(row["trained_until"]) for row in store.deciding(from_ms(end_ms))}
            label = "walk-forward: each version decides from the end of its data; it was chosen by the weeks after"
        if not ends:
            raise ModelUnavailable("no model could decide here: train one (./tradewind demo), or use --rule ema_cross")
        spans = spans_of(ends)
        bars = _read_bars(tuple(dict.fromkeys((*symbols, params.leader_symbol))), candles)
        news = wiring.state_store.sentiment_between(symbols, from_ms(0), from_ms(end_ms))
        stored = {} if candles is not None else wiring.parity_store.newest_instruments()
        loaded = {version: store.load(version) for version in ends}
    finally:
        wiring.close()

    def build(symbol: str) -> SymbolSeries:
        return walk_forward_series(
            bars[symbol],
            bars[params.leader_symbol],
            stored.get(symbol) or inferred_instrument(bars[symbol], params),
            spans,
            loaded.__getitem__,
            params,
            news[symbol],
        )

    series = build_all(symbols, build, lambda symbol: step(f"features and forecasts of {symbol}"))
    guessed = [symbol for symbol in symbols if symbol not in stored]
    labels = [label] + ([f"steps and ticks of {', '.join(guessed)} are read off the prices"] if guessed else [])
    return Inputs(series, params, labels, None if models == "champion" else spans)


def _print_summary(result: ReplayResult, performance: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=result.run.title, show_header=False)
    for name, value in _numbers(performance).items():
        table.add_row(name, _words(value))
    Console().print(table)
    funnel = Table("filter", "passed", "refused", "first to refuse", title="Filter funnel")
    for row in result.run.funnel:
        funnel.add_row(row.filter, str(row.passed), str(row.refused), str(row.first_refusals))
    Console().print(funnel)
    for note in result.run.notes:
        typer.echo(note)


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_words(bound) for bound in value)
    return "undefined" if value is None else f"{value:,.4f}" if isinstance(value, float) else str(value)


def _numbers(performance: Any) -> Mapping[str, Any]:
    """The performance by name; None where a number is undefined, since JSON has no NaN."""
    from dataclasses import asdict

    return {
        name: [_known(bound) for bound in value] if isinstance(value, tuple) else _known(value)
        for name, value in asdict(performance).items()
    }


def _known(value: Any) -> Any:
    from math import isfinite

    return None if isinstance(value, float) and not isfinite(value) else value


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
