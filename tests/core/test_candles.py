from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.core.candles import (
    between,
    check,
    closed_only,
    empty_bars,
    join_gaps,
    missing_ranges,
    requests_for,
    subtract,
    subtract_gaps,
    take,
    union,
    unlike,
)
from tradewind.core.ports import CandleGap
from tradewind.core.timeframes import columns, expected_opens_ms, timeframe_ms
from tradewind.core.types import Bars

STEP = timeframe_ms("15m")


def make_bars(count: int, symbol: str = "BTC/USDT") -> Bars:
    close = 100 + np.arange(count, dtype=float)
    times = np.arange(count, dtype=np.int64) * STEP
    return Bars(symbol, "15m", times, close - 0.5, close + 1, close - 1, close, np.full(count, 10.0))


def with_value(bars: Bars, column: str, row: int, value: float) -> Bars:
    values = getattr(bars, column).copy()
    values[row] = value
    return replace(bars, **{column: values})


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("open", float("nan"), "NaN"),
        ("high", float("inf"), "infinite"),
        ("volume", float("nan"), "NaN"),
        ("low", 0.0, "not above zero"),
        ("close", -5.0, "not above zero"),
        ("high", 101.0, "high is below"),
        ("low", 102.7, "low is above"),
        ("volume", -1.0, "volume is negative"),
        ("open_time_ms", 3 * STEP + 1, "off the 15m grid"),
        ("open_time_ms", 2 * STEP, "differs from row 2 of the same open time"),
    ],
)
def test_a_row_that_cannot_be_true_is_refused_and_the_rest_kept(column: str, value: float, reason: str) -> None:
    checked = check(with_value(make_bars(6), column, 3, value))
    assert [refused.row for refused in checked.refused] == [3]
    assert reason in checked.refused[0].reason
    assert checked.bars.close.tolist() == [100, 101, 102, 104, 105]


def test_sound_bars_pass_untouched_and_zero_volume_is_sound() -> None:
    bars = with_value(make_bars(5), "volume", 2, 0.0)
    checked = check(bars)
    assert checked.refused == ()
    for mine, theirs in zip(columns(checked.bars), columns(bars), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert len(check(empty_bars("X/USDT", "1h")).bars) == 0


def test_a_repetition_is_refused_and_rows_are_put_in_order() -> None:
    bars = make_bars(4)
    checked = check(take(bars, np.array([2, 0, 1, 0, 3])))
    assert checked.bars.open_time_ms.tolist() == [0, STEP, 2 * STEP, 3 * STEP]
    assert [(refused.row, refused.reason) for refused in checked.refused] == [
        (3, "repeats row 1 of the same open time")
    ]


def test_a_bad_row_does_not_take_the_place_of_a_good_one_of_the_same_time() -> None:
    bars = with_value(take(make_bars(3), np.array([0, 0, 1])), "volume", 0, -1.0)
    checked = check(bars)
    assert [refused.row for refused in checked.refused] == [0]
    assert checked.bars.open_time_ms.tolist() == [0, STEP]


def test_only_closed_bars_are_left() -> None:
    assert closed_only(make_bars(5), 4 * STEP).open_time_ms.tolist() == [0, STEP, 2 * STEP, 3 * STEP]


def test_between_takes_the_start_and_not_the_end() -> None:
    assert between(make_bars(10), 2 * STEP, 4 * STEP).open_time_ms.tolist() == [2 * STEP, 3 * STEP]
    assert between(make_bars(10), 2 * STEP + 1, 3 * STEP).open_time_ms.tolist() == []


# ------------------------------------------------------------------------------------------------------------- ranges
ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


def points(spans: list[tuple[int, int]]) -> set[int]:
    return {point for start, end in spans for point in range(start, end)}


@given(ranges)
def test_union_covers_the_same_points_without_touching_itself(spans: list[tuple[int, int]]) -> None:
    joined = union(spans)
    assert points(joined) == points(spans)
    assert all(start < end for start, end in joined)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(joined))


