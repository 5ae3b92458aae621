"""What may be stored as a candle, what is missing, and which requests would fetch it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tradewind.errors import BadInput

from .ports import CandleGap
from .timeframes import columns, expected_opens_ms, timeframe_ms
from .types import Bars, IntArray

# Read whole into memory: a column's part of a row group. A year of minutes has 525,600 values of 8 bytes.
_MAX_COLUMN_BYTES: Final = 256_000_000


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that cannot be true: its position in the batch, counted from 0, and why."""

    row: int
    open_time_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The rows of a batch that may be stored, ascending and unique, and those that may not."""

    bars: Bars
    refused: tuple[RefusedRow, ...] = ()


def empty_bars(symbol: str, timeframe: str) -> Bars:
    """Bars of length 0."""
    none = np.empty(0, np.float64)
    return Bars(symbol, timeframe, np.empty(0, np.int64), none, none, none, none, none)


def take(bars: Bars, where: NDArray[np.bool_] | IntArray) -> Bars:
    """The rows chosen by a mask or by positions."""
    return Bars(bars.symbol, bars.timeframe, *(column[where] for column in columns(bars)))


def between(bars: Bars, start_ms: int, end_ms: int) -> Bars:
    """The rows with start <= open time < end; `bars` must be ascending."""
    return bars.slice(*np.searchsorted(bars.open_time_ms, [start_ms, end_ms]).tolist())


def unlike(bars: Bars, stored: Bars) -> Bars:
    """The rows of `bars` that `stored` does not hold with the very same values: the new ones and the differing ones.

    `stored` must be ascending and unique.
    """
    if len(stored) == 0:
        return bars
    place = np.minimum(np.searchsorted(stored.open_time_ms, bars.open_time_ms), len(stored) - 1)
    known = np.ones(len(bars), bool)
    for column, other in zip(columns(bars), columns(stored), strict=True):
        known &= column == other[place]
    return take(bars, ~known)


def check(bars: Bars) -> Checked:
    """Separate what can be true from what cannot; one bad row never costs the others of its batch.

    Refused: NaN or infinity, a price that is not positive, high or low inside the body, negative volume, an open time
    off the timeframe's grid, and every sound row after the first of the same open time. Of several faults a row names
    the first in that order.
    """
    step = timeframe_ms(bars.timeframe)
    prices = np.stack([bars.open, bars.high, bars.low, bars.close]) if len(bars) else np.empty((4, 0))
    with np.errstate(invalid="ignore"):
        faults = [
            (~(np.isfinite(prices).all(axis=0) & np.isfinite(bars.volume)), "a value is NaN or infinite"),
            ((prices <= 0).any(axis=0), "a price is not above zero"),
            (bars.high < np.maximum(bars.open, bars.close), "high is below open or close"),
            (bars.low > np.minimum(bars.open, bars.close), "low is above open or close"),
            (bars.volume < 0, "volume is negative"),
            (bars.open_time_ms % step != 0, f"open time is off the {bars.timeframe} grid"),
        ]
    bad = np.zeros(len(bars), bool)
    reason_of: dict[int, str] = {}
    for fault, reason in faults:
        for row in np.flatnonzero(fault & ~bad).tolist():
            reason_of[row] = reason
        bad |= fault
    sound = np.flatnonzero(~bad)
    order = sound[np.argsort(bars.open_time_ms[sound], kind="stable")]
    times = bars.open_time_ms[order]
    first = np.r_[True, times[1:] != times[:-1]] if len(order) else np.empty(0, bool)
    firsts = order[first]
    group = np.cumsum(first) - 1
    for position in np.flatnonzero(~first):
        row, kept = int(order[position]), int(firsts[group[position]])
        same = all(column[row] == column[kept] for column in columns(bars))
        reason_of[row] = f"{'repeats' if same else 'differs from'} row {kept} of the same open time"
    refused = tuple(RefusedRow(row, int(bars.open_time_ms[row]), reason_of[row]) for row in sorted(reason_of))
    return Checked(take(bars, firsts), refused)


def closed_only(bars: Bars, closed_until_ms: int) -> Bars:
    """The bars that opened before `closed_until_ms` (see timeframes.closed_until_ms): the unfinished one is dropped."""
    return take(bars, bars.open_time_ms < closed_until_ms)


# ------------------------------------------------------------------------------------------------------------- ranges
def missing_ranges(present_ms: IntArray, start_ms: int, end_ms: int, timeframe: str) -> list[tuple[int, int]]:
    """The expected opens of [start, end) that are not in `present_ms`, as half-open ranges in ascending order."""
    expected = expected_opens_ms(start_ms, end_ms, timeframe)
    missing = expected[~np.isin(expected, present_ms)]
    if len(missing) == 0:
        return []
    step = timeframe_ms(timeframe)
    breaks = np.flatnonzero(np.diff(missing) != step) + 1
    return [(int(run[0]), int(run[-1]) + step) for run in np.split(missing, breaks)]


def union(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Half-open ranges joined where they touch or overlap, ascending, empty ones dropped."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def subtract(ranges: Iterable[tuple[int, int]], holes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of half-open ranges outside the holes, joined and ascending."""
    left: list[tuple[int, int]] = []
    cuts = union(holes)
    for start, end in union(ranges):
        for cut_start, cut_end in cuts:
            if cut_end <= start:
                continue
            if cut_start >= end:
                break
            if cut_start > start:
                left.append((start, cut_start))
            start = cut_end
        if start < end:
            left.append((start, end))
    return left


