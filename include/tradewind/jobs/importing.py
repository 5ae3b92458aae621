"""Candles from files into the store, and the list of what is missing there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from tradewind.core.candles import RefusedRow, check, closed_only, subtract_gaps
from tradewind.core.ports import CandleGap, KnownEmpty, MarketStore
from tradewind.core.timeframes import closed_until_ms, count_opens, timeframe_ms, to_ms
from tradewind.core.types import Bars
from tradewind.errors import TradewindError

from .fetching import clip_to_listing

_KEPT_REFUSALS = 1_000


@dataclass(frozen=True, slots=True)
class Imported:
    """What one file brought. `refused` holds the first of the refused rows, counted from 0 over the whole file."""

    file: Path
    rows: int = 0
    new: int = 0
    corrections: int = 0
    unfinished: int = 0
    refused_rows: int = 0
    refused: tuple[RefusedRow, ...] = ()


@dataclass(frozen=True, slots=True)
class CandleFile:
    """A file to import: what it holds, how many rows, as far as that is known beforehand, and its rows in batches."""

    file: Path
    symbol: str
    timeframe: str
    rows: int
    batches: Iterable[Bars]


@dataclass(frozen=True, slots=True)
class ListedGap:
    """A gap, or the part of one that the exchange is known not to have."""

    gap: CandleGap
    bars: int
    known_empty: bool


def import_candles(
    store: MarketStore,
    batches: Iterable[Bars],
    file: Path,
    now: datetime,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Store a file's batches: valid closed bars only, nothing overwritten. `progress` gets each batch's rows, and how
    many of them were new."""
    outcome = Imported(file)
    for batch in batches:
        checked = check(batch)
        bars = closed_only(checked.bars, closed_until_ms(to_ms(now), batch.timeframe))
        stored = store.store_candles([bars])
        refused = tuple(replace(row, row=row.row + outcome.rows) for row in checked.refused)
        outcome = Imported(
            file,
            outcome.rows + len(batch),
            outcome.new + stored.new,
            outcome.corrections + stored.corrections,
            outcome.unfinished + len(checked.bars) - len(bars),
            outcome.refused_rows + len(refused),
            (outcome.refused + refused)[:_KEPT_REFUSALS],
        )
        if progress is not None:
            progress(len(batch), stored.new)
    return outcome


def import_files(
    store: MarketStore,
    job_id: str,
    files: Sequence[CandleFile],
    now: datetime,
    *,
    progress: Callable[[Path, int], None] | None = None,
) -> list[Imported]:
    """Import files as one job, whose row tells how far each series is; `progress` gets each batch's file and rows.

    The job fails, after all else was stored, when rows were refused. A repeated import stores nothing twice.

    Raises
    ------
    BadInput : a file cannot be read as candles; the files before it are stored.
    """
    counts = {
        _series_of(source): {"expected_bars": 0, "done_bars": 0, "rows_seen": 0, "rows_new": 0} for source in files
    }
    for source in files:
        counts[_series_of(source)]["expected_bars"] += source.rows
    params = {"files": [source.file.name for source in files], "series": list(counts)}
    store.create_job(job_id, "import_candles", params, requested_by="import")
    store.move_job(job_id, "running")
    outcomes: list[Imported] = []

    def told(source: CandleFile, rows: int, new: int) -> None:
        own = counts[_series_of(source)]
        own["done_bars"] += rows
        own["rows_seen"] += rows
        own["rows_new"] += new
        # A header counts as a row beforehand, and a file may grow while it is read.
        own["expected_bars"] = max(own["expected_bars"], own["done_bars"])
        store.report_progress(job_id, counts)
        if progress is not None:
            progress(source.file, rows)

    try:
        for source in files:
            outcomes.append(import_candles(store, source.batches, source.file, now, progress=partial(told, source)))
    except (TradewindError, KeyboardInterrupt) as error:
        store.move_job(job_id, "failed", str(error) or "interrupted: import again, what is stored is not stored twice")
        raise
    for own in counts.values():
        own["expected_bars"] = own["done_bars"]
    store.report_progress(job_id, counts)
    refused = sum(outcome.refused_rows for outcome in outcomes)
    if refused:
        store.move_job(job_id, "failed", f"{refused:,} rows cannot be true and were refused; all others are stored")
    else:
        store.move_job(job_id, "done")
    return outcomes


def _series_of(source: CandleFile) -> str:
    return f"{source.symbol} {source.timeframe}"


def list_gaps(
    store: MarketStore, known_empty: KnownEmpty, symbols: Sequence[str] | None, until: datetime | None
) -> list[ListedGap]:
    """Every gap of the stored series, by series and time, split where only a part of it is known to be empty.

    Looked at is each series from its first wanted bar to its newest stored one, or to `until`; times in which a symbol
    was not listed are left out.
    """
    stored = {key: span for key, span in store.stored_series().items() if symbols is None or key[0] in symbols}
    asked_from = store.first_wanted_ms(sorted({key[0] for key in stored}), sorted({key[1] for key in stored}))
    listings = store.listings(sorted({key[0] for key in stored}))
    wanted = {}
    for (symbol, timeframe), (first_ms, last_ms) in stored.items():
        end_ms = last_ms + timeframe_ms(timeframe)
        if until is not None:
            end_ms = max(end_ms, closed_until_ms(to_ms(until), timeframe))
        wanted[symbol, timeframe] = clip_to_listing(
            listings.get(symbol), timeframe, min(first_ms, asked_from[symbol, timeframe]), end_ms
        )
    gaps = store.find_gaps(wanted)
    unknown = known_empty.filter_unknown(gaps)
    listed = [ListedGap(gap, _bars(gap), False) for gap in unknown]
    listed += [ListedGap(gap, _bars(gap), True) for gap in subtract_gaps(gaps, unknown)]
    return sorted(listed, key=lambda found: (found.gap.symbol, found.gap.timeframe, found.gap.start_ms))


def _bars(gap: CandleGap) -> int:
    return count_opens(gap.start_ms, gap.end_ms, gap.timeframe)
