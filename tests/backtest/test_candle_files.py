from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.trading import PARAMS, D, random_bars
from tradewind.backtest.booking import rules_of
from tradewind.backtest.candle_files import read_candles
from tradewind.backtest.instruments import inferred_instrument
from tradewind.core.types import Bars
from tradewind.errors import BadInput


def write(folder: Path, bars: Bars, *, unit: str = "ms", drop: str = "") -> None:
    opened = pa.array(bars.open_time_ms).cast(pa.timestamp("ms", tz="UTC")).cast(pa.timestamp(unit, tz="UTC"))
    columns = {"open_time": opened} | {n: getattr(bars, n) for n in ("open", "high", "low", "close", "volume")}
    columns.pop(drop, None)
    pq.write_table(pa.table(columns), folder / f"{bars.symbol.replace('/', '_')}-15m.parquet")


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_a_file_reads_back(tmp_path: Path, unit: str) -> None:
    bars = random_bars(count=200)
    write(tmp_path, bars, unit=unit)
    read, refused = read_candles(tmp_path, "SOL/USDT")
    assert refused == 0
    for name in ("open_time_ms", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(read, name), getattr(bars, name))


def test_rows_that_cannot_be_true_are_left_out_and_counted(tmp_path: Path) -> None:
    bars = random_bars(count=200)
    bars.high[7] = bars.low[7] - 1
    bars.volume[9] = -1
    write(tmp_path, bars)
    read, refused = read_candles(tmp_path, "SOL/USDT")
    assert (len(read), refused) == (198, 2)


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"SOL_USDT-15m\.parquet"):
        read_candles(tmp_path, "SOL/USDT")
    write(tmp_path, random_bars(count=10), drop="volume")
    with pytest.raises(BadInput, match="no column volume"):
        read_candles(tmp_path, "SOL/USDT")


def test_the_grid_is_read_off_the_prices() -> None:
    made = inferred_instrument(random_bars(count=500), PARAMS)
    assert made.tick_size == D("0.01")
    assert made.step_size == D("0.0001")
    assert (made.base, made.quote) == ("SOL", "USDT")
    cheap = random_bars("X/USDT", 500)
    tiny = Bars(
        "X/USDT",
        "15m",
        cheap.open_time_ms,
        *(c / 1e6 for c in (cheap.open, cheap.high, cheap.low, cheap.close)),
        cheap.volume,
    )
    made = inferred_instrument(tiny, PARAMS)
    assert (made.tick_size, made.step_size) == (D("1E-8"), 1), "six decimals would leave a grid of whole percents"


def test_the_smallest_coins_keep_their_grid() -> None:
    """SHIB and PEPE cost less than a tenth of what six decimals can tell apart."""
    bars = random_bars(count=500)
    columns = [np.round(column * 8.5e-8, 9) for column in (bars.open, bars.high, bars.low, bars.close)]
    made = inferred_instrument(Bars("PEPE/USDT", "15m", bars.open_time_ms, *columns, bars.volume), PARAMS)
    assert (made.tick_size, made.step_size) == (D("1E-9"), 1)
    assert rules_of(made).atom_decimals == 9
