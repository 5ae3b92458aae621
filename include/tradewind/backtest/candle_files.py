"""Candles from a folder of Parquet files named like `SOL_USDT-15m.parquet`: read and checked, stored nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tradewind.core.candles import check, refuse_bloated_columns
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
    try:
        with pq.ParquetFile(path) as file:  # `read_table` would bring datasets, and pandas with them
            refuse_bloated_columns(path.name, file.metadata, COLUMNS)
            table = file.read([name for name in COLUMNS if name in file.schema_arrow.names])
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} cannot be read as Parquet: {error}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise BadInput(f"{path} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    opened = table["open_time"].combine_chunks()
    if pa.types.is_timestamp(opened.type):
        opened = opened.cast(pa.timestamp("ms", tz=opened.type.tz)).cast(pa.int64())
    if opened.null_count:
        raise BadInput(f"{path} has {opened.null_count} rows without an open_time: leave them out")
    prices = [_column(table[name].combine_chunks(), pa.float64()) for name in COLUMNS[1:]]
    checked = check(Bars(symbol, timeframe, _column(opened, pa.int64()), *prices))
    return checked.bars, len(checked.refused)


def _column(array: Any, kind: Any) -> Any:
    """An Arrow array as numpy's own, nulls as NaN; by its memory, since Arrow's way there imports pandas."""
    array = array.cast(kind)
    if array.null_count:
        array = array.fill_null(float("nan"))
    return np.array(np.from_dlpack(array))