@given(ranges, ranges)
def test_subtract_leaves_the_points_outside_the_holes(
    spans: list[tuple[int, int]], holes: list[tuple[int, int]]
) -> None:
    left = subtract(spans, holes)
    assert points(left) == points(spans) - points(holes)
    assert all(start < end for start, end in left)


@given(st.sets(st.integers(-5, 50)), st.integers(0, 40 * STEP), st.integers(0, 40 * STEP))
def test_missing_ranges_are_exactly_the_expected_bars_that_are_not_there(
    present: set[int], start_ms: int, span_ms: int
) -> None:
    there = np.array(sorted(present), dtype=np.int64) * STEP
    found = missing_ranges(there, start_ms, start_ms + span_ms, "15m")
    expected = set(expected_opens_ms(start_ms, start_ms + span_ms, "15m").tolist()) - set(there.tolist())
    assert {open_ms for first, past in found for open_ms in range(first, past, STEP)} == expected
    assert found == union(found)


def gap(first: int, past: int, symbol: str = "BTC/USDT") -> CandleGap:
    return CandleGap(symbol, "15m", first * STEP, past * STEP)


def test_gaps_of_different_series_stay_apart() -> None:
    assert join_gaps([gap(5, 7), gap(7, 9), gap(0, 2, "ETH/USDT"), gap(1, 3)]) == [
        gap(1, 3),
        gap(5, 9),
        gap(0, 2, "ETH/USDT"),
    ]
    assert subtract_gaps([gap(0, 10)], [gap(2, 4), gap(0, 10, "ETH/USDT")]) == [gap(0, 2), gap(4, 10)]


gap_lists = st.lists(
    st.builds(
        lambda start, length, symbol: gap(start, start + length, symbol),
        st.integers(0, 500),
        st.integers(1, 60),
        st.sampled_from(["A/USDT", "B/USDT"]),
    ),
    max_size=12,
)


@given(gap_lists, st.integers(1, 40))
def test_requests_cover_every_gap_once_and_none_is_too_long(gaps: list[CandleGap], max_bars: int) -> None:
    requests = requests_for(gaps, max_bars)
    for whole, inside in requests:
        assert whole.end_ms - whole.start_ms <= max_bars * STEP
        assert whole.start_ms == inside[0].start_ms
        assert whole.end_ms == inside[-1].end_ms
        assert {(piece.symbol, piece.timeframe) for piece in inside} == {(whole.symbol, whole.timeframe)}
    pieces = [piece for _, inside in requests for piece in inside]
    assert join_gaps(pieces) == join_gaps(gaps)
    assert sum(piece.end_ms - piece.start_ms for piece in pieces) == sum(
        joined.end_ms - joined.start_ms for joined in join_gaps(gaps)
    )


def test_neighbouring_gaps_share_a_request() -> None:
    assert len(requests_for([gap(0, 1), gap(500, 510), gap(990, 1_000)], 1_000)) == 1
    assert len(requests_for([gap(0, 1), gap(500, 510), gap(990, 1_001)], 1_000)) == 2
    assert len(requests_for([gap(0, 2_500)], 1_000)) == 3


# -------------------------------------------------------------------------------------------------------------- unlike
def test_only_new_and_differing_rows_are_unlike_what_is_stored() -> None:
    bars = make_bars(10)
    stored = take(bars, np.array([0, 1, 2, 4, 5, 8]))
    volume = bars.volume.copy()
    volume[[4, 9]] += 1
    changed = replace(bars, volume=volume)
    assert unlike(changed, stored).open_time_ms.tolist() == [i * STEP for i in (3, 4, 6, 7, 9)]
    assert len(unlike(bars, bars)) == 0
    assert unlike(bars, bars.slice(0, 0)) is bars
    shuffled = take(bars, np.array([7, 0, 9, 3]))
    assert unlike(shuffled, stored).open_time_ms.tolist() == [i * STEP for i in (7, 9, 3)]
