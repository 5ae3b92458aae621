"""Candles from a folder of Parquet files named like `SOL_USDT-15m.parquet`: read and checked, stored nowhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tradewind.core.candles import check
from tradewind.core.types import Bars
from tradewind.errors import BadInput

COLUMNS = ("open_time", "open", "high", "low", "close", "volume")


def read_candles(folder: Path, symbol: str, timeframe: str = "15m") -> tuple[Bars, int]:
    """(bars, refused rows) of one series; rows that cannot be true are left out and counted.

    `open_time` is a UTC timestamp or epoch milliseconds; prices in quote, volume in base units. Raises BadInput naming
    the file or the column that is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{symbol.replace('/', '_')}-{timeframe}.parquet"
    if not path.is_file():
        raise BadInput(f"{path} does not exist: name the files like SOL_USDT-15m.parquet, or leave out --candles")
    table = pq.read_table(path)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise BadInput(f"{path} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    opened = table["open_time"]
    if pa.types.is_timestamp(opened.type):
        opened = opened.cast(pa.timestamp("ms", tz=opened.type.tz)).cast(pa.int64())
    prices = [table[name].to_numpy().astype(np.float64) for name in COLUMNS[1:]]
    checked = check(Bars(symbol, timeframe, opened.to_numpy().astype(np.int64), *prices))
    return checked.bars, len(checked.refused)
