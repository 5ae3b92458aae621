"""Whether a symbol's recent bars are complete, fresh and sane enough to trade on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .candles import between, check
from .resampling import resample
from .timeframes import columns, timeframe_ms
from .types import Bars, IntArray, QualityVerdict


@dataclass(frozen=True, slots=True)
class QualityRules:
    """When a symbol's recent 15m window may be traded on."""

    window_bars: int = 192
    max_missing_bars: int = 0
    max_zero_volume_run_bars: int = 4
    max_jump_atr: float = 20.0
    jump_volume_ratio: float = 1.0  # a jump is believed when its bar's volume is at least this times the median
    resample_rel_tol: float = 1e-6


def judge_quality(window: Bars, hourly: Bars, bar_ms: int, rules: QualityRules) -> QualityVerdict:
    """Judge the bars up to and including the one opened at `bar_ms`.

    `window` are the newest stored bars of the decision timeframe, `hourly` the stored 1h bars of the same span (length
    0 where none are kept). Nothing opened after `bar_ms` is looked at.
    """
    step = timeframe_ms(window.timeframe)
    start_ms = bar_ms + step - rules.window_bars * step
    seen = between(window, start_ms, bar_ms + step)
    findings: dict[str, dict[str, float | int]] = {}
    missing = rules.window_bars - len(seen)
    if len(seen) == 0 or seen.open_time_ms[-1] != bar_ms:
        last = int(window.open_time_ms[-1]) if len(window) else 0
        findings["stale"] = {"newest_open_ms": last, "bar_ms": bar_ms}
    if missing > rules.max_missing_bars:
        findings["incomplete"] = {"missing_bars": missing, "window_bars": rules.window_bars}
    broken = len(seen) - len(check(seen).bars)
    if broken:
        findings["broken_bounds"] = {"bars": broken}
    run = _longest_run(seen.volume == 0)
    if run > rules.max_zero_volume_run_bars:
        findings["zero_volume"] = {"run_bars": run}
    findings |= _jump(seen, rules)
    differing = _differing_hours(seen, hourly, rules.resample_rel_tol)
    if differing:
        findings["hourly_differs"] = {"bars": differing}
    return QualityVerdict(window.symbol, not findings, findings)


def surely_sound(bars: Bars, rows: IntArray, rules: QualityRules) -> NDArray[np.bool_]:
    """For each of `rows` whether `judge_quality` of the bars up to it surely finds nothing, no hourly bars being kept.

    The same questions asked of many windows at once; where the answer is False `judge_quality` has to be asked.
    """
    step, n = timeframe_ms(bars.timeframe), rules.window_bars
    times = bars.open_time_ms
    first = rows - n + 1
    if len(rows) == 0 or not ((times[1:] > times[:-1]).all() and (times % step == 0).all()):
        return np.zeros(len(rows), dtype=bool)
    prices = np.stack([bars.open, bars.high, bars.low, bars.close])
    with np.errstate(invalid="ignore"):
        sane = np.isfinite(prices).all(axis=0) & np.isfinite(bars.volume) & (prices > 0).all(axis=0)
        sane &= (bars.high >= np.maximum(bars.open, bars.close)) & (bars.low <= np.minimum(bars.open, bars.close))
        sane &= bars.volume >= 0
    traded = np.where(bars.volume == 0, -1, np.arange(len(bars)))
    quiet_for = np.arange(len(bars)) - np.maximum.accumulate(traded)  # zero-volume bars in a row up to each
    faults = np.concatenate(([0], np.cumsum(~sane | (quiet_for > rules.max_zero_volume_run_bars))))
    begin = np.maximum(first, 0)
    sound: NDArray[np.bool_] = (
        (first >= 0) & (times[rows] - times[begin] == (n - 1) * step) & (faults[rows + 1] == faults[begin])
    )
    true_range = np.maximum(bars.high[1:], bars.close[:-1]) - np.minimum(bars.low[1:], bars.close[:-1])
    for part in np.array_split(np.flatnonzero(sound), max(len(rows) // 2000, 1)):
        span = first[part, None] + np.arange(n)
        ranges, volumes = true_range[span[:, :-1]], bars.volume[span]
        typical = np.median(ranges, axis=1, keepdims=True)
        unborne = volumes[:, 1:] < rules.jump_volume_ratio * np.median(volumes, axis=1, keepdims=True)
        jumps = (unborne & (ranges > rules.max_jump_atr * typical)).any(axis=1)
        sound[part] = ~jumps
    return sound


def _longest_run(mask: NDArray[np.bool_]) -> int:
    """The length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(np.int8), 0]))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def _jump(bars: Bars, rules: QualityRules) -> dict[str, dict[str, float | int]]:
    """The largest true range in multiples of the window's median one, reported when its volume does not bear it out."""
    if len(bars) < 15:
        return {}
    true_range = np.maximum(bars.high[1:], bars.close[:-1]) - np.minimum(bars.low[1:], bars.close[:-1])
    typical, typical_volume = float(np.median(true_range)), float(np.median(bars.volume))
    if typical <= 0:
        return {}
    unborne = bars.volume[1:] < rules.jump_volume_ratio * typical_volume
    suspect = np.where(unborne, true_range / typical, 0.0)
    worst = int(np.argmax(suspect))
    if suspect[worst] <= rules.max_jump_atr:
        return {}
    return {"jump": {"open_time_ms": int(bars.open_time_ms[worst + 1]), "true_ranges": float(suspect[worst])}}


def _differing_hours(window: Bars, hourly: Bars, rel_tol: float) -> int:
    """How many stored 1h bars differ from the ones made of the window, where both are there."""
    if len(hourly) == 0:
        return 0
    made = resample(window, "1h")
    _, ours, theirs = np.intersect1d(made.open_time_ms, hourly.open_time_ms, assume_unique=True, return_indices=True)
    differs = np.zeros(len(ours), bool)
    for mine, stored in zip(columns(made)[1:], columns(hourly)[1:], strict=True):
        differs |= ~np.isclose(mine[ours], stored[theirs], rtol=rel_tol, atol=1e-12)
    return int(differs.sum())
