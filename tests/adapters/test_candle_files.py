"""Candle files as people have them: Parquet, CSV with a header, Binance's own CSV before and since 2025."""

from __future__ import annotations

import contextlib
import gzip
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bars import joined
from tradewind.adapters import candle_files
from tradewind.adapters.candle_files import COLUMNS, NO_TIME_MS, count_rows, read_candle_file, series_named
from tradewind.backtest.candle_files import read_candles
from tradewind.core.candles import check
from tradewind.core.timeframes import columns, timeframe_ms, to_ms
from tradewind.core.types import Bars
from tradewind.errors import BadInput

STEP = timeframe_ms("15m")
START = to_ms(datetime(2025, 1, 1, tzinfo=UTC))
COUNT = 25


def make_bars() -> Bars:
    close = 100.25 + np.arange(COUNT)
    times = START + np.arange(COUNT, dtype=np.int64) * STEP
    return Bars("BTC/USDT", "15m", times, close - 0.5, close + 1, close - 1, close, np.arange(COUNT) * 1.5)


def frame_of(bars: Bars) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(candle_files.COLUMNS, columns(bars), strict=True)))


def read(path: Path) -> Bars:
    return joined(list(read_candle_file(path, "BTC/USDT", "15m")))


def as_parquet_timestamps(frame: pd.DataFrame, path: Path) -> None:
    frame.assign(open_time=pd.to_datetime(frame["open_time"], unit="ms", utc=True)).to_parquet(path)


def as_parquet_naive_seconds(frame: pd.DataFrame, path: Path) -> None:
    times = pd.to_datetime(frame["open_time"], unit="ms").astype("datetime64[s]")
    frame.assign(open_time=times, extra="ignored").to_parquet(path)


def as_parquet_milliseconds(frame: pd.DataFrame, path: Path) -> None:
    frame.to_parquet(path)


def as_csv_iso(frame: pd.DataFrame, path: Path) -> None:
    times = [datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in frame["open_time"]]
    frame.assign(open_time=times).to_csv(path, index=False)


def as_csv_seconds_in_another_order(frame: pd.DataFrame, path: Path) -> None:
    frame.assign(open_time=frame["open_time"] // 1000)[["close", "volume", "open_time", "open", "low", "high"]].to_csv(
        path, index=False
    )


def binance(frame: pd.DataFrame, scale: int) -> pd.DataFrame:
    opens = frame["open_time"] * scale
    return frame.assign(open_time=opens, close_time=opens + STEP * scale - 1, q=1.0, n=3, tb=0.5, tq=0.5, ignore=0)


def as_binance_milliseconds(frame: pd.DataFrame, path: Path) -> None:
    binance(frame, 1).to_csv(path, index=False, header=False)


def as_binance_microseconds_zipped(frame: pd.DataFrame, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("BTCUSDT-15m-2025-01.csv", binance(frame, 1_000).to_csv(index=False, header=False))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (as_parquet_timestamps, "a.parquet"),
        (as_parquet_naive_seconds, "a.pq"),
        (as_parquet_milliseconds, "a.parquet"),
        (as_csv_iso, "a.csv"),
        (as_csv_seconds_in_another_order, "a.csv"),
        (as_binance_milliseconds, "a.csv"),
        (as_binance_microseconds_zipped, "a.zip"),
    ],
)
def test_every_form_gives_the_same_bars(
    write: Callable[[pd.DataFrame, Path], None], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candle_files, "_BATCH_ROWS", 10)
    bars = make_bars()
    write(frame_of(bars), tmp_path / name)
    for mine, theirs in zip(columns(read(tmp_path / name)), columns(bars), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_is_no_number_or_no_time_is_left_to_be_refused_with_its_row(tmp_path: Path) -> None:
    lines = [f"{START + i * STEP},100,101,99,100,5" for i in range(6)]
    lines[1] = f"{START + STEP},100,oops,99,100,5"
    lines[2] = "yesterday,100,101,99,100,5"
    lines[3] = f"{START + 3 * STEP},100,101,99,,5"
    (tmp_path / "a.csv").write_text("open_time,open,high,low,close,volume\n" + "\n".join(lines))
    bars = read(tmp_path / "a.csv")
    assert bars.open_time_ms[2] == NO_TIME_MS
    checked = check(bars)
    assert [refused.row for refused in checked.refused] == [1, 2, 3]
    assert len(checked.bars) == 3


def test_a_microsecond_off_the_grid_is_not_rounded_away(tmp_path: Path) -> None:
    times = [START * 1_000, START * 1_000 + 1]
    frame = pd.DataFrame({"open_time": times, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1.0})
    frame.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").open_time_ms.tolist() == [START, NO_TIME_MS]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", b"time,open,high,low,close,volume\n1,2,3,4,5,6\n", "neither a header"),
        ("a.csv", b"open_time,open,high,low,close\n1,2,3,4,5\n", "'volume'"),
        ("a.csv", b"", "cannot be read"),
        ("a.parquet", b"PAR1 and nothing more", "cannot be read"),
        ("a.zip", b"PK but no archive", "cannot be read"),
    ],
)
def test_a_file_that_is_no_candles_says_why(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=what):
        read(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.csv is no file"):
        read(tmp_path / "none.csv")


def test_a_parquet_file_without_a_column_names_it(tmp_path: Path) -> None:
    frame_of(make_bars()).drop(columns="low").to_parquet(tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="'low'"):
        read(tmp_path / "a.parquet")


def test_times_of_another_zone_are_the_same_moments(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "open_time,open,high,low,close,volume\n2025-01-01T00:00:00Z,1,1,1,1,1\n2025-01-01T02:15:00+02:00,1,1,1,1,1\n"
    )
    assert read(tmp_path / "a.csv").open_time_ms.tolist() == [START, START + STEP]


def test_rows_are_counted_beforehand(tmp_path: Path) -> None:
    frame = frame_of(make_bars())
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "b.csv").write_text((tmp_path / "a.csv").read_text().rstrip())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.csv", "a.csv")
    assert count_rows(tmp_path / "a.parquet") == COUNT
    for name in ("a.csv", "b.csv", "a.zip"):
        assert count_rows(tmp_path / name) == COUNT + 1  # and a header
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing")
    assert count_rows(tmp_path / "broken.parquet") == 0
    assert count_rows(tmp_path / "none.csv") == 0


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("SOL_USDT-15m.parquet", ("SOL/USDT", "15m")),
        ("SOL-USDT-1h.csv", ("SOL/USDT", "1h")),
        ("SOLUSDT-15m-2024-01.zip", ("SOL/USDT", "15m")),
        ("ETHBTC-4h-2025-01-31.csv", ("ETH/BTC", "4h")),
        ("1INCHUSDT-1h.csv.gz", ("1INCH/USDT", "1h")),
        ("BTCFDUSD-1h.csv", ("BTC/FDUSD", "1h")),
        ("USDT-1h.csv", None),
        ("XYZABC-1h.csv", None),
        ("SOL_USDT.parquet", None),
        ("SOL_USDT-7m.parquet", None),
        ("15m.parquet", None),
        ("_USDT-15m.parquet", None),
    ],
)
def test_what_a_name_tells(name: str, series: tuple[str, str] | None) -> None:
    assert series_named(Path(name)) == series


