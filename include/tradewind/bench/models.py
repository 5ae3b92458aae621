"""Features, labels, predictions and one full retraining, against bare TA-Lib calls and bare library fits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import talib

from tradewind.bench.rows import BenchOptions, Row, row_of, seconds, times
from tradewind.core.dataset import build_panel, pool
from tradewind.core.ensemble import FitSettings, LoadedModel, fit_family
from tradewind.core.features import FEATURE_NAMES, LIVE_WINDOW_BARS, compute_features
from tradewind.core.labels import label_bars
from tradewind.core.params import StrategyParams
from tradewind.core.regime import FAMILIES, classify_regimes, family_codes, measure_regime, regime_codes
from tradewind.core.types import Bars, RegimeState

BENCH: Final = "models"
FEATURE_BARS: Final = 75_856
WINDOW_BARS: Final = 500
TRAINING_BARS: Final = 70_000
LEAST_TRAINING_BARS: Final = 10_000  # a training wants sixty days beyond the warm-up
CYCLE_SYMBOLS: Final = 50
_FOLDS: Final = 5
_END_MS: Final = 1_795_300_000_000 // 86_400_000 * 86_400_000


def measure(options: BenchOptions) -> list[Row]:
    """All rows: compute first, then one retraining in a process of its own."""
    share = 10 if options.quick else 1
    options.say("loading bars")
    training_bars = max(TRAINING_BARS // share, LEAST_TRAINING_BARS)
    series = _bars(options, max(FEATURE_BARS // share, training_bars))
    params = StrategyParams(leader_symbol=series[0].symbol)
    options.say("features against bare TA-Lib calls")
    rows = _feature_rows(series, params)
    options.say("labels")
    rows += _label_rows(series[0], params)
    options.say("a cycle's compute for 50 symbols")
    rows += _cycle_rows(series, params)
    options.say("one full retraining; minutes")
    rows += _retraining_rows([_last(bars, training_bars) for bars in series], options)
    return rows


# ----------------------------------------------------------------------------------------------------------------- bars
def _bars(options: BenchOptions, count: int) -> list[Bars]:
    """Three symbols, the first of them leading: the first files of the directory, else the synthetic market's."""
    if options.candles_dir is None:
        return _synthetic_bars(count)
    from tradewind.backtest.candle_files import read_candles

    names = sorted(path.name.removesuffix("-15m.parquet") for path in options.candles_dir.glob("*-15m.parquet"))
    found = [read_candles(options.candles_dir, name.replace("_", "/", 1))[0] for name in names]
    leader, *others = sorted(found, key=len, reverse=True)[:3]
    # The files may end at different bars, and nothing can be decided without the leader's.
    return [_last(_until(bars, leader), count) for bars in (leader, *others)]


def _synthetic_bars(count: int) -> list[Bars]:
    from tradewind.paper.calibrate import load_bars
    from tradewind.paper.markets_synthetic import SyntheticMarket

    market = SyntheticMarket(("BTC/USDT", "ETH/USDT", "SOL/USDT"), 7, 1.0)
    return [load_bars(market, symbol, _END_MS - count * 900_000, _END_MS) for symbol in market.rules]


def _last(bars: Bars, count: int) -> Bars:
    return bars.slice(max(len(bars) - count, 0), len(bars))


# ------------------------------------------------------------------------------------------------------------- features
def bare_calls(bars: Bars) -> list[Callable[[], object]]:
    """Sixty-six TA-Lib calls on the bars: for each kind of feature the nearest function that TA-Lib has."""
    o, h, l, c, v = (np.ascontiguousarray(x) for x in (bars.open, bars.high, bars.low, bars.close, bars.volume))  # noqa: E741  # the letters of every TA-Lib signature
    calls: list[Callable[[], object]] = []

    def add(function: Callable[..., object], *arguments: object) -> None:
        calls.append(lambda: function(*arguments))

    for lag in (1, 2, 4, 8, 16, 48, 96):
        add(talib.ROCP, c, lag)
    for window in (20, 48, 96):
        add(talib.MAX, h, window)
        add(talib.MIN, l, window)
        add(talib.SMA, c, window)
        add(talib.STDDEV, c, window)
        add(talib.SUM, v, window)
        add(talib.LINEARREG_SLOPE, c, window)
        add(talib.CORREL, c, v, window)
        add(talib.BETA, c, v, window)
    for span in (9, 21, 50):
        add(talib.EMA, c, span)
    for period in (7, 14, 28):
        add(talib.RSI, c, period)
        add(talib.ATR, h, l, c, period)
        add(talib.ADX, h, l, c, period)
        add(talib.CCI, h, l, c, period)
        add(talib.MFI, h, l, c, v, period)
        add(talib.WILLR, h, l, c, period)
    add(talib.TRANGE, h, l, c)
    add(talib.NATR, h, l, c, 14)
    add(talib.PLUS_DI, h, l, c, 14)
    add(talib.MINUS_DI, h, l, c, 14)
    add(talib.MACD, c, 12, 26, 9)
    add(talib.STOCH, h, l, c, 14, 3, 0, 3, 0)
    add(talib.AROONOSC, h, l, 25)
    add(talib.ULTOSC, h, l, c, 7, 14, 28)
    add(talib.BBANDS, c, 20)
    add(talib.OBV, c, v)
    add(talib.AD, h, l, c, v)
    add(talib.BOP, o, h, l, c)
    add(talib.TRIX, c, 15)
    add(talib.CMO, c, 14)
    return calls


