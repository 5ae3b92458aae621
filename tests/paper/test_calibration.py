"""The synthetic market holds what it promises: something to find for a model, nothing for a rule of thumb."""

from __future__ import annotations

import pytest

from tradewind.core.params import StrategyParams
from tradewind.paper.calibrate import Findings, character, collect, find, load_bars
from tradewind.paper.markets import DAY_MS
from tradewind.paper.markets_synthetic import SyntheticMarket

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT")
END = 1_795_300_000_000 // DAY_MS * DAY_MS
LABELLINGS = ("trending bracket, all bars", "ranging bracket, all bars")


def findings(structure: float) -> list[Findings]:
    market = SyntheticMarket(SYMBOLS, 7, structure)
    series = [load_bars(market, s, END - 235 * DAY_MS, END) for s in market.rules]
    shape = character(series)
    assert 0.02 < shape.daily_sigma_frac < 0.07
    assert shape.excess_kurtosis > 1
    assert shape.absolute_autocorrelation_1h > 0.05
    assert shape.absolute_autocorrelation_1d > 0.05
    assert abs(shape.return_autocorrelation_15m) < 0.05
    assert 0.1 < shape.mean_correlation < 0.7
    samples = collect(series, StrategyParams())
    return [find(labelling, samples[labelling], 45) for labelling in LABELLINGS]


@pytest.mark.timeout(600)
def test_a_model_finds_what_no_single_feature_shows() -> None:
    for found in findings(1.0):
        assert found.best_feature_auc <= 0.58, found
        assert found.log_loss_gain > 0.01, found
        assert found.expectancy_top_decile_r > 2 * found.expectancy_top_decile_se_r, found
        assert found.expectancy_top_decile_r > found.expectancy_all_r + 0.2, found


@pytest.mark.timeout(600)
def test_nothing_is_there_without_structure() -> None:
    for found in findings(0.0):
        assert found.log_loss_gain < 0.006, found
        assert abs(found.model_auc_long - 0.5) < 0.08, found
