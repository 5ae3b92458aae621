"""Measure the synthetic market: what a model can find in it, and that nothing can be found without structure.

`python -m tradewind.paper.calibrate --seed 7 --structure 1` prints, out of sample and after costs:

- the best single feature's AUC for each label class (it must stay at or below 0.58: no rule of thumb wins here);
- the gain in log-loss of a boosted model over the base rate, and the expectancy in R of its best-scored tenth;
- excess kurtosis of 15m returns, and how long absolute returns stay correlated (volatility clusters);
- the correlation between symbols.

The labels are the strategy's: each regime family's bracket on every bar, and on that family's own bars.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import lightgbm
import numpy as np
from scipy.stats import kurtosis, rankdata

from tradewind.core.features import compute_features
from tradewind.core.labels import NO_LABEL, label_bars
from tradewind.core.params import StrategyParams
from tradewind.core.regime import FAMILIES, family_codes, measure_regime, regime_codes
from tradewind.core.types import Bars, FloatArray, IntArray
from tradewind.paper.intervals import aggregate
from tradewind.paper.markets import DAY_MS
from tradewind.paper.markets_synthetic import SyntheticMarket, SyntheticParams

_WARMUP_DAYS = 55
_PURGE_BARS = 97
_BOOSTER = {
    "objective": "multiclass", "num_class": 3, "learning_rate": 0.03, "num_leaves": 12, "min_data_in_leaf": 400,
    "feature_fraction": 0.5, "bagging_fraction": 0.5, "bagging_freq": 1, "lambda_l2": 20.0, "verbosity": -1,
    "num_threads": 2, "seed": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Findings:
    """What one labelling of the market yields. R multiples are after costs, for long entries."""

    labelling: str
    rows: int
    base_rates: tuple[float, float, float]
    best_feature: str
    best_feature_auc: float
    best_feature_by_class: tuple[str, ...]
    base_log_loss: float
    model_log_loss: float
    model_auc_long: float
    expectancy_all_r: float
    expectancy_top_decile_r: float
    expectancy_top_decile_se_r: float
    expectancy_top_3_percent_r: float
    highest_probability_long: float
    share_over_40_percent: float

    @property
    def log_loss_gain(self) -> float:
        return self.base_log_loss - self.model_log_loss


@dataclass(frozen=True, slots=True)
class Character:
    """The market's returns at 15 minutes."""

    daily_sigma_frac: float
    excess_kurtosis: float
    absolute_autocorrelation_1h: float
    absolute_autocorrelation_1d: float
    return_autocorrelation_15m: float
    mean_correlation: float


def load_bars(market: SyntheticMarket, symbol: str, start_ms: int, end_ms: int) -> Bars:
    """15m bars of a symbol of the market, in prices and base units."""
    rules = market.rules[symbol]
    bars = aggregate(market.bars(symbol, start_ms, end_ms), "15m")
    tick, step = np.float64(rules.tick), np.float64(rules.step)
    return Bars(
        f"{rules.base}/{rules.quote}",
        "15m",
        bars.open_ms,
        bars.open * tick,
        bars.high * tick,
        bars.low * tick,
        bars.close * tick,
        bars.volume * step,
    )


