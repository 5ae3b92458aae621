"""A market whose returns were shuffled has nothing to find: no challenger passes, whatever the seed."""

from __future__ import annotations

import numpy as np
import pytest

from tradewind.backtest.instruments import inferred_instrument
from tradewind.core.params import StrategyParams
from tradewind.core.types import Bars
from tradewind.core.validation import TrainingParams
from tradewind.jobs.challenger import Challenger, Rival, make_challenger
from tradewind.paper.calibrate import load_bars
from tradewind.paper.markets import DAY_MS
from tradewind.paper.markets_synthetic import SyntheticMarket

SYMBOLS = ("BTC/USDT", "ETH/USDT")
BARS = 10_000
END_MS = 1_795_300_000_000 // DAY_MS * DAY_MS
FEW, ALL = (1, 2), tuple(range(1, 11))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", ALL if metafunc.config.getoption("--all-seeds") else FEW)


def shuffled(bars: Bars, order: np.ndarray) -> Bars:
    """The same bars in another order, each placed at the close of the one before it."""
    before = np.concatenate([bars.open[:1], bars.close[:-1]])
    moves = [np.log(column / before)[order] for column in (bars.open, bars.high, bars.low, bars.close)]
    started = np.log(bars.open[0]) + np.concatenate([[0.0], np.cumsum(moves[3])[:-1]])
    columns = [np.round(np.exp(started + move), 4) for move in moves]
    return Bars(bars.symbol, "15m", bars.open_time_ms, *columns, bars.volume[order])


def trained(seed: int) -> Challenger:
    market = SyntheticMarket(SYMBOLS, seed, 1.0)
    whole = [load_bars(market, name, END_MS - BARS * 900_000, END_MS) for name in market.rules]
    # One order for both, so that what the symbols share at a bar stays shared.
    order = np.random.default_rng(seed).permutation(BARS)
    bars = {series.symbol: shuffled(series, order) for series in whole}
    params = StrategyParams()
    instruments = {symbol: inferred_instrument(series, params) for symbol, series in bars.items()}
    return make_challenger(bars, instruments, params, TrainingParams(), Rival())


def test_no_challenger_passes_on_a_shuffled_market(seed: int) -> None:
    challenger = trained(seed)
    assert set(challenger.models)
    assert not challenger.passed, challenger.gates
