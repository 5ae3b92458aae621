"""Bulk history: cut into chunks, each fetched and committed with its mark, so that a killed load just carries on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from tradewind.core.ports import HistoryChunk, Ports
from tradewind.core.timeframes import ceil_ms, closed_until_ms, timeframe_ms, to_ms
from tradewind.errors import BadInput, MissingData, RetryError, StopError

from .fetching import clip_to_listing, fetch_closed, find_listings, in_parallel, with_patience

log = structlog.get_logger(__name__)

_CHUNK_BARS = 5_000
_PROGRESS_EVERY_S = 0.25

Progress = Callable[[Mapping[str, Any]], None]


def backfill_history(
    ports: Ports,
    job_id: str,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    start: datetime,
    end: datetime,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Load every closed bar of the series that opens in [start, end).

    The first call with a job id plans its chunks; every later one carries on with those that are not committed,
    whatever range it is given. What the exchange no longer answers for is not planned. `progress` gets the job's row
    (see MarketStore.job) now and then while chunks are committed, and at the end.

    Returns `job_id`, `chunks` fetched by this call, and the job's totals `rows_seen`, `rows_new` and `percent`.

    Raises
    ------
    RetryError : some chunks are still open; calling again carries on. The job stays running.
    BadInput : some series can never be loaded; the others were. The job is failed.
    """
    store = ports.market_store
    asked = {
        "symbols": list(symbols),
        "timeframes": list(timeframes),
        "from": start.isoformat(),
        "to": end.isoformat(),
    }
    store.create_job(job_id, "backfill_history", asked, requested_by="backfill_history")
    store.move_job(job_id, "running")
    if not _totals(ports, job_id)["expected_bars"]:
        store.plan_chunks(job_id, _planned(ports, job_id, symbols, timeframes, to_ms(start), to_ms(end)))

    chunks = store.open_chunks(job_id)
    load = _Load(ports, progress)
    in_parallel(load.chunk, chunks)
    if chunks:
        load.tell(job_id)

    totals = _totals(ports, job_id)
    result = {"job_id": job_id, "chunks": load.finished} | {
        name: totals[name] for name in ("rows_seen", "rows_new", "percent")
    }
    if load.refusals:
        text = "; ".join(f"{series}: {reason}" for series, reason in sorted(load.refusals.items()))
        store.move_job(job_id, "failed", text)
        raise BadInput(f"some series cannot be loaded: {text}")
    if load.interruption is not None:
        raise load.interruption
    store.move_job(job_id, "done")
    return result


class _Load:
    """One call's work on the open chunks, shared by its threads."""

    def __init__(self, ports: Ports, progress: Progress | None) -> None:
        self._ports = ports
        self._progress = progress
        self._lock = threading.Lock()
        self._tell_at_s = 0.0
        self.finished = 0
        self.refusals: dict[str, str] = {}
        self.interruption: RetryError | None = None

    def chunk(self, chunk: HistoryChunk) -> None:
        """Fetch and commit one chunk, unless its series or the whole exchange has already failed."""
        series = f"{chunk.symbol} {chunk.timeframe}"
        if self.interruption is not None or series in self.refusals:
            return
        try:
            bars, _ = with_patience(
                lambda: fetch_closed(
                    self._ports, chunk.symbol, chunk.timeframe, chunk.start_ms, chunk.end_ms, bulk=True
                ),
                what=series,
            )
            stored = self._ports.market_store.finish_chunk(chunk, bars)
        except RetryError as error:
            self.interruption = error
            return
        except StopError as error:
            with self._lock:
                self.refusals[series] = str(error)
            return
        self._ports.metrics.count("tradewind.history.rows", stored.new, symbol=chunk.symbol, timeframe=chunk.timeframe)
        with self._lock:
            self.finished += 1
            if time.monotonic() >= self._tell_at_s:
                self.tell(chunk.job_id)
                self._tell_at_s = time.monotonic() + _PROGRESS_EVERY_S

    def tell(self, job_id: str) -> None:
        """Give the caller the job's row as it is now."""
        if self._progress is not None:
            job = self._ports.market_store.job(job_id)
            assert job is not None, "the job's row was made before its chunks"
            self._progress(job)


def _planned(
    ports: Ports, job_id: str, symbols: Sequence[str], timeframes: Sequence[str], start_ms: int, end_ms: int
) -> list[HistoryChunk]:
    """Chunks from each series' listing to what is closed by now."""
    now_ms = to_ms(ports.clock.now())
    listings = find_listings(ports, symbols)
    chunks = []
    for symbol in symbols:
        for timeframe in timeframes:
            oldest_ms = ports.market_data.oldest_open_ms(timeframe)
            if oldest_ms is not None and oldest_ms > start_ms:
                log.warning("older bars cannot be asked for", symbol=symbol, timeframe=timeframe, oldest_ms=oldest_ms)
            first_ms, past_ms = clip_to_listing(
                listings.get(symbol),
                timeframe,
                ceil_ms(max(start_ms, oldest_ms or start_ms), timeframe),
                min(ceil_ms(end_ms, timeframe), closed_until_ms(now_ms, timeframe)),
            )
            length_ms = _CHUNK_BARS * timeframe_ms(timeframe)
            chunks += [
                HistoryChunk(job_id, symbol, timeframe, chunk_ms, min(chunk_ms + length_ms, past_ms))
                for chunk_ms in range(first_ms, past_ms, length_ms)
            ]
    return chunks


def _totals(ports: Ports, job_id: str) -> Mapping[str, Any]:
    job = ports.market_store.job(job_id)
    if job is None:
        raise MissingData(f"the row of job {job_id} has vanished: start the load again under another id")
    totals: Mapping[str, Any] = job["progress"]
    return totals
