from __future__ import annotations

import numpy as np
import pytest
import talib

from tests.support.trading import random_bars
from tradewind.backtest.rules import EMA_CROSS, atr, ema


@pytest.mark.parametrize("count", [13, 14, 15, 49, 50, 3000])
def test_the_rules_indicators_are_ta_libs(count: int) -> None:
    bars = random_bars(count=count, seed=5)
    for span in (20, 50):
        np.testing.assert_allclose(ema(bars.close, span), talib.EMA(bars.close, span), rtol=1e-12)
    expected = talib.ATR(bars.high, bars.low, bars.close, 14)
    np.testing.assert_allclose(atr(bars.high, bars.low, bars.close, 14), expected, rtol=1e-12)


def test_a_cross_fires_once_and_not_inside_the_warm_up() -> None:
    bars = random_bars(count=3000, seed=6)
    fires = np.flatnonzero(EMA_CROSS.fires(bars))
    assert len(fires) > 10
    assert fires.min() >= 50
    assert np.diff(fires).min() > 1
