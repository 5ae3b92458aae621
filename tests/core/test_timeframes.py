from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.core.timeframes import (
    TIMEFRAME_MS,
    ceil_ms,
    closed_until_ms,
    count_opens,
    expected_opens_ms,
    floor_ms,
    from_ms,
    last_closed_open_ms,
    timeframe_ms,
    to_ms,
)

moments_ms = st.integers(0, 4_102_444_800_000)
timeframes = st.sampled_from(sorted(TIMEFRAME_MS))
spans_ms = st.integers(0, 50 * 86_400_000)


@given(moments_ms)
def test_a_moment_survives_both_ways(ms: int) -> None:
    assert to_ms(from_ms(ms)) == ms
    assert from_ms(ms).utcoffset() == timedelta(0)


def test_another_zone_names_the_same_moment_and_none_is_refused() -> None:
    there = datetime(2024, 3, 5, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    assert to_ms(there) == to_ms(datetime(2024, 3, 5, 12, 30, tzinfo=UTC))
    with pytest.raises(ValueError, match="no timezone"):
        to_ms(datetime(2024, 3, 5))


@given(moments_ms, timeframes)
def test_floor_and_ceil_stand_on_the_grid_around_the_moment(ms: int, timeframe: str) -> None:
    step = timeframe_ms(timeframe)
    assert floor_ms(ms, timeframe) <= ms <= ceil_ms(ms, timeframe)
    assert floor_ms(ms, timeframe) % step == ceil_ms(ms, timeframe) % step == 0
    assert ceil_ms(ms, timeframe) - floor_ms(ms, timeframe) in (0, step)


@given(moments_ms, timeframes)
def test_the_newest_closed_bar_has_just_closed(now_ms: int, timeframe: str) -> None:
    step = timeframe_ms(timeframe)
    opened = last_closed_open_ms(now_ms, timeframe)
    assert opened + step <= now_ms < opened + 2 * step
    assert opened < closed_until_ms(now_ms, timeframe) <= opened + step


@given(moments_ms, spans_ms, spans_ms, timeframes)
def test_neighbouring_intervals_share_no_open_and_lose_none(
    start: int, first: int, second: int, timeframe: str
) -> None:
    middle, end = start + first, start + first + second
    parts = [expected_opens_ms(start, middle, timeframe), expected_opens_ms(middle, end, timeframe)]
    np.testing.assert_array_equal(np.concatenate(parts), expected_opens_ms(start, end, timeframe))


@given(moments_ms, spans_ms, timeframes)
def test_counting_opens_is_the_length_of_listing_them(start: int, span: int, timeframe: str) -> None:
    assert count_opens(start, start + span, timeframe) == len(expected_opens_ms(start, start + span, timeframe))
    assert count_opens(start + span + 1, start, timeframe) == 0


def test_an_unknown_timeframe_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'7m'.*15m"):
        timeframe_ms("7m")
