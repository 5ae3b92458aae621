"""The backtest: a rule against other engines, the whole chain with models, a year of fifty markets."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tradewind.backtest.candle_files import read_candles
from tradewind.backtest.instruments import inferred_instrument
from tradewind.backtest.metrics import measure as measure_run
from tradewind.backtest.parallel import build_all
from tradewind.backtest.replay import ReplaySettings, replay
from tradewind.backtest.rules import EMA_CROSS, rule_series
from tradewind.backtest.signals import SymbolSeries, model_series
from tradewind.bench import engines_script
from tradewind.bench.rows import BenchOptions, Row, row_of, times
from tradewind.core.boosters import BoosterSettings
from tradewind.core.dataset import build_panel, pool
from tradewind.core.ensemble import FitSettings, LoadedModel, NotEnoughRows, fit_family
from tradewind.core.features import FEATURE_NAMES
from tradewind.core.params import StrategyParams
from tradewind.core.regime import FAMILIES
from tradewind.core.resampling import BASE_MS
from tradewind.core.timeframes import from_ms
from tradewind.core.types import Bars
from tradewind.errors import BadInput, StackFailed

BENCH: Final = "backtest"
RULE_BARS: Final = 75_856
CHAIN_BARS: Final = 70_000
YEAR_BARS: Final = 35_040
MANY: Final = 50
_END_MS: Final = 1_795_300_000_000 // 86_400_000 * 86_400_000
# What other engines took for the rule on 75,856 bars where they were measured once; used when none is at hand.
_STATED_S: Final = {"backtesting": 0.7, "vectorbt": 0.4, "freqtrade": 26.0, "freqtrade, whole process": 58.0}


def measure(options: BenchOptions) -> list[Row]:
    """All rows. `options.engines_python` measures backtesting.py and vectorbt in this same run."""
    share = 10 if options.quick else 1
    options.say("loading bars")
    series = _bars(options, RULE_BARS // share)
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as name:
        folder = Path(name)
        for bars in series:
            _write(folder, bars)
        options.say("the rule, one symbol and three")
        rows = _rule_rows(series, folder, options)
        options.say("the rule as a whole process")
        rows += _process_rows(series[0], folder, options)
    options.say("the chain with models; a model is fitted first")
    rows += _chain_rows(series, CHAIN_BARS // share)
    options.say("a year of fifty markets in a process of its own")
    return rows + _many_rows(YEAR_BARS // share, MANY // (5 if options.quick else 1))


# ----------------------------------------------------------------------------------------------------------------- bars
def _bars(options: BenchOptions, count: int) -> list[Bars]:
    """Three symbols, the first with the most bars: the files of a folder, else the synthetic market's."""
    if options.candles_dir is None:
        return _synthetic(("SOL/USDT", "BTC/USDT", "ETH/USDT"), count)
    names = sorted(path.name.removesuffix("-15m.parquet") for path in options.candles_dir.glob("*-15m.parquet"))
    found = [read_candles(options.candles_dir, name.replace("_", "/", 1))[0] for name in names]
    found.sort(key=lambda bars: (bars.symbol != "SOL/USDT", -len(bars)))
    return [bars.slice(max(len(bars) - count, 0), len(bars)) for bars in found[:3]]


def _synthetic(symbols: tuple[str, ...], count: int) -> list[Bars]:
    from tradewind.paper.calibrate import load_bars
    from tradewind.paper.markets_synthetic import SyntheticMarket

    market = SyntheticMarket(symbols, 7, 1.0)
    found = [load_bars(market, symbol, _END_MS - count * BASE_MS, _END_MS) for symbol in market.rules]
    return [replace(bars, symbol=symbol) for bars, symbol in zip(found, symbols, strict=True)]


def _write(folder: Path, bars: Bars) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened = pa.array(bars.open_time_ms).cast(pa.timestamp("ms", tz="UTC"))
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    path = folder / f"{bars.symbol.replace('/', '_')}-15m.parquet"
    pq.write_table(pa.table({"open_time": opened, **columns}), path)