def _feature_rows(series: Sequence[Bars], params: StrategyParams) -> list[Row]:
    bars = leader = series[0]
    calls, count = bare_calls(bars), len(FEATURE_NAMES)

    def bare() -> None:
        for call in calls:
            call()

    def ours() -> None:
        compute_features(bars, leader, params)

    for work in (bare, ours):
        work()
    ratios, bare_ms, ours_ms = [], [], []
    for _ in range(15):
        bare_ms.append(seconds(bare) * 1e3)
        ours_ms.append(seconds(ours) * 1e3)
        ratios.append(ours_ms[-1] / count / (bare_ms[-1] / len(calls)))
    window, lead = _last(bars, WINDOW_BARS), _last(leader, WINDOW_BARS)
    live = [1e3 * taken for taken in times(lambda: compute_features(window, lead, params), 50)]
    what = f"{len(bars):,} bars"
    return [
        row_of(
            BENCH, f"one of {count} features on {what} over one of {len(calls)} bare TA-Lib calls", ratios, "x", 2.0
        ),
        row_of(BENCH, f"{count} features on {what}", ours_ms, "ms"),
        row_of(BENCH, f"{len(calls)} bare TA-Lib calls on {what}", bare_ms, "ms"),
        row_of(BENCH, f"{count} features of a live window of {WINDOW_BARS} bars", live, "ms", 3.0),
    ]


# --------------------------------------------------------------------------------------------------------------- labels
def _label_rows(bars: Bars, params: StrategyParams) -> list[Row]:
    families = family_codes(regime_codes(measure_regime(bars, params), params))
    half = len(bars) // 2
    label_bars(bars, families, params)
    whole, halves = [], []
    for _ in range(9):
        whole.append(seconds(lambda: label_bars(bars, families, params)) * 1e3)
        halves.append(
            seconds(lambda: label_bars(bars.slice(0, half), families[:half], params)) * 1e3
            + seconds(lambda: label_bars(bars.slice(half, len(bars)), families[half:], params)) * 1e3
        )
    linear = [one / two for one, two in zip(whole, halves, strict=True)]
    return [
        row_of(BENCH, f"labels of {len(bars):,} bars", whole, "ms", 50.0),
        row_of(BENCH, "labels of all bars at once over both halves apart (linear: 1)", linear, "x", 1.25),
    ]


# ---------------------------------------------------------------------------------------------------------------- cycle
def _cycle_rows(series: Sequence[Bars], params: StrategyParams) -> list[Row]:
    """One trade cycle's compute: features and regime of fifty symbols from loaded bars, one batch of predictions."""
    model = _model(series, params)
    windows = [_last(series[i % len(series)], LIVE_WINDOW_BARS) for i in range(CYCLE_SYMBOLS)]
    leads = [_leading(series[0], window) for window in windows]
    states = [classify_regimes(window, params)[-1] for window in windows]

    def cycle() -> None:
        rows: dict[str, tuple[datetime, Any]] = {}
        regimes: dict[str, RegimeState] = {}
        for i, (window, lead) in enumerate(zip(windows, leads, strict=True)):
            symbol = f"S{i}/USDT"
            rows[symbol] = (states[i].bar, compute_features(window, lead, params).values[-1])
            regimes[symbol] = classify_regimes(window, params, states[i].regime, int(window.open_time_ms[-1]))[-1]
        model.predict(rows, regimes)

    fifty = np.random.default_rng(7).standard_normal((CYCLE_SYMBOLS, len(model.feature_names))).astype(np.float32)
    family = next(iter(model.families.values()))
    family.probabilities(fifty)
    cycle()
    three = [1e3 * taken for taken in times(lambda: family.probabilities(fifty), 30)]
    whole = [1e3 * taken for taken in times(cycle, 7)]
    rounds = ", ".join(str(booster.rounds) for booster in family.boosters)
    return [
        row_of(BENCH, f"features, regimes and predictions of {CYCLE_SYMBOLS} symbols, bars loaded", whole, "ms", 500.0),
        row_of(BENCH, f"three models ({rounds} rounds) together on {CYCLE_SYMBOLS} rows", three, "ms", 15.0),
    ]  # fmt: skip