# ------------------------------------------------------------------------------------------------------ hostile bytes
def peak_bytes_of(read: Callable[[], object]) -> int:
    """The most memory that Python and Arrow held while reading, which must end in BadInput."""
    usual = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counted)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput):
            read()
        return max(tracemalloc.get_traced_memory()[1], counted.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


@pytest.mark.parametrize("packed", ["zip", "gzip", "plain"])
def test_an_endless_line_takes_no_memory(tmp_path: Path, packed: str) -> None:
    line = b"1" * 200_000_000
    path = tmp_path / f"a.{packed}"
    if packed == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.csv", line)
    else:
        path.write_bytes(gzip.compress(line, 1) if packed == "gzip" else line)
    del line
    assert peak_bytes_of(lambda: list(read_candle_file(path, "BTC/USDT", "15m"))) < 20_000_000
    assert peak_bytes_of(lambda: refuse(count_rows(path))) < 20_000_000


def refuse(rows: int) -> None:
    """What counting says of a file that cannot be read: nothing, so that reading it will."""
    assert rows == 0
    raise BadInput("counted as nothing")


@pytest.mark.parametrize("reader", ["import", "backtest"])
@pytest.mark.parametrize("kind", ["rows", "text", "nested"])
def test_a_bloated_parquet_file_is_refused_before_it_is_unpacked(tmp_path: Path, reader: str, kind: str) -> None:
    path = tmp_path / "BTC_USDT-15m.parquet"
    columns: dict[str, pa.Array] = {name: pa.array([1.0]) for name in COLUMNS}
    if kind == "rows":
        columns = {name: pa.array(np.ones(33_000_000, np.int8)) for name in COLUMNS}
    elif kind == "text":
        columns["open"] = pa.array(["1" * 300_000_000])
    else:
        columns["open"] = pa.array([[1.0, 2.0]])
    pq.write_table(pa.table(columns), path, row_group_size=1 << 26, compression="zstd")
    columns.clear()
    assert path.stat().st_size < 2_000_000
    reads: dict[str, Callable[[], object]] = {
        "import": lambda: list(read_candle_file(path, "BTC/USDT", "15m")),
        "backtest": lambda: read_candles(tmp_path, "BTC/USDT"),
    }
    assert peak_bytes_of(reads[reader]) < 20_000_000


@pytest.mark.parametrize("names", [[], ["a.csv", "b.csv"]])
def test_an_archive_holds_one_file(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, frame_of(make_bars()).to_csv(index=False))
    with pytest.raises(BadInput):
        list(read_candle_file(path, "BTC/USDT", "15m"))


@given(
    st.binary(max_size=3_000),
    st.sampled_from([b"", b"PAR1", b"PK\x03\x04", b"\x1f\x8b", b"open_time,open,high,low,close,volume\n"]),
)
def test_any_bytes_are_candles_or_bad_input(body: bytes, start: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "BTC_USDT-15m.parquet"
        path.write_bytes(start + body)
        for read in (
            lambda: list(read_candle_file(path, "BTC/USDT", "15m")),
            lambda: read_candles(path.parent, "BTC/USDT"),
        ):
            with contextlib.suppress(BadInput):
                assert read() is not None
        assert count_rows(path) >= 0