# ----------------------------------------------------------------------------------------------------------------- rule
def run_rule(bars: list[Bars], *, detailed: bool = False) -> int:
    """The rule over these markets as one portfolio: signals, trades and metrics; returns the trades.

    With `detailed` the engine itself keeps every order and fill, as a report needs them.
    """
    params = EMA_CROSS.params
    series = {b.symbol: rule_series(b, inferred_instrument(b, params), EMA_CROSS) for b in bars}
    run = replay(series, params, 0, 1 << 45, ReplaySettings(detailed=detailed)).run
    measure_run(run.trades, run.equity, run.initial_equity_quote, span_ms=(run.start_ms, run.end_ms))
    return len(run.trades)


def _rule_rows(series: list[Bars], folder: Path, options: BenchOptions) -> list[Row]:
    run_rule(series)
    taken = times(lambda: run_rule(series[:1]), 9)
    three = times(lambda: run_rule(series), 5)
    detailed = times(lambda: run_rule(series[:1], detailed=True), 5)
    count, median = len(series[0]), float(np.median(taken))
    rows = [
        row_of(BENCH, f"rule, {count:,} bars", taken, "s"),
        row_of(BENCH, "rule, speed", [count / s for s in taken], "bars/s", 1_000_000, "at least"),
        row_of(BENCH, "rule with every order and fill, speed", [count / s for s in detailed], "bars/s"),
    ]
    for engine, factor in (("backtesting", 10), ("vectorbt", 5)):
        reference, where = _reference(engine, series[0], folder, options)
        rows.append(Row(BENCH, f"rule, {engine} ({where}) over ours", reference / median, "x", factor, "at least"))
    stated = _STATED_S["freqtrade"] * count / RULE_BARS
    rows.append(Row(BENCH, "rule, freqtrade's loop (stated) over ours", stated / median, "x", 300, "at least"))
    of_three = float(np.median(three)) / median
    return [*rows, Row(BENCH, "rule, three symbols as one portfolio over one", of_three, "x", 3.5)]


def _reference(engine: str, bars: Bars, folder: Path, options: BenchOptions) -> tuple[float, str]:
    """(seconds of another engine, measured or stated)."""
    python = options.engines_python
    if python is None:
        return _STATED_S[engine] * len(bars) / RULE_BARS, "stated"
    file = folder / f"{bars.symbol.replace('/', '_')}-15m.parquet"
    found = _run_engine(python, engine, file, 4)
    return float(np.median(found["seconds"][1:])), "measured"


