from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.trading import BAR_MS, PARAMS, STEP_MS, random_bars
from tradewind.core.candles import take
from tradewind.core.market_numbers import (
    atr_1h,
    market_columns,
    market_numbers,
    missing_in_window,
    return_correlation,
)
from tradewind.core.types import Bars

BARS = random_bars(count=2400, seed=3)


def test_the_past_does_not_change_when_the_future_comes() -> None:
    whole = market_columns(BARS, PARAMS)
    for end in (900, 1333, 2399):
        part = market_numbers(BARS.slice(0, end), PARAMS)
        assert part is not None
        assert part == whole.at(end - 1)


def test_a_higher_bar_is_seen_only_once_it_has_closed() -> None:
    atr = atr_1h(BARS)
    changes = np.flatnonzero(np.diff(atr[200:]) != 0) + 201
    # The 15m bar that opens at minute 45 closes with its hour: only there may a new value appear.
    assert set((BARS.open_time_ms[changes] // STEP_MS) % 4) == {3}


def test_not_warm_is_unknown() -> None:
    assert market_numbers(BARS.slice(0, 400), PARAMS) is None
    assert market_numbers(BARS.slice(0, 0), PARAMS) is None


def test_missing_bars_are_counted_by_time() -> None:
    kept = np.ones(len(BARS), dtype=bool)
    kept[2000:2003] = False
    times = BARS.open_time_ms[kept]
    missing = missing_in_window(times, 96)
    row = {int(t): i for i, t in enumerate(times)}
    assert missing[row[int(BARS.open_time_ms[2003])]] == 3
    assert missing[row[int(BARS.open_time_ms[2003 + 92])]] == 3
    assert missing[row[int(BARS.open_time_ms[2003 + 95])]] == 0
    assert missing[0] == 95
    assert missing[95] == 0


def shifted(bars: Bars, symbol: str, noise: float, seed: int) -> Bars:
    rng = np.random.default_rng(seed)
    return replace(bars, symbol=symbol, close=bars.close * np.exp(np.cumsum(rng.normal(0, noise, len(bars)))))


def test_correlation_is_of_returns_between_neighbouring_bars() -> None:
    same = return_correlation(BARS, replace(BARS, symbol="X/USDT"), BAR_MS, 672)
    assert same == pytest.approx(1.0)
    near = return_correlation(BARS, shifted(BARS, "X/USDT", 0.001, 5), BAR_MS, 672)
    far = return_correlation(BARS, random_bars("Y/USDT", 2400, seed=11), BAR_MS, 672)
    assert near is not None
    assert far is not None
    assert near > 0.8
    assert abs(far) < 0.2
    expected = np.corrcoef(
        np.diff(np.log(BARS.close))[-672:], np.diff(np.log(shifted(BARS, "X/USDT", 0.001, 5).close))[-672:]
    )
    assert near == pytest.approx(expected[0, 1])


def test_correlation_sees_nothing_at_or_after_its_end_and_says_when_it_does_not_know() -> None:
    other = shifted(BARS, "X/USDT", 0.002, 6)
    end_ms = int(BARS.open_time_ms[1500])
    known = return_correlation(BARS, other, end_ms, 672)
    assert known == return_correlation(BARS.slice(0, 1500), other.slice(0, 1500), end_ms, 672)
    assert return_correlation(BARS.slice(0, 200), other.slice(0, 200), int(BARS.open_time_ms[200]), 672) is None
    flat = replace(BARS, close=np.full(len(BARS), 5.0))
    assert return_correlation(BARS, flat, BAR_MS, 672) is None


def test_correlation_survives_gaps_on_either_side() -> None:
    rng = np.random.default_rng(0)
    holes = take(BARS, rng.uniform(size=len(BARS)) > 0.1)
    other = take(shifted(BARS, "X/USDT", 0.001, 5), rng.uniform(size=len(BARS)) > 0.1)
    gappy = return_correlation(holes, other, BAR_MS, 672)
    assert gappy is not None
    assert gappy > 0.8
