"""What is kept beside the candles: jobs and their chunks, listing times, the quality gate's verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tradewind.core.ports import HistoryChunk, Listing, Stored
from tradewind.core.timeframes import from_ms, timeframe_ms, to_ms
from tradewind.core.types import Bars, QualityVerdict, StoredVerdict

from .database import Connection, Database

# The pace of a load that was interrupted for hours is that of its last minutes.
_LATELY_S = 300.0

_CREATE_JOB = """
INSERT INTO jobs (job_id, kind, state, params, requested_by)
VALUES (%(job_id)s, %(kind)s, 'queued', %(params)s, %(requested_by)s) ON CONFLICT DO NOTHING
"""
_MOVE_JOB = """
UPDATE jobs SET state = %(state)s, error = %(error)s, reported_at = now(),
    started_at = CASE WHEN %(state)s = 'running' THEN coalesce(started_at, now()) ELSE started_at END,
    finished_at = CASE WHEN %(state)s IN ('done', 'failed') THEN now() END
WHERE job_id = %(job_id)s
"""
_PLAN = """
INSERT INTO history_chunks (job_id, symbol, timeframe, start_time, end_time)
SELECT %(job_id)s, * FROM unnest(%(symbols)s::text[], %(timeframes)s::text[],
                                 %(starts)s::timestamptz[], %(ends)s::timestamptz[])
ON CONFLICT DO NOTHING
"""
_OPEN_CHUNKS = """
SELECT symbol, timeframe, start_time, end_time FROM history_chunks
WHERE job_id = %(job_id)s AND done_at IS NULL ORDER BY start_time, symbol, timeframe
"""
_FINISH_CHUNK = """
UPDATE history_chunks SET done_at = now(), rows_seen = %(seen)s, rows_new = %(new)s
WHERE job_id = %(job_id)s AND symbol = %(symbol)s AND timeframe = %(timeframe)s AND start_time = %(start)s
"""
_JOB = """
SELECT job_id, kind, state, params, requested_by, dag_id, dag_run_id, created_at, started_at, finished_at, error,
       progress, date_part('epoch', coalesce(finished_at, now()) - started_at) AS elapsed_s
FROM jobs WHERE job_id = %(job_id)s
"""
# Summed here: a load of hundreds of symbols over years has tens of thousands of chunks.
_PROGRESS = """
SELECT symbol, timeframe, sum(date_part('epoch', end_time - start_time)) AS expected_s,
       coalesce(sum(date_part('epoch', end_time - start_time)) FILTER (WHERE done_at IS NOT NULL), 0) AS done_s,
       coalesce(sum(date_part('epoch', end_time - start_time)) FILTER (WHERE done_at > now() - interval '5 minutes'), 0)
           AS lately_s,
       coalesce(sum(rows_seen), 0)::bigint AS rows_seen, coalesce(sum(rows_new), 0)::bigint AS rows_new
