"""Windows, folds, bootstrap and gates."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.core.ensemble import EMBARGO_MS
from tradewind.core.validation import (
    DAY_MS,
    TradeSample,
    TrainingParams,
    bootstrap_bound,
    judge,
    passed,
    plan_windows,
    score_trades,
)

TRAINING = TrainingParams()


def trades(results: list[float], *, a_day: int = 1) -> TradeSample:
    entries = np.arange(len(results), dtype=np.int64) // a_day * DAY_MS
    return TradeSample(np.array(results), entries)


@given(st.integers(60, 2000))
def test_every_range_ends_before_the_next_begins(days: int) -> None:
    windows = plan_windows(0, days * DAY_MS, TRAINING)
    assert windows.fit_end_ms + EMBARGO_MS == windows.promotion_start_ms < windows.promotion_end_ms
    assert windows.promotion_days <= TRAINING.promotion_days
    assert windows.promotion_days <= days * TRAINING.promotion_share + 1e-6
    assert windows.shortened == (windows.promotion_days < TRAINING.promotion_days)
    assert len(windows.folds) <= TRAINING.folds
    for fold in windows.folds:
        assert fold.start_ms < fold.train_end_ms < fold.test_start_ms < fold.test_end_ms <= windows.fit_end_ms
        assert fold.test_start_ms - fold.train_end_ms == EMBARGO_MS
        assert fold.test_end_ms - fold.test_start_ms >= TRAINING.fold_days * DAY_MS - 1
    for earlier, later in pairwise(windows.folds):
        assert earlier.test_end_ms == later.test_start_ms


def test_a_short_history_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="load more"):
        plan_windows(0, 59 * DAY_MS, TRAINING)


def test_the_bound_lies_below_the_mean_and_knows_that_a_day_moves_together() -> None:
    rng = np.random.default_rng(1)
    results = list(0.2 + rng.standard_normal(200))
    alone = bootstrap_bound(trades(results), 0.05, 2000, 7)
    assert 0.2 - 0.2 < alone < float(np.mean(results))
    # Eight copies of one outcome a day are one outcome, not eight.
    copied = [value for value in results[:25] for _ in range(8)]
    together = bootstrap_bound(trades(copied, a_day=8), 0.05, 2000, 7)
    apart = bootstrap_bound(trades(copied), 0.05, 2000, 7)
    assert together < apart
    assert bootstrap_bound(trades(results), 0.05, 2000, 7) == alone


def test_trades_of_one_day_prove_nothing() -> None:
    scores = score_trades(trades([1.0] * 60, a_day=60), TRAINING)
    assert scores.trades == 60
    assert np.isnan(scores.expectancy_r_low)
    assert scores.to_dict()["expectancy_r_low"] is None


GOOD = score_trades(trades([1.0, -0.5, 0.8] * 20), TRAINING)


def test_all_gates_pass_together() -> None:
    gates = judge(1.0, 1.05, 1.02, GOOD, TRAINING, {"days": 56})
    assert passed(gates)
    assert [gate.name for gate in gates] == ["log_loss_base_rate", "log_loss_incumbent", "expectancy", "trades"]
    assert gates[0].numbers == {"log_loss": 1.0, "below": 1.05, "days": 56}


@pytest.mark.parametrize(
    ("failing", "log_loss", "incumbent", "results"),
    [
        ({"log_loss_base_rate", "log_loss_incumbent"}, 1.06, None, [1.0, -0.5, 0.8] * 20),
        ({"log_loss_base_rate"}, 1.05, 1.06, [1.0, -0.5, 0.8] * 20),
        ({"log_loss_incumbent"}, 1.0, 0.99, [1.0, -0.5, 0.8] * 20),
        ({"expectancy"}, 1.0, 1.02, [1.0, -1.0] * 30),
        ({"trades"}, 1.0, 1.02, [1.0, -0.5, 0.8] * 16),
        ({"expectancy", "trades"}, 1.0, 1.02, []),
    ],
)
def test_each_gate_refuses_alone(
    failing: set[str], log_loss: float, incumbent: float | None, results: list[float]
) -> None:
    gates = judge(log_loss, 1.05, incumbent, score_trades(trades(results), TRAINING), TRAINING, {})
    assert {gate.name for gate in gates if not gate.passed} == failing
    assert not passed(gates)


def test_without_a_champion_the_incumbent_is_the_base_rate() -> None:
    gate = judge(1.0, 1.05, None, GOOD, TRAINING, {})[1]
    assert gate.numbers["incumbent"] == "base rate"
    assert gate.numbers["below"] == 1.05
