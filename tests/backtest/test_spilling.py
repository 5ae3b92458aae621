from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.trading import instrument, random_bars
from tradewind.backtest.replay import replay
from tradewind.backtest.rules import EMA_CROSS, rule_series
from tradewind.backtest.spilling import spilled


def test_a_run_over_mapped_columns_is_the_same_run(tmp_path: Path) -> None:
    plain = {
        symbol: rule_series(random_bars(symbol, 5000, seed=seed, volatility=0.006), instrument(symbol), EMA_CROSS)
        for seed, symbol in enumerate(("SOL/USDT", "BTC/USDT"))
    }
    mapped = {symbol: spilled(series, tmp_path) for symbol, series in plain.items()}
    for symbol, series in mapped.items():
        assert isinstance(series.bars.close.base, np.memmap)
        assert series.numbers.close is series.bars.close, "a column that is shared is written once"
        np.testing.assert_array_equal(series.regimes, plain[symbol].regimes)
    first, second = (replay(made, EMA_CROSS.params, 0, 1 << 45) for made in (plain, mapped))
    assert len(first.run.trades) > 20
    assert first.run.trades == second.run.trades
    assert first.orders == second.orders
    np.testing.assert_array_equal(
        [e.equity_quote for e in first.run.equity], [e.equity_quote for e in second.run.equity]
    )


def test_writing_to_a_mapped_column_changes_no_file(tmp_path: Path) -> None:
    series = spilled(rule_series(random_bars(count=200), instrument(), EMA_CROSS), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    series.bars.close[:] = 0.0
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(before) == 2


def test_a_series_without_bars_spills_nothing_and_stays_whole(tmp_path: Path) -> None:
    empty = rule_series(random_bars(count=200).slice(0, 0), instrument(), EMA_CROSS)
    assert len(spilled(empty, tmp_path)) == 0
    with pytest.raises(ValueError, match="no symbol has a 15m bar"):
        replay({"SOL/USDT": spilled(empty, tmp_path)}, EMA_CROSS.params, 0, 1 << 45)
