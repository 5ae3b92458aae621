from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trading import random_bars
from tradewind.core.candles import empty_bars, take
from tradewind.core.quality import QualityRules, judge_quality, surely_sound
from tradewind.core.resampling import resample
from tradewind.core.timeframes import timeframe_ms
from tradewind.core.types import Bars

STEP = timeframe_ms("15m")
RULES = QualityRules()
COUNT = RULES.window_bars
BAR_MS = (COUNT - 1) * STEP


@pytest.fixture
def window() -> Bars:
    rng = np.random.default_rng(5)
    body = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, COUNT + 1)))
    opened, close = body[:-1], body[1:]
    high, low = np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999
    times = np.arange(COUNT, dtype=np.int64) * STEP
    return Bars("BTC/USDT", "15m", times, opened, high, low, close, rng.uniform(50, 150, COUNT))


def broken(window: Bars, hourly: Bars | None = None, rules: QualityRules = RULES) -> list[str]:
    verdict = judge_quality(window, empty_bars("BTC/USDT", "1h") if hourly is None else hourly, BAR_MS, rules)
    assert verdict.passed == (not verdict.findings)
    return sorted(verdict.findings)


def test_a_complete_fresh_and_sane_window_passes(window: Bars) -> None:
    assert broken(window) == []
    assert broken(window, resample(window, "1h")) == []


def test_a_missing_bar_inside_is_seen(window: Bars) -> None:
    hole = take(window, np.arange(COUNT) != 50)
    assert broken(hole) == ["incomplete"]
    assert broken(hole, rules=replace(RULES, max_missing_bars=1)) == []


def test_a_window_without_its_newest_bar_is_stale(window: Bars) -> None:
    assert broken(window.slice(0, COUNT - 1)) == ["incomplete", "stale"]
    assert broken(empty_bars("BTC/USDT", "15m")) == ["incomplete", "stale"]


def test_what_opened_later_is_not_looked_at(window: Bars) -> None:
    later = window.volume.copy()
    later[-5:] = 0.0
    earlier_bar_ms = BAR_MS - 5 * STEP
    rules = replace(RULES, window_bars=COUNT - 5)
    verdict = judge_quality(replace(window, volume=later), empty_bars("BTC/USDT", "1h"), earlier_bar_ms, rules)
    assert verdict.passed


def test_a_run_without_volume_is_seen(window: Bars) -> None:
    volume = window.volume.copy()
    volume[20 : 20 + RULES.max_zero_volume_run_bars] = 0.0
    assert broken(replace(window, volume=volume)) == []
    volume[20 + RULES.max_zero_volume_run_bars] = 0.0
    assert broken(replace(window, volume=volume)) == ["zero_volume"]


def test_a_jump_is_believed_only_with_volume(window: Bars) -> None:
    high, volume = window.high.copy(), window.volume.copy()
    high[100] *= 1.5
    volume[100] = 10.0
    assert broken(replace(window, high=high, volume=volume)) == ["jump"]
    volume[100] = 1_000.0
    assert broken(replace(window, high=high, volume=volume)) == []


def test_stored_hours_must_equal_their_quarters(window: Bars) -> None:
    hourly = resample(window, "1h")
    volume = hourly.volume.copy()
    volume[3] *= 1.01
    assert broken(window, replace(hourly, volume=volume)) == ["hourly_differs"]
    assert broken(window, take(hourly, np.arange(len(hourly)) != 3)) == []


def test_a_broken_bound_is_seen(window: Bars) -> None:
    low = window.low.copy()
    low[30] = window.high[30] * 2
    assert "broken_bounds" in broken(replace(window, low=low))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    faults=st.lists(
        st.tuples(st.sampled_from(["gap", "zero", "bounds", "nan", "jump", "loud jump"]), st.integers(0, 380)),
        max_size=4,
    ),
    window=st.sampled_from([15, 48, 192]),
)
def test_windows_judged_at_once_are_judged_as_one_by_one(seed: int, faults: list[tuple[str, int]], window: int) -> None:
    bars = random_bars("SOL/USDT", 400, seed=seed)
    keep = np.ones(400, dtype=bool)
    for fault, at in faults:
        if fault == "gap":
            keep[at : at + 2] = False
        elif fault == "zero":
            bars.volume[at : at + 6] = 0.0
        elif fault == "bounds":
            bars.high[at] = bars.low[at] - 1.0
        elif fault == "nan":
            bars.close[at] = np.nan
        else:
            bars.high[at] *= 3.0
            bars.volume[at] *= 50.0 if fault == "loud jump" else 0.01
    bars = take(bars, keep)
    rules = QualityRules(window_bars=window)
    rows = np.arange(len(bars))
    sound = surely_sound(bars, rows, rules)
    for row in rows.tolist():
        seen = bars.slice(max(0, row + 1 - window), row + 1)
        alone = judge_quality(seen, empty_bars("SOL/USDT", "1h"), int(bars.open_time_ms[row]), rules)
        assert alone.passed or not sound[row], (row, alone.findings)
        # A run without volume that began before the window is left to be asked; nothing else is.
        assert sound[row] == alone.passed or "zero" in dict(faults), row


def test_bars_out_of_order_are_never_surely_sound() -> None:
    bars = random_bars("SOL/USDT", 400, seed=1)
    bars.open_time_ms[[200, 201]] = bars.open_time_ms[[201, 200]]
    assert not surely_sound(bars, np.arange(400), QualityRules(window_bars=48)).any()
