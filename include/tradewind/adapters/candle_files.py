"""Candles from files: Parquet, CSV with a header, and Binance's own kline CSV, plain or zipped.

Columns are open_time, open, high, low, close, volume. Times are timestamps (UTC when they name no zone), ISO text, or
numbers since the epoch whose size tells seconds, milliseconds, microseconds (Binance since 2025) and nanoseconds apart.
Files are read in batches, so that their size does not matter, and a line or a page that no candle needs is refused
before it is unpacked. Nothing is judged here: what is no number becomes NaN and what is no time becomes -1, for
`core.candles.check` to refuse with its row.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tradewind.core.candles import refuse_bloated_columns
from tradewind.core.timeframes import TIMEFRAME_MS
from tradewind.core.types import Bars, IntArray
from tradewind.errors import BadInput

COLUMNS = ("open_time", "open", "high", "low", "close", "volume")
_BATCH_ROWS = 100_000
NO_TIME_MS = -1
SUFFIXES = (".parquet", ".csv", ".zip")
# Binance's longest kline lines have some 150 characters.
_MAX_LINE_BYTES = 1_024
# What a name without a separator may end in; a longer one goes before its own ending.
_QUOTES = (
    "FDUSD",
    "USDT",
    "USDC",
    "TUSD",
    "BUSD",
    "USD",
    "DAI",
    "EUR",
    "GBP",
    "TRY",
    "BRL",
    "JPY",
    "BTC",
    "ETH",
    "BNB",
)


def series_named(path: Path) -> tuple[str, str] | None:
    """(symbol, timeframe) by a file's name, as `SOL_USDT-15m.parquet` or `SOLUSDT-15m-2024-01.zip`; None for others."""
    stem = path.name.partition(".")[0]
    pair, _, rest = stem.replace("_", "-").partition("-")
    parts = rest.split("-")
    if parts[0] in TIMEFRAME_MS:
        quote = next((quote for quote in _QUOTES if pair.endswith(quote) and len(pair) > len(quote)), None)
        return None if quote is None else (f"{pair.removesuffix(quote)}/{quote}", parts[0])
    if len(parts) > 1 and parts[1] in TIMEFRAME_MS and pair and parts[0]:
        return f"{pair}/{parts[0]}", parts[1]
    return None


def read_candle_file(path: Path, symbol: str, timeframe: str) -> Iterator[Bars]:
    """The file's rows in its order, in batches. Raises BadInput when it cannot be read as candles."""
    if not path.is_file():
        raise BadInput(f"{path} is no file")
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        for frame in _parquet_frames(path) if is_parquet else _csv_frames(path):
            yield _as_bars(frame, symbol, timeframe)
    except (pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, EOFError,
            zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:  # fmt: skip
        raise BadInput(f"{path} cannot be read as candles: {error}") from error


def count_rows(path: Path) -> int:
    """How many rows the file has, a CSV's header among them; 0 when it cannot be read, which reading it will say."""
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PAR1":
                return int(pq.read_metadata(path).num_rows)
        with _opened_csv(path) as file:
            return _count_lines(file)
    except (pa.ArrowException, OSError, EOFError, BadInput, zipfile.BadZipFile, zlib.error, NotImplementedError,
            RuntimeError):  # fmt: skip
        return 0


def _count_lines(file: IO[bytes]) -> int:
    lines, last = 0, b"\n"
    while block := file.read(1 << 20):
        lines, last = lines + block.count(b"\n"), block
    return lines + (not last.endswith(b"\n"))


def _parquet_frames(path: Path) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(path) as file:
        _require(path, file.schema_arrow.names)
        refuse_bloated_columns(path.name, file.metadata, COLUMNS)
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(COLUMNS)):
            yield batch.to_pandas()