def join_gaps(gaps: Iterable[CandleGap]) -> list[CandleGap]:
    """Gaps of the same series joined where they touch, ordered by series and time."""
    by_series: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for gap in gaps:
        by_series.setdefault((gap.symbol, gap.timeframe), []).append((gap.start_ms, gap.end_ms))
    return [
        CandleGap(symbol, timeframe, start, end)
        for (symbol, timeframe), ranges in sorted(by_series.items())
        for start, end in union(ranges)
    ]


def subtract_gaps(gaps: Iterable[CandleGap], known: Iterable[CandleGap]) -> list[CandleGap]:
    """What is left of the gaps outside the known ones of the same series."""
    holes: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for gap in known:
        holes.setdefault((gap.symbol, gap.timeframe), []).append((gap.start_ms, gap.end_ms))
    return [
        CandleGap(gap.symbol, gap.timeframe, start, end)
        for gap in gaps
        for start, end in subtract([(gap.start_ms, gap.end_ms)], holes.get((gap.symbol, gap.timeframe), ()))
    ]


def requests_for(gaps: Iterable[CandleGap], max_bars: int) -> list[tuple[CandleGap, list[CandleGap]]]:
    """Few requests that cover all gaps: each a range of at most `max_bars` bars of one series, with the gaps inside it.

    Neighbouring gaps share a request, since an answer costs the same for one bar as for a full page; a longer gap is
    cut.
    """
    requests: list[tuple[CandleGap, list[CandleGap]]] = []
    for gap in join_gaps(gaps):
        length_ms = max_bars * timeframe_ms(gap.timeframe)
        for start in range(gap.start_ms, gap.end_ms, length_ms):
            piece = CandleGap(gap.symbol, gap.timeframe, start, min(start + length_ms, gap.end_ms))
            if requests:
                whole, inside = requests[-1]
                if (whole.symbol, whole.timeframe) == (piece.symbol, piece.timeframe) and (
                    piece.end_ms - whole.start_ms <= length_ms
                ):
                    requests[-1] = (
                        CandleGap(whole.symbol, whole.timeframe, whole.start_ms, piece.end_ms),
                        [*inside, piece],
                    )
                    continue
            requests.append((piece, [piece]))
    return requests


def refuse_bloated_columns(file: str, metadata: Any, names: Sequence[str]) -> None:
    """Raise BadInput where a Parquet file would take more memory than candles need, before a byte is unpacked.

    Parameters
    ----------
    file : what the file is called in the error.
    metadata : `pyarrow.parquet.FileMetaData`.
    names : the columns that will be read; each must hold plain values, at most 256 MB per row group by its own word.
    """
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            name, _, nested = column.path_in_schema.partition(".")
            if name not in names:
                continue
            if nested:
                raise BadInput(f"{file}: the column {name} is nested; it must hold one value per row")
            if max(column.total_uncompressed_size, 8 * column.num_values) > _MAX_COLUMN_BYTES:
                raise BadInput(f"{file}: the column {name} is larger than {_MAX_COLUMN_BYTES:,} bytes per row group")