FROM history_chunks WHERE job_id = %(job_id)s GROUP BY symbol, timeframe ORDER BY symbol, timeframe
"""
_NEWEST_JOB = "SELECT job_id FROM jobs WHERE kind = %(kind)s ORDER BY created_at DESC, job_id LIMIT 1"
_REPORT = "UPDATE jobs SET progress = %(progress)s, reported_at = now() WHERE job_id = %(job_id)s"

_FIRST_WANTED = """
SELECT s.symbol, s.timeframe, least(c.open_time, h.start_time) AS first
FROM (
    SELECT * FROM unnest(%(symbols)s::text[]) AS s (symbol) CROSS JOIN unnest(%(timeframes)s::text[]) AS t (timeframe)
) AS s
LEFT JOIN LATERAL (
    SELECT open_time FROM candles WHERE symbol = s.symbol AND timeframe = s.timeframe ORDER BY open_time LIMIT 1
) AS c ON true
LEFT JOIN LATERAL (
    SELECT min(start_time) AS start_time FROM history_chunks WHERE symbol = s.symbol AND timeframe = s.timeframe
) AS h ON true
WHERE c.open_time IS NOT NULL OR h.start_time IS NOT NULL
"""
_LISTINGS = "SELECT symbol, listed_at, delisted_at FROM instruments WHERE symbol = ANY(%(symbols)s)"
_SAVE_LISTING = """
INSERT INTO instruments (symbol, rules, listed_at, delisted_at)
VALUES (%(symbol)s, '{}', %(listed_at)s, %(delisted_at)s)
ON CONFLICT (symbol) DO UPDATE
SET listed_at = excluded.listed_at, delisted_at = excluded.delisted_at, seen_at = now()
"""

_SAVE_QUALITY = """
INSERT INTO data_quality (symbol, bar, passed, findings)
SELECT symbol, %(bar)s, passed, findings
FROM unnest(%(symbols)s::text[], %(passed)s::boolean[], %(findings)s::jsonb[]) AS v (symbol, passed, findings)
ON CONFLICT DO NOTHING
"""
_QUALITY = "SELECT symbol, passed, findings FROM data_quality WHERE bar = %(bar)s AND symbol = ANY(%(symbols)s)"

_NEWEST_QUALITY = """
SELECT v.* FROM unnest(%(symbols)s::text[]) AS s (symbol)
CROSS JOIN LATERAL (
    SELECT symbol, bar, checked_at, passed, findings FROM data_quality
    WHERE symbol = s.symbol AND bar <= %(bar)s ORDER BY bar DESC LIMIT 1
) AS v
"""


class HistoryRows:
    """The part of PgMarketStore that is about everything but the candles themselves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---------------------------------------------------------------------------------------------------------- jobs
    def create_job(self, job_id: str, kind: str, params: Mapping[str, Any], requested_by: str) -> bool:
        """Make the job's row, queued; False when it is there already and stays as it is."""
        values = {"job_id": job_id, "kind": kind, "params": Jsonb(dict(params)), "requested_by": requested_by}
        return self._database.execute(_CREATE_JOB, values) == 1

    def move_job(self, job_id: str, state: str, error: str | None = None) -> None:
        """Set the job's state (running, done or failed) and the times that belong to it."""
        self._database.execute(_MOVE_JOB, {"job_id": job_id, "state": state, "error": error})

    def job(self, job_id: str) -> dict[str, Any] | None:
        """The job's row with its progress; None when there is no such job.

        `progress` counts bars, not chunks: `expected_bars`, `done_bars` (of finished chunks), `rows_seen`, `rows_new`,
        `percent`, `eta_s` (seconds to the end at the pace of the last minutes; None while nothing is done and for a job
        that does not run) and `series`, the same counts for each "SYMBOL timeframe".
        """
        row = self._database.row(_JOB, {"job_id": job_id})
        if row is None:
            return None
        reported = row["progress"]
        if reported is None:
            series, lately = _counted(self._database.rows(_PROGRESS, {"job_id": job_id}))
        else:
            series, lately = {name: dict(counts) for name, counts in reported.items()}, None
        elapsed_s = row["elapsed_s"] if row["state"] == "running" else None
        return {**row, "progress": _progress(series, lately, elapsed_s, is_done=row["state"] == "done")}

    def newest_job(self, kind: str) -> str | None:
        """The id of the job of a kind that was made last."""
        row = self._database.row(_NEWEST_JOB, {"kind": kind})
        return None if row is None else str(row["job_id"])

    def report_progress(self, job_id: str, series: Mapping[str, Mapping[str, int]]) -> None:
        """What a job without chunks has done of each series: expected_bars, done_bars, rows_seen and rows_new."""
        counts = {name: dict(entry) for name, entry in series.items()}
        self._database.execute(_REPORT, {"job_id": job_id, "progress": Jsonb(counts)})

    def plan_chunks(self, job_id: str, chunks: Sequence[HistoryChunk]) -> int:
        """Write the chunks that are not planned yet; returns how many those were."""
        return self._database.execute(
            _PLAN,
            {
                "job_id": job_id,
                "symbols": [chunk.symbol for chunk in chunks],
                "timeframes": [chunk.timeframe for chunk in chunks],
                "starts": [from_ms(chunk.start_ms) for chunk in chunks],
                "ends": [from_ms(chunk.end_ms) for chunk in chunks],
            },
        )

    def open_chunks(self, job_id: str) -> list[HistoryChunk]:
        """The chunks that are not committed yet, oldest first."""
        return [
            HistoryChunk(job_id, row["symbol"], row["timeframe"], to_ms(row["start_time"]), to_ms(row["end_time"]))
            for row in self._database.rows(_OPEN_CHUNKS, {"job_id": job_id})
        ]

    def finish_chunk(self, chunk: HistoryChunk, bars: Bars) -> Stored:
        """Store a chunk's bars and mark it done in one transaction, so that neither can be true without the other."""
        with self._database.transaction() as connection:
            stored = self._store(connection, [bars])
            connection.execute(
                _FINISH_CHUNK,
                {
                    "job_id": chunk.job_id,
                    "symbol": chunk.symbol,
                    "timeframe": chunk.timeframe,
                    "start": from_ms(chunk.start_ms),
                    "seen": len(bars),
                    "new": stored.new,
                },
            )
        return stored

    def _store(self, connection: Connection, bars: Sequence[Bars]) -> Stored:
        raise NotImplementedError("the candle store that inherits this writes the bars")

    # ------------------------------------------------------------------------------------------------------ listings
    def first_wanted_ms(self, symbols: Sequence[str], timeframes: Sequence[str]) -> dict[tuple[str, str], int]:
        """From when each series is wanted: its oldest stored bar, or what a history load asked for if that is older.

        A series of which nothing is stored and nothing was asked for is absent.
        """
        rows = self._database.rows(_FIRST_WANTED, {"symbols": list(symbols), "timeframes": list(timeframes)})
        return {(row["symbol"], row["timeframe"]): to_ms(row["first"]) for row in rows}

    def listings(self, symbols: Sequence[str]) -> dict[str, Listing]:
        """When each symbol was first and last traded, as far as that was found out."""
        rows = self._database.rows(_LISTINGS, {"symbols": list(symbols)})
        return {row["symbol"]: Listing(row["symbol"], row["listed_at"], row["delisted_at"]) for row in rows}

    def save_listings(self, listings: Sequence[Listing]) -> None:
        """Remember listing times; the newest finding replaces the one before."""
        with self._database.transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(
                _SAVE_LISTING,
                [{"symbol": x.symbol, "listed_at": x.listed_at, "delisted_at": x.delisted_at} for x in listings],
            )

    # ------------------------------------------------------------------------------------------------------- quality
    def save_quality(self, bar: datetime, verdicts: Sequence[QualityVerdict]) -> int:
        """Store the verdicts at a bar; one that is there stays. Returns how many were new."""
        return self._database.execute(
            _SAVE_QUALITY,
            {
                "bar": bar,
                "symbols": [verdict.symbol for verdict in verdicts],
                "passed": [verdict.passed for verdict in verdicts],
                "findings": [Jsonb(verdict.findings) for verdict in verdicts],
            },
        )

    def quality(self, bar: datetime, symbols: Sequence[str]) -> dict[str, QualityVerdict]:
        """The stored verdicts at a bar; a symbol that was not judged is absent."""
        rows = self._database.rows(_QUALITY, {"bar": bar, "symbols": list(symbols)})
        return {row["symbol"]: QualityVerdict(row["symbol"], row["passed"], row["findings"]) for row in rows}

    def newest_quality(self, symbols: Sequence[str], bar: datetime) -> dict[str, StoredVerdict]:
        """Each symbol's newest verdict at `bar` or before; a symbol that was never judged is absent."""
        rows = self._database.rows(_NEWEST_QUALITY, {"bar": bar, "symbols": list(symbols)})
        return {
            row["symbol"]: StoredVerdict(row["bar"], row["checked_at"], row["passed"], row["findings"]) for row in rows
        }


