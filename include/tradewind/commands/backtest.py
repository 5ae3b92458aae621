"""`./tradewind backtest`: the decision chain over stored bars, a report and every number."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradewind.commands import acting_settings, ports_of
from tradewind.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from tradewind.backtest.funding import FundingRates
    from tradewind.backtest.replay import ReplayResult
    from tradewind.backtest.signals import SymbolSeries
    from tradewind.core.ports import Ports

_FAR_MS = 1 << 45  # the year 3084: still a date


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
    funding_rate: Annotated[
        str, typer.Option(help="Futures: the rate assumed at 00:00, 08:00 and 16:00 UTC, such as 0.0001.")
    ] = "",
    spill: Annotated[
        Path | None, typer.Option(help="Keep columns in files of this folder, not in memory: for hundreds of symbols.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Trades and their numbers alone, by the compiled loop: no orders, no filter funnel.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write a report to this HTML file.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
) -> None:
    """Run the live decision chain over stored bars: the same filters, sizes, brackets and position rules."""
    from decimal import Decimal

    from rich.console import Console
    from rich.progress import Progress

    from tradewind.backtest.loading import inputs_of, spill_folder
    from tradewind.backtest.metrics import measure
    from tradewind.backtest.replay import ReplaySettings, replay

    if quick and (report is not None or as_json is not None):
        raise BadInput("--quick keeps no orders, which --report and --json write: leave it away")
    wanted = wanted_symbols(symbols)
    start_ms, end_ms = moment_ms(start, "--from", 0), moment_ms(end, "--to", _FAR_MS)
    # A rule over files asks no deployment anything.
    deployment = acting_settings() if not rule or candles is None else None

    def open_ports() -> AbstractContextManager[Ports]:
        return ports_of(deployment or acting_settings(), judging=True)

    with Progress(console=Console(stderr=True), transient=True) as progress, spill_folder(spill) as spilling:
        task = progress.add_task("reading", total=len(wanted) + 1)

        def step(words: str) -> None:
            progress.update(task, description=words, advance=1)

        made = inputs_of(rule, models, wanted, candles, open_ports, end_ms, step, spilling, warn)
        if models == "champion" and not rule:
            warn(made.labels[0])
        is_paper = deployment is not None and deployment.is_paper_exchange
        funding = _funding(made.series, funding_rate, is_paper=is_paper)
        settings = ReplaySettings(
            capital_quote=Decimal(repr(capital)), models=made.spans, funding=funding, detailed=not quick
        )
        step("trading")
        title = f"Backtest {', '.join(wanted)}"
        result = replay(made.series, made.params, start_ms, end_ms, settings, title=title, labels=made.labels)
        span = (result.run.start_ms, result.run.end_ms)
        performance = measure(result.run.trades, result.run.equity, capital, span_ms=span)
    _print_summary(result, performance, with_funnel=not quick)
    if report is not None:
        from tradewind.backtest.report import write_report

        write_report(report, result.run, {})
        typer.echo(f"report: {report}")
    if as_json is not None:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        as_json.write_text(json.dumps(_as_json(result, performance)))
        typer.echo(f"numbers: {as_json}")


def warn(words: str) -> None:
    """A line on standard error."""
    typer.echo(f"warning: {words}", err=True)


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


def _funding(series: Mapping[str, SymbolSeries], given: str, *, is_paper: bool) -> FundingRates | None:
    """The rates that a replay of futures settles: the given one, else the paper market's where that is traded."""
    from decimal import Decimal, InvalidOperation

    from tradewind.backtest.funding import assumed_rates, market_rates

    if not any(s.instrument.margin is not None for s in series.values()):
        if given:
            raise BadInput("--funding-rate is for futures: no funding is paid on spot")
        return None
    if not given:
        return market_rates(series) if is_paper else None
    try:
        rate = Decimal(given)
        known = abs(rate) < 1  # not a number compares with nothing
    except InvalidOperation:
        known = False
    if not known:
        raise BadInput(f"--funding-rate {given!r} is no rate of one interval; write 0.0001 for 0.01 %")
    return assumed_rates(series, rate)


def _print_summary(result: ReplayResult, performance: Any, *, with_funnel: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=result.run.title, show_header=False)
    for name, value in _numbers(performance).items():
        table.add_row(name, _words(value))
    Console().print(table)
    if with_funnel:
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
        "funding": encode(list(result.funding)),
        "equity": [[point.at_ms, point.equity_quote] for point in run.equity],
        "notes": list(run.notes),
    }
