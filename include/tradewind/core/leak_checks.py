"""Three ways to catch a feature that knows the future, or that a live window cannot reproduce.

* truncation: the value at t from the bars up to t is that of the whole history, bit for bit up to rounding.
* warm-up: the value at t from the declared warm-up alone is that of the whole history.
* future: changing every bar after t changes nothing at or before t.

Tolerance everywhere: 1e-6 relative or 1e-9 absolute.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .feature_table import FEATURES, Feature
from .features import compute_features, longest_warmup_bars
from .params import StrategyParams
from .resampling import BASE_MS
from .types import Bars, FloatArray

RELATIVE: Final = 1e-6
ABSOLUTE: Final = 1e-9
_FUTURE_MOMENTS: Final = 5


@dataclass(frozen=True, slots=True)
class Leak:
    """One feature that failed one check: where, and the two values that should agree."""

    check: str
    feature: str
    open_time_ms: int
    whole: float
    part: float


def differs(whole: FloatArray, part: FloatArray) -> FloatArray:
    """Mask of the values that do not agree; NaN agrees with NaN alone."""
    known = ~np.isnan(whole) & ~np.isnan(part)
    with np.errstate(invalid="ignore"):
        near = np.abs(whole - part) <= np.maximum(ABSOLUTE, RELATIVE * np.abs(whole))
    return np.where(known, ~near, np.isnan(whole) != np.isnan(part))


def check_truncation(
    bars: Bars, leader: Bars, params: StrategyParams, rows: Sequence[int], features: tuple[Feature, ...] = FEATURES
) -> list[Leak]:
    """Each feature at each of `rows`, from the history up to it."""
    whole = compute_features(bars, leader, params, features).values
    leaks: list[Leak] = []
    for row in rows:
        at_ms = int(bars.open_time_ms[row])
        cut = bars.slice(0, row + 1)
        part = compute_features(cut, _until(leader, at_ms), params, features).values[-1]
        leaks += _found("truncation", features, at_ms, whole[row], part)
    return leaks


def check_warmup(
    bars: Bars, leader: Bars, params: StrategyParams, rows: Sequence[int], features: tuple[Feature, ...] = FEATURES
) -> list[Leak]:
    """Each feature at each of `rows`, from a window as long as its declared warm-up.

    A warm-up is declared for bars without gaps; rows whose window has one are passed over.
    """
    whole = compute_features(bars, leader, params, features).values
    by_warmup: dict[int, list[int]] = defaultdict(list)
    for column, feature in enumerate(features):
        by_warmup[feature.warmup_bars].append(column)
    leaks: list[Leak] = []
    for row in rows:
        at_ms = int(bars.open_time_ms[row])
        for warmup, columns in by_warmup.items():
            first = row - warmup + 1
            if first < 0 or at_ms - int(bars.open_time_ms[first]) != (warmup - 1) * BASE_MS:
                continue
            known = _until(leader, at_ms)
            if len(known) < warmup or at_ms - int(known.open_time_ms[-warmup]) != (warmup - 1) * BASE_MS:
                continue
            chosen = tuple(features[column] for column in columns)
            window = bars.slice(first, row + 1)
            lead = known.slice(len(known) - warmup, len(known))
            part = compute_features(window, lead, params, chosen).values[-1]
            leaks += _found("warm-up", chosen, at_ms, whole[row, columns], part)
    return leaks


def check_future(
    bars: Bars, leader: Bars, params: StrategyParams, rows: Sequence[int], features: tuple[Feature, ...] = FEATURES
) -> list[Leak]:
    """Each feature at and before each of `rows`, with every later bar replaced by another price path."""
    whole = compute_features(bars, leader, params, features).values
    leaks: list[Leak] = []
    for row in rows:
        at_ms = int(bars.open_time_ms[row])
        changed = compute_features(_bent(bars, at_ms), _bent(leader, at_ms), params, features).values
        wrong = differs(whole[: row + 1], changed[: row + 1])
        for column in np.flatnonzero(wrong.any(axis=0)):
            first = int(np.argmax(wrong[:, column]))
            leaks.append(
                Leak(
                    "future",
                    features[column].name,
                    int(bars.open_time_ms[first]),
                    float(whole[first, column]),
                    float(changed[first, column]),
                )
            )
    return leaks


@dataclass(frozen=True, slots=True)
class Examined:
    """What the three checks found in one symbol, and at which rows of its bars they looked."""

    rows: tuple[int, ...]
    leaks: tuple[Leak, ...]


def examine(
    bars: Bars, leader: Bars, params: StrategyParams, count: int, seed: int, features: tuple[Feature, ...] = FEATURES
) -> Examined:
    """All three checks of one symbol at `count` random moments; no moments where the history is too short.

    Bars may have gaps: a moment without the leader's bar is none at which a decision could be made, and is passed over.
    """
    led = np.flatnonzero(np.isin(bars.open_time_ms, leader.open_time_ms))
    if len(led) == 0:
        return Examined((), ())
    bars = bars.slice(0, int(led[-1]) + 1)
    present = set(led.tolist())
    rows = [row for row in sample_rows(bars, count, seed) if row in present]
    leaks = check_truncation(bars, leader, params, rows, features) + check_warmup(bars, leader, params, rows, features)
    # The whole history is computed anew for each, so a few moments are enough there.
    leaks += check_future(bars, leader, params, rows[:: max(len(rows) // _FUTURE_MOMENTS, 1)], features)
    return Examined(tuple(rows), tuple(leaks))


def sample_rows(bars: Bars, count: int, seed: int) -> list[int]:
    """Rows to check: random ones past the longest warm-up, ascending; none when the history is shorter."""
    first = longest_warmup_bars()
    if len(bars) <= first + 1:
        return []
    rows = np.random.default_rng(seed).choice(
        np.arange(first, len(bars) - 1), min(count, len(bars) - 1 - first), replace=False
    )
    return sorted(int(row) for row in rows)


def _until(bars: Bars, at_ms: int) -> Bars:
    return bars.slice(0, int(np.searchsorted(bars.open_time_ms, at_ms, side="right")))


def _bent(bars: Bars, after_ms: int) -> Bars:
    """The same bars up to `after_ms`; later ones doubled in price and volume, and in reverse order."""
    keep = int(np.searchsorted(bars.open_time_ms, after_ms, side="right"))

    def bend(column: FloatArray) -> FloatArray:
        return np.concatenate([column[:keep], 2.0 * column[keep:][::-1]])

    return Bars(
        bars.symbol,
        bars.timeframe,
        bars.open_time_ms,
        bend(bars.open),
        bend(bars.high),
        bend(bars.low),
        bend(bars.close),
        bend(bars.volume),
    )


def _found(check: str, features: Sequence[Feature], at_ms: int, whole: FloatArray, part: FloatArray) -> list[Leak]:
    wrong = differs(whole, part)
    return [
        Leak(check, feature.name, at_ms, float(whole[i]), float(part[i]))
        for i, feature in enumerate(features)
        if wrong[i]
    ]
