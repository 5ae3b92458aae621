"""Regimes: causal, with memory, and the same live as in one pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.toy_market import toy_bars, without
from tradewind.core.features import LIVE_WINDOW_BARS
from tradewind.core.params import StrategyParams
from tradewind.core.regime import (
    FAMILIES,
    REGIMES,
    RegimeMeasures,
    classify_regimes,
    family_codes,
    family_of,
    measure_regime,
    regime_codes,
    regime_shares,
    regime_warmup_bars,
)
from tradewind.core.timeframes import to_ms
from tradewind.core.types import Regime, RegimeFamily

PARAMS = StrategyParams()
BARS = toy_bars("BTC/USDT", 9000, seed=5, tide=0.15)


def measures(*rows: tuple[float, float, float, float]) -> RegimeMeasures:
    """Rows of ADX, natr ratio, natr rank, bandwidth rank."""
    columns = np.array(rows, dtype=np.float64).T
    return RegimeMeasures(np.arange(len(rows), dtype=np.int64), *columns)


def walk(*rows: tuple[float, float, float, float], previous: Regime | None = None) -> list[Regime]:
    return [REGIMES[code] for code in regime_codes(measures(*rows), PARAMS, previous)]


QUIET = (15.0, 1.0, 0.3, 0.5)


def test_each_regime_has_its_measures() -> None:
    assert walk((40, 1, 0.5, 0.5)) == [Regime.TRENDING_STRONG]
    assert walk((27, 1, 0.5, 0.5)) == [Regime.TRENDING_WEAK]
    assert walk((15, 1, 0.7, 0.5)) == [Regime.RANGING_VOLATILE]
    assert walk((15, 1, 0.3, 0.5)) == [Regime.RANGING_QUIET]
    assert walk((15, 1, 0.3, 0.1)) == [Regime.RANGING_SQUEEZE]
    assert walk((40, 3, 0.99, 0.9)) == [Regime.CHAOTIC]


def test_thresholds_are_left_later_than_they_are_entered() -> None:
    assert walk(QUIET, (23, 1, 0.3, 0.5), (26, 1, 0.3, 0.5), (22, 1, 0.3, 0.5), (19, 1, 0.3, 0.5)) == [
        Regime.RANGING_QUIET,
        Regime.RANGING_QUIET,
        Regime.TRENDING_WEAK,
        Regime.TRENDING_WEAK,
        Regime.RANGING_QUIET,
    ]
    assert walk((36, 1, 0.3, 0.5), (31, 1, 0.3, 0.5), (29, 1, 0.3, 0.5)) == [
        Regime.TRENDING_STRONG,
        Regime.TRENDING_STRONG,
        Regime.TRENDING_WEAK,
    ]
    assert walk((15, 2.6, 0.98, 0.5), (15, 2.1, 0.5, 0.5), (15, 1.9, 0.5, 0.5))[:2] == [Regime.CHAOTIC] * 2
    assert walk((15, 1, 0.3, 0.2), previous=Regime.RANGING_SQUEEZE) == [Regime.RANGING_SQUEEZE]
    assert walk((15, 1, 0.55, 0.5), previous=Regime.RANGING_VOLATILE) == [Regime.RANGING_VOLATILE]


values = st.tuples(st.floats(0, 60), st.floats(0.2, 4), st.floats(0, 1), st.floats(0, 1))


@given(values, st.sampled_from([None, *Regime]))
def test_the_same_measures_twice_change_nothing(
    row: tuple[float, float, float, float], previous: Regime | None
) -> None:
    first, second = walk(row, row, previous=previous)
    assert first is second


@settings(max_examples=20, deadline=None)
@given(st.integers(regime_warmup_bars(PARAMS), 8500), st.integers(1, 400))
def test_from_a_stored_state_the_live_path_walks_the_full_pass(cut: int, bars_later: int) -> None:
    full = classify_regimes(BARS, PARAMS)
    by_bar = {to_ms(state.bar): state for state in full}
    before_ms, since_ms = int(BARS.open_time_ms[cut]), int(BARS.open_time_ms[cut + 1])
    end = min(cut + 1 + bars_later, len(BARS))
    window = BARS.slice(max(0, end - LIVE_WINDOW_BARS), end)
    live = classify_regimes(window, PARAMS, by_bar[before_ms].regime, since_ms)
    assert [state.regime for state in live] == [by_bar[to_ms(state.bar)].regime for state in live]
    assert [to_ms(state.bar) for state in live] == BARS.open_time_ms[cut + 1 : end].tolist()
    for state in live:
        assert state.adx == pytest.approx(by_bar[to_ms(state.bar)].adx, rel=1e-6)


def test_the_future_changes_no_state() -> None:
    full = classify_regimes(BARS, PARAMS)
    part = classify_regimes(BARS.slice(0, 6000), PARAMS)
    assert part == full[: len(part)]


def test_states_are_nan_free_and_begin_after_the_warmup() -> None:
    states = classify_regimes(BARS, PARAMS)
    assert to_ms(states[0].bar) <= int(BARS.open_time_ms[regime_warmup_bars(PARAMS)])
    for state in states[:: len(states) // 50]:
        assert np.isfinite([state.adx, state.natr_ratio, state.natr_quantile, state.bandwidth_quantile]).all()
        assert state.family is family_of(state.regime)


def test_a_missing_bar_costs_no_state() -> None:
    holed = without(BARS, [7000, 7001, 7002])
    times = [to_ms(state.bar) for state in classify_regimes(holed, PARAMS)]
    assert all(later > earlier for earlier, later in pairwise(times))
    assert set(times) == set(holed.open_time_ms[holed.open_time_ms >= times[0]].tolist())


def test_regimes_do_not_flap() -> None:
    codes = regime_codes(measure_regime(BARS, PARAMS), PARAMS)
    days = (codes >= 0).sum() / 96
    assert (np.diff(codes[codes >= 0]) != 0).sum() / days < 4


def test_families_choose_models_and_chaos_chooses_none() -> None:
    assert family_of(Regime.CHAOTIC) is None
    codes = np.array([REGIMES.index(Regime.TRENDING_WEAK), REGIMES.index(Regime.RANGING_SQUEEZE), 5, -1])
    assert family_codes(codes).tolist() == [
        FAMILIES.index(RegimeFamily.TRENDING),
        FAMILIES.index(RegimeFamily.RANGING),
        -1,
        -1,
    ]


def test_a_short_history_has_no_regime() -> None:
    assert classify_regimes(BARS.slice(0, 500), PARAMS) == []


def test_shares_and_transitions_of_several_symbols() -> None:
    first = np.array([-1, -1, 3, 3, 5, 3])
    second = np.array([5, 5])
    shares, transitions = regime_shares([first, second])
    assert shares == pytest.approx([0, 0, 0, 0.5, 0, 0.5])
    assert transitions[3] == pytest.approx([0, 0, 0, 0.5, 0, 0.5])
    assert transitions[5] == pytest.approx([0, 0, 0, 0.5, 0, 0.5])
    assert transitions[0].sum() == 0
    assert regime_shares([])[0].sum() == 0
