"""The features: one vectorised function over the declared table serves training, trading and backtest.

A feature is computed on the bars of its own source and joined to 15m bars at the moment it was known:

* `15m`     the symbol's own decision bars.
* `1h`, `4h` resampled from them on the UTC grid (`core.resampling`); the last bar closed by then.
* `leader`  the market leader's 15m bar of the same open time, alone or against the symbol's.
* `clock`   the bar's close time.

Declared rule for gaps: indicators run over the bars that exist, one row after another; a context bar with a missing
part is absent, and the last known one is carried. A row whose leader bar is missing has NaN in the leader's features:
it is dropped from training and blocks trading.

Values are float64; NaN only inside a feature's declared warm-up (and where the leader is missing).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from tradewind.errors import MissingData

from .feature_table import FEATURES, Feature
from .formulas import LeaderSeries
from .indicators import Series
from .params import StrategyParams
from .resampling import known_rows, resample
from .types import Bars, FloatArray, IntArray

__all__ = [
    "FEATURES",
    "FEATURE_NAMES",
    "LIVE_WINDOW_BARS",
    "Feature",
    "FeatureMatrix",
    "compute_features",
    "features_hash",
    "longest_warmup_bars",
]

FEATURE_NAMES: Final[tuple[str, ...]] = tuple(feature.name for feature in FEATURES)

#: What a live read must hold, in 15m bars: the longest warm-up, and at least 300 bars of 4h.
LIVE_WINDOW_BARS: Final = max(300 * 16, *(feature.warmup_bars for feature in FEATURES))


def longest_warmup_bars(features: tuple[Feature, ...] = FEATURES) -> int:
    """15m bars before the first row without NaN."""
    return max(feature.warmup_bars for feature in features)


def features_hash(names: tuple[str, ...] = FEATURE_NAMES) -> str:
    """Hash of names, order and warm-ups: a model trained on others must not be served."""
    described = {feature.name: f"{feature.source}:{feature.warmup_bars}" for feature in FEATURES}
    return hashlib.sha256("\n".join(f"{name} {described.get(name, '')}" for name in names).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMatrix:
    """Feature values of one symbol: `values` is n × k float64, row i known when the bar at open_time_ms[i] closed."""

    symbol: str
    names: tuple[str, ...]
    open_time_ms: IntArray
    values: FloatArray

    def row_sha256(self, row: int) -> str:
        """Hash of one row's bytes: stored with a decision, so that what the model saw can be proved."""
        return hashlib.sha256(np.ascontiguousarray(self.values[row]).tobytes()).hexdigest()


def compute_features(
    bars_15m: Bars, leader_15m: Bars, params: StrategyParams, features: tuple[Feature, ...] = FEATURES
) -> FeatureMatrix:
    """All features of one symbol at each of its 15m bars.

    Parameters
    ----------
    bars_15m : the symbol's closed bars, ascending, gaps allowed.
    leader_15m : the leader's, reaching at least the symbol's last bar; the same object for the leader itself.
    params : names the leader and the context timeframes.
    features : the table; another one only in tests.

    Returns
    -------
    n × k float64, stored by column. NaN inside each feature's warm-up and, for the leader's features, where its bar is
    missing.

    Raises
    ------
    MissingData : the leader has no bar at the symbol's last one; names it.
    """
    n = len(bars_15m)
    values = np.empty((len(features), n))
    names = tuple(feature.name for feature in features)
    if n == 0:
        return FeatureMatrix(bars_15m.symbol, names, bars_15m.open_time_ms, values.T)
    last_ms = bars_15m.open_time_ms[-1]
    at = int(np.searchsorted(leader_15m.open_time_ms, last_ms))
    if at == len(leader_15m) or leader_15m.open_time_ms[at] != last_ms:
        moment = np.datetime64(int(last_ms), "ms")
        raise MissingData(f"{params.leader_symbol}, the market leader, has no 15m bar at {moment}Z; collect it first")
    own = Series(bars_15m)
    leader = LeaderSeries(leader_15m, own)
    sources: dict[str, Series] = {"15m": own, "clock": own, "leader": leader}
    own_rows = np.arange(n)
    source_rows: dict[str, IntArray] = {"15m": own_rows, "clock": own_rows, "leader": leader.rows}
    for timeframe in params.context_timeframes:
        context = resample(bars_15m, timeframe)
        sources[timeframe] = Series(context)
        source_rows[timeframe] = known_rows(bars_15m.open_time_ms, context.open_time_ms, timeframe)
    # A flat stretch divides zero by zero before the neutral value is chosen.
    with np.errstate(divide="ignore", invalid="ignore"):
        for column, feature in zip(values, features, strict=True):
            series, rows = sources[feature.source], source_rows[feature.source]
            # By the source's own rows, so that a number still coloured by its seed is never seen; rows never descend.
            known = int(np.searchsorted(rows, feature.source_bars - 1))
            column[:known] = np.nan
            if known == n:
                continue
            computed = feature.compute(series)
            if feature.source in params.context_timeframes:
                np.take(computed, rows[known:], out=column[known:])
            else:
                column[known:] = computed[known:]
    return FeatureMatrix(bars_15m.symbol, names, bars_15m.open_time_ms, values.T)