def _leading(leader: Bars, window: Bars) -> Bars:
    end = int(np.searchsorted(leader.open_time_ms, window.open_time_ms[-1], side="right"))
    return leader.slice(max(end - LIVE_WINDOW_BARS, 0), end)


def _model(series: Sequence[Bars], params: StrategyParams) -> LoadedModel:
    """Both families with all rounds that are allowed: serving is never slower than this."""
    settings = FitSettings()
    patient = replace(settings.boosters, early_stopping_rounds=settings.boosters.max_rounds)
    recent = [_last(bars, 20_000) for bars in series]
    panels = [build_panel(bars, _until(recent[0], bars), params) for bars in recent]
    end_ms = max(int(bars.open_time_ms[-1]) for bars in recent)
    families = {}
    for family in FAMILIES:
        fitted = fit_family(family, pool(panels, family, 0, end_ms), replace(settings, boosters=patient))
        boosters = tuple(
            # CatBoost keeps the best rounds alone; the others hold all of them and are asked for all.
            booster if booster.library == "catboost" else replace(booster, rounds=patient.max_rounds)  # type: ignore[type-var]
            for booster in fitted.boosters
        )
        families[family] = replace(fitted, boosters=boosters)
    return LoadedModel("bench", datetime.fromtimestamp(end_ms / 1000, UTC), panels[0].names, families)


def _until(leader: Bars, bars: Bars) -> Bars:
    return leader.slice(0, int(np.searchsorted(leader.open_time_ms, bars.open_time_ms[-1], side="right")))


# ----------------------------------------------------------------------------------------------------------- retraining
def _retraining_rows(series: Sequence[Bars], options: BenchOptions) -> list[Row]:
    found = _retrain(series, options)
    fits = f"{found['fits']} library fits inside"
    whole = f"a retraining of {len(series)} symbols × {max(map(len, series)):,} bars, {_FOLDS} folds"
    pooled = found["metrics"]["promotion"]["pooled"]
    gain = found["metrics"]["walk_forward"].get("log_loss_gain")
    return [
        Row(BENCH, f"{whole}, over the sum of the {fits}", found["seconds"] / found["fits_s"], "x", 1.15),
        Row(BENCH, f"{whole}, over the time in which fits ran", found["seconds"] / found["fits_wall_s"], "x"),
        Row(BENCH, whole, found["seconds"], "s", 600.0),
        Row(BENCH, f"{whole}, most memory", found["peak_mib"], "MiB", 2048.0),
        Row(BENCH, "its log-loss gain over the base rate in the promotion window", pooled["log_loss_gain"], "nat"),
        Row(BENCH, "the same over its folds", float("nan") if gain is None else gain, "nat"),
    ]


def _retrain(series: Sequence[Bars], options: BenchOptions) -> dict[str, Any]:
    """Run `bench.retraining` on these bars and return what it printed."""
    import tempfile

    from tradewind.bench.retraining import COLUMNS

    with tempfile.TemporaryDirectory(prefix="tradewind-bench-") as directory:
        path = Path(directory) / "bars.npz"
        stored = {f"{bars.symbol} {column}": getattr(bars, column) for bars in series for column in COLUMNS}
        np.savez(path, symbols=np.array([bars.symbol for bars in series]), **stored)
        command = [sys.executable, "-m", "tradewind.bench.retraining", str(path), "--folds", str(_FOLDS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the retraining failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    options.say(
        f"{found['report']['version']}: promoted {found['report']['promoted']}, gates {found['report']['gates']}"
    )
    return found
