"""Bars to and from PostgreSQL's binary formats, whole columns at a time: no row is ever touched by Python.

Written are blocks of COPY data: every field of a candle row has a fixed width within one series, so a block of rows is
one numpy record array whose bytes are the wire format. Read are runs of values, one a column and series: COPY would
hand out each row as a message of its own, which costs more than the query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradewind.core.timeframes import columns
from tradewind.core.types import Bars

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_PG_EPOCH_MS = 946_684_800_000
_BLOCK_ROWS = 32_768
_VALUES = ("open", "high", "low", "close", "volume")


def _record(*leading: tuple[str, str]) -> np.dtype[Any]:
    """A row's layout: the field count, then each field behind its length."""
    fields = [("fields", ">i2")]
    for name, kind in (*leading, ("open_time", ">i8"), *((name, ">f8") for name in _VALUES)):
        fields += [(f"{name}_length", ">i4"), (name, kind)]
    return np.dtype(fields)


_NUMBERED = _record(("series", ">i4"))


def numbered_blocks(batches: Sequence[Bars]) -> Iterator[bytes]:
    """COPY data of rows (series, open_time, open, high, low, close, volume), the series being the batch's place."""
    yield HEADER
    for place, bars in enumerate(batches):
        for block in _blocks(bars):
            rows = _filled(block, _NUMBERED)
            rows["series"] = place
            yield rows.tobytes()
    yield TRAILER


def named_blocks(batches: Sequence[Bars]) -> Iterator[bytes]:
    """COPY data of whole candle rows (symbol, timeframe, open_time, open, high, low, close, volume)."""
    yield HEADER
    for bars in batches:
        symbol, timeframe = bars.symbol.encode(), bars.timeframe.encode()
        layout = _record(("symbol", f"S{len(symbol)}"), ("timeframe", f"S{len(timeframe)}"))
        for block in _blocks(bars):
            rows = _filled(block, layout)
            rows["symbol"], rows["timeframe"] = symbol, timeframe
            yield rows.tobytes()
    yield TRAILER


def bars_from_runs(symbol: str, timeframe: str, runs: Sequence[bytes | None], *, descending: bool = False) -> Bars:
    """Bars, ascending, from the joined 8-byte values of open_time, open, high, low, close and volume.

    None, which is what an aggregate over no rows gives, makes length-0 columns. `descending` tells that the newest bar
    comes first.
    """
    step = -1 if descending else 1
    times, *values = (
        np.frombuffer(run or b"", kind)[::step].astype(kind[1:], order="C")
        for run, kind in zip(runs, (">i8", *[">f8"] * 5), strict=True)
    )
    times //= 1000
    times += _PG_EPOCH_MS
    return Bars(symbol, timeframe, times, *values)


def _blocks(bars: Bars) -> Iterator[Bars]:
    for start in range(0, len(bars), _BLOCK_ROWS):
        yield bars.slice(start, start + _BLOCK_ROWS)


def _filled(bars: Bars, layout: np.dtype[Any]) -> NDArray[np.void]:
    rows: NDArray[np.void] = np.empty(len(bars), layout)
    names = [name for name in layout.names or () if not name.endswith("_length") and name != "fields"]
    rows["fields"] = len(names)
    for name in names:
        rows[f"{name}_length"] = layout[name].itemsize
    rows["open_time"] = (bars.open_time_ms - _PG_EPOCH_MS) * 1000
    for name, column in zip(_VALUES, columns(bars)[1:], strict=True):
        rows[name] = column
    return rows