@contextmanager
def _opened_csv(path: Path) -> Iterator[IO[bytes]]:
    """The text of a plain, gzipped or zipped CSV, whose lines are bounded."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(file) as text:
                yield io.BufferedReader(_ShortLines(text))
        elif start[:2] == b"PK":
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    raise BadInput(f"{path} holds {len(names)} files: one CSV per archive")
                with archive.open(names[0]) as text:
                    yield io.BufferedReader(_ShortLines(text))
        else:
            yield io.BufferedReader(_ShortLines(file))


class _ShortLines(io.RawIOBase):
    """A stream that ends with BadInput at a line longer than any candle's: parsers hold a line as a whole."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._unended = 0  # bytes since the last line's end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._file.read(len(buffer))
        first, *others = block.split(b"\n")
        if max(self._unended + len(first), *map(len, others), 0) > _MAX_LINE_BYTES:
            raise BadInput(f"a line is longer than {_MAX_LINE_BYTES:,} bytes: this is no file of candles")
        self._unended = len(others[-1]) if others else self._unended + len(block)
        buffer[: len(block)] = block
        return len(block)


def _csv_frames(path: Path) -> Iterator[pd.DataFrame]:
    with _opened_csv(path) as file:
        first = pd.read_csv(file, header=None, nrows=1, dtype=str)
    named = {str(cell).strip().lower() for cell in first.iloc[0]}
    options: dict[str, Any] = {"dtype": str, "chunksize": _BATCH_ROWS, "skipinitialspace": True}
    if "open_time" in named:
        names = [str(cell).strip().lower() for cell in first.iloc[0]]
        _require(path, names)
        options |= {"header": 0, "names": names, "usecols": list(COLUMNS)}
    elif first.shape[1] in (6, 12) and _to_ms(first.iloc[:, 0])[0] != NO_TIME_MS:
        # Binance's own files have no header; their first six of twelve columns are ours.
        options |= {"header": None, "names": list(COLUMNS), "usecols": range(6)}
    else:
        raise BadInput(f"{path} has neither a header naming {', '.join(COLUMNS)} nor Binance's twelve columns")
    with _opened_csv(path) as file, pd.read_csv(file, **options) as frames:
        yield from frames


def _require(path: Path, names: list[str]) -> None:
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise BadInput(f"{path} lacks the column {missing[0]!r}; it needs {', '.join(COLUMNS)}")


def _as_bars(frame: pd.DataFrame, symbol: str, timeframe: str) -> Bars:
    values = [pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64) for name in COLUMNS[1:]]
    return Bars(symbol, timeframe, _to_ms(frame["open_time"]), *values)


def _to_ms(times: pd.Series[Any]) -> IntArray:
    """Epoch milliseconds; NO_TIME_MS for what is no time, or not on a whole millisecond."""
    if isinstance(times.dtype, pd.DatetimeTZDtype) or np.issubdtype(np.dtype(getattr(times.dtype, "str", "O")), "M"):
        moments = pd.to_datetime(times, utc=True)
    else:
        numbers = pd.to_numeric(times, errors="coerce")
        if bool(numbers.notna().any()):
            return _numbers_to_ms(numbers)
        moments = pd.to_datetime(times, utc=True, errors="coerce", format="ISO8601")
    nanoseconds = moments.dt.as_unit("ns").astype("int64").to_numpy()
    valid = moments.notna().to_numpy() & (nanoseconds % 1_000_000 == 0)
    return np.where(valid, nanoseconds // 1_000_000, NO_TIME_MS).astype(np.int64)


def _numbers_to_ms(numbers: pd.Series[Any]) -> IntArray:
    known = numbers.notna().to_numpy()
    whole = numbers.fillna(0).to_numpy().astype(np.int64)
    exact = known & (numbers.fillna(0).to_numpy() == whole)
    size = np.abs(whole)
    # Any moment from 1973 to 5138 in the given unit lies in exactly one of these ranges.
    divisor = np.where(size >= 10**17, 1_000_000, np.where(size >= 10**14, 1_000, 1))
    factor = np.where(size < 10**11, 1_000, 1)
    valid = exact & (whole % divisor == 0)
    return np.where(valid, whole // divisor * factor, NO_TIME_MS).astype(np.int64)