def _counted(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], int]:
    """The counts of each series, and the bars of all that were done in the last minutes."""
    series, lately = {}, 0
    for row in rows:
        step_s = timeframe_ms(row["timeframe"]) / 1000
        series[f"{row['symbol']} {row['timeframe']}"] = {
            "expected_bars": round(row["expected_s"] / step_s),
            "done_bars": round(row["done_s"] / step_s),
            "rows_seen": row["rows_seen"],
            "rows_new": row["rows_new"],
        }
        lately += round(row["lately_s"] / step_s)
    return series, lately


def _progress(
    series: dict[str, dict[str, Any]], lately: int | None, elapsed_s: float | None, *, is_done: bool
) -> dict[str, Any]:
    """Totals over the series; the end is estimated from what was done lately, else from all that was done.

    Where nothing is expected, nothing is planned yet, or nothing was wanted: only the end tells.
    """
    totals: dict[str, Any] = {
        name: sum(entry[name] for entry in series.values())
        for name in ("expected_bars", "done_bars", "rows_seen", "rows_new")
    }
    for entry in (*series.values(), totals):
        share = entry["done_bars"] / entry["expected_bars"] if entry["expected_bars"] else float(is_done)
        entry["percent"] = round(100 * share, 1)
    left = totals["expected_bars"] - totals["done_bars"]
    eta_s = None
    if elapsed_s is not None:
        done, within_s = (lately, min(elapsed_s, _LATELY_S)) if lately else (totals["done_bars"], elapsed_s)
        eta_s = within_s * left / done if done else None
    return {**totals, "eta_s": eta_s, "series": series}