def auc(score: FloatArray, positive: FloatArray) -> float:
    """Area under the ROC curve, ties counted half."""
    ranks = rankdata(score)
    n_pos = int(positive.sum())
    n_neg = len(positive) - n_pos
    if not n_pos or not n_neg:
        return 0.5
    return float((ranks[positive.astype(bool)].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def character(series: Sequence[Bars]) -> Character:
    returns = [np.diff(np.log(b.close)) for b in series]

    def lagged(values: FloatArray, lag: int) -> float:
        return float(np.corrcoef(values[:-lag], values[lag:])[0, 1])

    correlations = np.corrcoef(np.vstack(returns))[np.triu_indices(len(returns), 1)]
    return Character(
        float(np.mean([r.std() for r in returns]) * np.sqrt(96)),
        float(np.mean([kurtosis(r) for r in returns])),
        float(np.mean([lagged(np.abs(r), 4) for r in returns])),
        float(np.mean([lagged(np.abs(r), 96) for r in returns])),
        float(np.mean([lagged(r, 1) for r in returns])),
        float(correlations.mean()) if len(correlations) else 1.0,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows of all symbols with a known outcome: features, class, result of a long entry in R, open time."""

    names: tuple[str, ...]
    x: FloatArray
    y: IntArray
    net_r: FloatArray
    time_ms: IntArray


def collect(series: Sequence[Bars], params: StrategyParams) -> dict[str, Sample]:
    """One sample a labelling: each bracket on every bar, and each on the bars of its own regime family."""
    leader = next((b for b in series if b.symbol == params.leader_symbol), series[0])
    parts: dict[str, list[tuple[FloatArray, IntArray, FloatArray, IntArray]]] = {}
    names: tuple[str, ...] = ()
    for bars in series:
        matrix = compute_features(bars, leader, params)
        names = matrix.names
        complete = np.isfinite(matrix.values).all(axis=1)
        families = family_codes(regime_codes(measure_regime(bars, params), params))
        for code, family in enumerate(FAMILIES):
            labels = label_bars(bars, np.full_like(families, code), params)
            known = (labels.label != NO_LABEL) & complete
            for labelling, rows in (
                (f"{family} bracket, all bars", known),
                (f"{family} bracket, its own bars", known & (families == code)),
            ):
                parts.setdefault(labelling, []).append(
                    (matrix.values[rows], labels.label[rows], labels.net_r_long[rows], bars.open_time_ms[rows])
                )
    return {
        labelling: Sample(names, *(np.concatenate(column) for column in zip(*rows, strict=True)))
        for labelling, rows in parts.items()
    }


def find(labelling: str, sample: Sample, test_days: int) -> Findings:
    """Train on all but the last `test_days` (purged), measure on those."""
    x, y, r, t = sample.x, sample.y, sample.net_r, sample.time_ms
    split_ms = int(t.max()) - test_days * DAY_MS
    train, test = t < split_ms - _PURGE_BARS * 900_000, t >= split_ms
    per_class = [_best_feature(x, y == c, sample.names) for c in range(3)]
    best_name, best_auc = max(per_class, key=lambda found: found[1])

    stop_ms = int(np.quantile(t[train], 0.85))
    fit, stop = train & (t < stop_ms - _PURGE_BARS * 900_000), train & (t >= stop_ms)
    booster = lightgbm.train(
        _BOOSTER,
        lightgbm.Dataset(x[fit], y[fit]),
        num_boost_round=600,
        valid_sets=[lightgbm.Dataset(x[stop], y[stop])],
        callbacks=[lightgbm.early_stopping(60, verbose=False)],
    )
    probability = np.asarray(booster.predict(x[test]))
    base = np.bincount(y[train], minlength=3) / train.sum()
    chosen, outcome = y[test], r[test]
    order = np.argsort(probability[:, 1] - probability[:, 0])
    top = outcome[order[: len(order) // 10]]
    return Findings(
        labelling,
        len(y),
        (float(base[0]), float(base[1]), float(base[2])),
        best_name,
        best_auc,
        tuple(f"{n} {a:.3f}" for n, a in per_class),
        float(-np.log(base[chosen]).mean()),
        float(-np.log(probability[np.arange(len(chosen)), chosen]).mean()),
        auc(probability[:, 0], chosen == 0),
        float(outcome.mean()),
        float(top.mean()),
        # Neighbouring bars share their outcome: the error counts one observation an hour of each symbol's six.
        float(top.std() / np.sqrt(max(1.0, len(top) / 24))),
        float(outcome[order[: max(1, len(order) // 33)]].mean()),
        float(probability[:, 0].max()),
        float((probability[:, 0] > 0.40).mean()),
    )


def _best_feature(x: FloatArray, positive: FloatArray, names: tuple[str, ...]) -> tuple[str, float]:
    step = max(1, len(x) // 60_000)
    scores = [auc(x[::step, i], positive[::step]) for i in range(x.shape[1])]
    folded = [max(a, 1 - a) for a in scores]
    i = int(np.argmax(folded))
    return names[i], folded[i]


def measure(
    seed: int,
    structure: float,
    months: int,
    test_days: int,
    end_ms: int,
    symbols: Sequence[str],
    market_params: SyntheticParams | None = None,
) -> tuple[Character, list[Findings]]:
    market = SyntheticMarket(symbols, seed, structure, market_params)
    start_ms = end_ms - (months * 30 + _WARMUP_DAYS) * DAY_MS
    series = [load_bars(market, s, start_ms, end_ms) for s in market.rules]
    samples = collect(series, StrategyParams())
    return character(series), [find(labelling, sample, test_days) for labelling, sample in samples.items()]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tradewind.paper.calibrate", description=__doc__)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--structure", type=float, default=1.0)
    parser.add_argument("--months", type=int, default=6)
    parser.add_argument("--test-days", type=int, default=45)
    parser.add_argument("--end-ms", type=int, default=1_760_000_000_000 // DAY_MS * DAY_MS)
    parser.add_argument("--symbols", default="BTC/USDT,ETH/USDT,SOL/USDT,BNB/USDT,XRP/USDT")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of SyntheticParams")
    options = parser.parse_args(argv)
    changed = {name: float(value) for name, _, value in (item.partition("=") for item in options.set)}
    market_params = replace(SyntheticParams(), **changed)
    for seed in options.seed or [7]:
        shape, findings = measure(
            seed,
            options.structure,
            options.months,
            options.test_days,
            options.end_ms,
            options.symbols.split(","),
            market_params,
        )
        print(
            json.dumps(
                {"seed": seed, "structure": options.structure, **{k: round(v, 4) for k, v in asdict(shape).items()}}
            )
        )
        for found in findings:
            row = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(found).items()}
            print(json.dumps({"log_loss_gain": round(found.log_loss_gain, 4), **row}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