def _run_engine(python: Path, engine: str, file: Path, runs: int) -> dict[str, Any]:
    horizon = "96" if engine == "backtesting" else "0"
    command = [str(python), "-W", "ignore", engines_script.__file__, engine, str(file), horizon, str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise BadInput(f"--engines-python: {engine} does not run there: {words}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _process_rows(bars: Bars, folder: Path, options: BenchOptions) -> list[Row]:
    """`./tradewind backtest --rule ema_cross --quick` from start to exit, compiled code and bytecode cached; and with
    every order and fill written as JSON, which other engines have none of."""
    command = ["env", f"TRADEWIND_HOME_DIR={folder / 'home'}", sys.executable, "-m", "tradewind.cli", "backtest"]
    command += ["--rule", "ema_cross", "--candles", str(folder)]
    command += ["--symbols", bars.symbol]

    def whole(*more: str) -> None:
        subprocess.run([*command, *more], capture_output=True, timeout=600, check=True)

    whole("--quick")
    taken = times(lambda: whole("--quick"), 5)
    median = float(np.median(taken))
    written = times(lambda: whole("--json", str(folder / "run.json")), 3)
    rows = [
        row_of(BENCH, "rule, whole process", taken, "s"),
        row_of(BENCH, "rule, whole process with every order as JSON", written, "s"),
    ]
    python = options.engines_python
    if python is not None:
        file = folder / f"{bars.symbol.replace('/', '_')}-15m.parquet"
        other = times(lambda: _run_engine(python, "backtesting", file, 1), 5)
        ratio = median / float(np.median(other))
        rows.append(Row(BENCH, "rule, our whole process over backtesting.py's (measured)", ratio, "x", 1.0))
    stated = _STATED_S["freqtrade, whole process"] * len(bars) / RULE_BARS
    rows.append(Row(BENCH, "rule, freqtrade's whole process (stated) over ours", stated / median, "x", 10, "at least"))
    return rows


# ---------------------------------------------------------------------------------------------------------------- chain
def fitted_model(series: list[Bars], params: StrategyParams) -> LoadedModel:
    """Both families of all three libraries, fitted on the first part of the bars, with as many rounds as shipped."""
    leader = series[0]
    start_ms, cut = int(leader.open_time_ms[0]), int(leader.open_time_ms[int(len(leader) * 0.3)])
    early = [b.slice(0, int(np.searchsorted(b.open_time_ms, cut))) for b in series]
    panels = [build_panel(b, early[0], params) for b in early if len(b) > 3000]
    families = {}
    for family in FAMILIES:
        sample = pool(panels, family, start_ms, cut)
        try:
            families[family] = fit_family(family, sample, FitSettings(boosters=BoosterSettings()))
        except NotEnoughRows:
            continue  # a family too rare in these bars asks no model, as live
    return LoadedModel("bench", from_ms(cut), FEATURE_NAMES, families)


def run_chain(series: list[Bars], model: LoadedModel, params: StrategyParams) -> int:
    """Features, forecasts and the whole chain over these markets as one portfolio; returns the trades."""
    leader = series[0]
    by_symbol = {b.symbol: b for b in series}

    def build(symbol: str) -> SymbolSeries:
        bars = by_symbol[symbol]
        return model_series(bars, leader, inferred_instrument(bars, params), model, params)

    made = build_all(by_symbol, build)
    return len(replay(made, params, 0, 1 << 45, ReplaySettings()).run.trades)


def _chain_rows(series: list[Bars], count: int) -> list[Row]:
    leader = series[0]
    shared = [b.slice(0, int(np.searchsorted(b.open_time_ms, leader.open_time_ms[-1], side="right"))) for b in series]
    shared = [b.slice(max(len(b) - count, 0), len(b)) for b in shared]
    params = StrategyParams(leader_symbol=leader.symbol)
    model = fitted_model(shared, params)
    start = time.perf_counter()
    trades = run_chain(shared, model, params)
    taken = time.perf_counter() - start
    bars = sum(len(b) for b in shared)
    what = f"whole chain with models, {len(shared)} symbols, {bars:,} bars, {trades} trades"
    return [Row(BENCH, what, taken, "s", 15.0)]


def _many_rows(count: int, symbols: int) -> list[Row]:
    command = [
        sys.executable,
        "-c",
        f"from tradewind.bench.backtest import year_of_many; year_of_many({symbols}, {count})",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode != 0:
        raise StackFailed(f"the year of {symbols} markets ended with {done.returncode}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    what = f"whole chain, {symbols} symbols, {found['bars']:,} bars, {found['trades']} trades"
    return [
        Row(BENCH, what, found["seconds"], "s", 60.0),
        Row(BENCH, f"{what}: memory at its highest", found["peak_mib"], "MiB", 3 * 1024.0),
    ]


def year_of_many(symbols: int, count: int) -> None:
    """Print seconds and highest memory of the whole chain over many synthetic markets, the model and bars given."""
    import resource

    names: tuple[str, ...] = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT")
    names += tuple(f"C{number:02d}/USDT" for number in range(max(symbols - len(names), 0)))
    series = _synthetic(names[:symbols], count)
    params = StrategyParams()
    model = fitted_model(series[:3], params)
    start = time.perf_counter()
    trades = run_chain(series, model, params)
    taken = time.perf_counter() - start
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": taken, "peak_mib": peak_mib, "trades": trades, "bars": sum(len(b) for b in series)}))
