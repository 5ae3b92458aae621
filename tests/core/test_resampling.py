"""Context bars: complete or absent, on the UTC grid, and never seen before they closed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.toy_market import START_MS, toy_bars, without
from tradewind.core.resampling import BASE_MS, CONTEXT_MS, bars_per, join_known, known_rows, resample


@pytest.mark.parametrize("timeframe", ["1h", "4h"])
def test_a_context_bar_is_made_of_its_parts(timeframe: str) -> None:
    bars = toy_bars("BTC/USDT", 200, seed=1)
    parts = bars_per(timeframe)
    context = resample(bars, timeframe)
    assert len(context) == 200 // parts
    assert context.timeframe == timeframe
    first = slice(parts, 2 * parts)
    assert context.open_time_ms[1] == bars.open_time_ms[parts]
    assert context.open[1] == bars.open[parts]
    assert context.high[1] == bars.high[first].max()
    assert context.low[1] == bars.low[first].min()
    assert context.close[1] == bars.close[2 * parts - 1]
    assert context.volume[1] == pytest.approx(bars.volume[first].sum())


def test_a_window_that_starts_off_the_grid_gives_the_same_bars() -> None:
    bars = toy_bars("BTC/USDT", 400, seed=2)
    whole, part = resample(bars, "4h"), resample(bars.slice(7, 400), "4h")
    assert np.array_equal(whole.open_time_ms[1:], part.open_time_ms)
    assert np.array_equal(whole.close[1:], part.close)


@given(st.sets(st.integers(0, 99), max_size=12))
def test_a_missing_part_makes_the_bar_absent_and_touches_no_other(rows: set[int]) -> None:
    bars = toy_bars("BTC/USDT", 100, seed=3)
    holed = resample(without(bars, sorted(rows)), "1h")
    whole = resample(bars, "1h")
    absent = {START_MS + (row // 4) * CONTEXT_MS["1h"] for row in rows}
    assert set(holed.open_time_ms.tolist()) == set(whole.open_time_ms.tolist()) - absent
    kept = np.isin(whole.open_time_ms, holed.open_time_ms)
    assert np.array_equal(whole.high[kept], holed.high)


@given(st.sets(st.integers(0, 199), max_size=40), st.sampled_from(["1h", "4h"]))
def test_a_context_value_is_known_only_after_its_bar_closed(rows: set[int], timeframe: str) -> None:
    bars = without(toy_bars("BTC/USDT", 200, seed=4), sorted(rows))
    context = resample(bars, timeframe)
    seen = known_rows(bars.open_time_ms, context.open_time_ms, timeframe)
    for row, at in enumerate(seen):
        now_ms = bars.open_time_ms[row] + BASE_MS
        closed = np.flatnonzero(context.open_time_ms + CONTEXT_MS[timeframe] <= now_ms)
        assert at == (closed[-1] if len(closed) else -1)


def test_nothing_is_known_without_context_bars() -> None:
    bars = toy_bars("BTC/USDT", 3, seed=5)
    context = resample(bars, "1h")
    assert len(context) == 0
    rows = known_rows(bars.open_time_ms, context.open_time_ms, "1h")
    assert np.isnan(join_known(context.close, rows)).all()


def test_other_timeframes_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'2h' is not resampled"):
        resample(toy_bars("BTC/USDT", 10, seed=1), "2h")
