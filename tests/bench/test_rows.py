"""Rows: which bound holds, and the statistics beside it."""

from __future__ import annotations

import math

import pytest

from tradewind.bench.rows import BenchOptions, Row, percentile, row_of, times


@pytest.mark.parametrize(
    ("value", "sense", "holds"),
    [(1.9, "at most", True), (2.1, "at most", False), (2.1, "at least", True), (1.9, "at least", False)],
)
def test_a_bound_holds_on_its_side(value: float, sense: str, holds: bool) -> None:
    assert Row("data", "a ratio", value, "x", 2.0, sense).holds is holds  # type: ignore[arg-type]


@pytest.mark.parametrize("sense", ["at most", "at least"])
def test_a_figure_that_is_no_number_holds_no_bound(sense: str) -> None:
    row = Row("data", "a ratio", math.nan, "x", 2.0, sense)  # type: ignore[arg-type]
    assert not row.holds
    assert row.as_json()["value"] is None


def test_a_row_of_several_runs_is_their_median_with_its_spread() -> None:
    row = row_of("data", "insert", [5.0, 1.0, 2.0], "s", 3.0)
    assert (row.value, row.spread, row.holds) == (2.0, (1.0, 5.0), True)
    assert row.as_json() == {
        "bench": "data", "what": "insert", "value": 2.0, "unit": "s", "bound": 3.0, "sense": "at most",
        "spread": (1.0, 5.0), "holds": True,
    }  # fmt: skip


def test_the_preparation_of_a_run_is_not_counted() -> None:
    calls: list[str] = []
    taken = times(lambda: calls.append("work"), 3, before=lambda: calls.append("before"))
    assert len(taken) == 3
    assert calls == ["before", "work"] * 3


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.95) == 95
    assert percentile(values, 0.99) == 99
    assert percentile([7.0], 0.95) == 7


def test_options_say_nothing_by_default() -> None:
    assert BenchOptions().say("a line") is None
