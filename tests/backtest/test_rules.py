from __future__ import annotations

import numpy as np
import pytest
import talib

from tests.support.trading import BAR_MS, STEP_MS, D, instrument, random_bars
from tradewind.backtest.replay import replay
from tradewind.backtest.rules import EMA_CROSS, atr, ema, rule_series
from tradewind.core.position_kernels import meet_bar
from tradewind.core.positions import STOPPED, TARGETED
from tradewind.core.types import Bars


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


def by_hand(bars: Bars, fires: np.ndarray, atr: np.ndarray) -> list[tuple[int, int, str]]:
    """The rule walked plainly: (decision bar, exit bar, reason). One position at a time, next open in, costs aside."""
    found = []
    i = 0
    while i < len(bars) - 1:
        if not fires[i]:
            i += 1
            continue
        stop = np.floor((bars.close[i] - 2.5 * atr[i]) * 100) / 100
        target = np.ceil((bars.close[i] + 2.0 * (bars.close[i] - stop)) * 100 - 1e-9) / 100
        exit_row, reason = None, ""
        for j in range(i + 1, len(bars)):
            # A target must be traded through by a tick and the half spread of a tick.
            event, _ = meet_bar(1.0, bars.open[j], bars.high[j] - 0.02, bars.low[j], stop, target)
            if event in (STOPPED, TARGETED):
                exit_row, reason = j, "stop" if event == STOPPED else "target"
                break
            if j - i == 96 and j + 1 < len(bars):
                exit_row, reason = j + 1, "time_stop"
                break
        if exit_row is None:
            break
        found.append((i, exit_row, reason))
        # The position is gone at the close of its exit bar; one sold at an open is gone in that bar as well.
        i = exit_row
    return found


def test_the_rule_makes_the_trades_that_a_plain_loop_makes() -> None:
    bars = random_bars(count=6000, seed=8, volatility=0.006)
    market = instrument(min_notional_quote=D("0.01"), step_size=D("0.00001"), min_quantity=D("0.00001"))
    made = replay({"SOL/USDT": rule_series(bars, market, EMA_CROSS)}, EMA_CROSS.params, 0, BAR_MS)
    start = int(bars.open_time_ms[0])
    rows = [((t.bar_ms - start) // STEP_MS, (t.exit_ms - start) // STEP_MS, t.exit_reason) for t in made.run.trades]
    expected = by_hand(bars, EMA_CROSS.fires(bars) > 0, EMA_CROSS.atr(bars))
    assert len(expected) > 20
    assert rows == expected
