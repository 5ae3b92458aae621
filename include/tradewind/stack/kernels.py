"""Compile what a trading cycle compiles at its first use, into numba's cache on disk.

Run as `python -m tradewind.stack.kernels`. Without it the first cycle after an installation or an upgrade waits for it,
five seconds on two cores.
"""

from __future__ import annotations

import numpy as np

from tradewind.core.features import LIVE_WINDOW_BARS, compute_features
from tradewind.core.params import StrategyParams
from tradewind.core.regime import classify_regimes
from tradewind.core.timeframes import timeframe_ms
from tradewind.core.types import Bars


def compile_kernels() -> None:
    """Features and regimes of bars that nobody traded: types decide what is compiled, values do not."""
    params = StrategyParams()
    step = timeframe_ms(params.decision_timeframe)
    opens = np.arange(LIVE_WINDOW_BARS, dtype=np.int64) * step
    price = 100.0 + np.sin(np.arange(LIVE_WINDOW_BARS) / 7.0)
    bars = Bars(
        params.leader_symbol, params.decision_timeframe, opens, price, price + 1, price - 1, price, price.copy()
    )
    compute_features(bars, bars, params)
    classify_regimes(bars, params)


if __name__ == "__main__":
    compile_kernels()
