"""Candles in PostgreSQL: bulk writes that never overwrite, gaps found by counting, reads as numpy columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from psycopg import errors

from tradewind.core.candles import empty_bars, join_gaps, unlike
from tradewind.core.ports import CandleGap, Stored
from tradewind.core.timeframes import ceil_ms, from_ms, timeframe_ms, to_ms
from tradewind.core.types import Bars

from .bars_codec import bars_from_runs, named_blocks, numbered_blocks
from .database import Connection
from .history_store import HistoryRows

# Below this many rows the conflict path is quick enough; above, what is stored already is looked up first.
_BULK_ROWS = 5_000
# A batch whose span holds more bars than this many times its own rows is too thin for that.
_THINNEST = 4

_STAGE = """
CREATE TEMPORARY TABLE IF NOT EXISTS incoming_candles (
    series integer, open_time timestamptz,
    open double precision, high double precision, low double precision, close double precision, volume double precision
) ON COMMIT DELETE ROWS
"""
_COPY_STAGE = "COPY incoming_candles FROM STDIN (FORMAT BINARY)"
_COPY_CANDLES = "COPY candles (symbol, timeframe, open_time, open, high, low, close, volume) FROM STDIN (FORMAT BINARY)"

_INSERT = """
INSERT INTO candles (symbol, timeframe, open_time, open, high, low, close, volume)
SELECT n.symbol, n.timeframe, i.open_time, i.open, i.high, i.low, i.close, i.volume
FROM incoming_candles i
JOIN unnest(%(symbols)s::text[], %(timeframes)s::text[]) WITH ORDINALITY AS n (symbol, timeframe, place)
    ON n.place = i.series + 1
ON CONFLICT DO NOTHING
"""
_CORRECT = """
INSERT INTO candle_corrections (symbol, timeframe, open_time, open, high, low, close, volume)
SELECT n.symbol, n.timeframe, i.open_time, i.open, i.high, i.low, i.close, i.volume
FROM incoming_candles i
JOIN unnest(%(symbols)s::text[], %(timeframes)s::text[]) WITH ORDINALITY AS n (symbol, timeframe, place)
    ON n.place = i.series + 1
JOIN candles c ON c.symbol = n.symbol AND c.timeframe = n.timeframe AND c.open_time = i.open_time
WHERE (c.open, c.high, c.low, c.close, c.volume) <> (i.open, i.high, i.low, i.close, i.volume)
ON CONFLICT DO NOTHING
"""
# One lock a series, taken in a fixed order so that two writers never wait for each other in a circle. What was looked
# up under it stays true until the transaction ends.
_LOCK = """
SELECT pg_advisory_xact_lock(hashtextextended(symbol || ' ' || timeframe, 0))
FROM (SELECT * FROM unnest(%(symbols)s::text[], %(timeframes)s::text[]) AS s (symbol, timeframe) ORDER BY 1, 2) AS s
"""
# One row a series, each column an array in the order of time; a series without bars has nulls.
# Each column as one run of bytes in the server's binary format: less to make and to take apart than an array.
_RUNS = """
    string_agg(timestamptz_send(open_time), '') AS open_times, string_agg(float8send(open), '') AS opens,
    string_agg(float8send(high), '') AS highs, string_agg(float8send(low), '') AS lows,
    string_agg(float8send(close), '') AS closes, string_agg(float8send(volume), '') AS volumes
"""
_READ = f"""
SELECT a.*
FROM unnest(%(symbols)s::text[], %(timeframes)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    WITH ORDINALITY AS s (symbol, timeframe, start_time, end_time, place)
CROSS JOIN LATERAL (
    SELECT {_RUNS} FROM (
        SELECT * FROM candles
        WHERE symbol = s.symbol AND timeframe = s.timeframe AND open_time >= s.start_time AND open_time < s.end_time
        ORDER BY open_time
    ) AS c
) AS a ORDER BY s.place
"""  # noqa: S608 - the inserted text is a constant above
_READ_LAST = f"""
SELECT a.*
FROM unnest(%(symbols)s::text[]) WITH ORDINALITY AS s (symbol, place)
CROSS JOIN LATERAL (
    SELECT {_RUNS} FROM (
        SELECT * FROM candles
        WHERE symbol = s.symbol AND timeframe = %(timeframe)s AND open_time < %(end)s
        ORDER BY open_time DESC LIMIT %(count)s
    ) AS c
) AS a ORDER BY s.place
"""  # noqa: S608 - the inserted text is a constant above
_NEWEST = """
SELECT s.symbol, c.open_time
FROM unnest(%(symbols)s::text[]) AS s (symbol)
CROSS JOIN LATERAL (
    SELECT open_time FROM candles WHERE symbol = s.symbol AND timeframe = %(timeframe)s ORDER BY open_time DESC LIMIT 1
) AS c
"""
# From one series to the next along the primary key, without reading the bars between.
_SERIES = """
WITH RECURSIVE series AS (
    (SELECT symbol, timeframe FROM candles ORDER BY symbol, timeframe LIMIT 1)
    UNION ALL
    SELECT following.symbol, following.timeframe FROM series s CROSS JOIN LATERAL (
        SELECT symbol, timeframe FROM candles WHERE (symbol, timeframe) > (s.symbol, s.timeframe)
        ORDER BY symbol, timeframe LIMIT 1
    ) AS following
)
SELECT s.symbol, s.timeframe,
       (SELECT min(open_time) FROM candles WHERE symbol = s.symbol AND timeframe = s.timeframe) AS first,
       (SELECT max(open_time) FROM candles WHERE symbol = s.symbol AND timeframe = s.timeframe) AS last
FROM series s
"""

# Count the bars of each UTC day on the primary key alone, then look between the bars of those days that are short.
# A count by day reads whole index entries but no table page; the look between costs ten times more for each bar.
_GAPS = """
WITH wanted AS MATERIALIZED (
    SELECT w.*, date_part('epoch', w.step) AS step_s
    FROM unnest(%(symbols)s::text[], %(timeframes)s::text[], %(steps)s::interval[],
                %(starts)s::timestamptz[], %(ends)s::timestamptz[])
        AS w (symbol, timeframe, step, from_time, to_time)
), days AS (
    SELECT w.symbol, w.timeframe, w.step, w.step_s,
           greatest(d.day, w.from_time) AS first, least(d.day + interval '1 day', w.to_time) AS past
    FROM wanted w CROSS JOIN LATERAL
        generate_series(date_bin('1 day', w.from_time, 'epoch'), w.to_time - w.step, interval '1 day') AS d (day)
), short AS MATERIALIZED (
    SELECT d.symbol, d.timeframe, d.step, d.first, d.past
    FROM days d CROSS JOIN LATERAL (
        SELECT count(*) AS bars FROM candles
        WHERE symbol = d.symbol AND timeframe = d.timeframe AND open_time >= d.first AND open_time < d.past
    ) AS stored
    WHERE stored.bars * d.step_s < date_part('epoch', d.past - d.first)
)
SELECT s.symbol, s.timeframe, b.open_time + s.step AS first, b.next_time AS past
FROM short s CROSS JOIN LATERAL (
    SELECT open_time, lead(open_time, 1, s.past) OVER (ORDER BY open_time) AS next_time
    FROM (
        SELECT s.first - s.step AS open_time
        UNION ALL
        SELECT open_time FROM candles
        WHERE symbol = s.symbol AND timeframe = s.timeframe AND open_time >= s.first AND open_time < s.past
    ) AS bars
) AS b
WHERE b.next_time > b.open_time + s.step
"""


class PgMarketStore(HistoryRows):
    """Satisfies core.ports.MarketStore. Every method is one transaction.

    Bars handed in must be valid (core.candles.check): the table's own constraints refuse a whole batch.
    """

    # ------------------------------------------------------------------------------------------------------- writing
    def insert_candles(self, bars: Sequence[Bars]) -> int:
        """How many bars were new; see `store_candles`."""
        return self.store_candles(bars).new

    def store_candles(self, bars: Sequence[Bars]) -> Stored:
        """Insert what is not stored yet. A bar stored with other values stays; the difference becomes a correction."""
        with self._database.transaction() as connection:
            return self._store(connection, bars)

    def _store(self, connection: Connection, bars: Sequence[Bars]) -> Stored:
        batches = [batch for batch in bars if len(batch)]
        if not batches:
            return Stored(0, 0)
        connection.execute(_LOCK, _names(batches))
        if _is_bulk(batches):
            ends = [int(b.open_time_ms.max()) + 1 for b in batches]
            stored = self._within(connection, batches, [int(b.open_time_ms.min()) for b in batches], ends)
            if not any(map(len, stored)) and self._copied_directly(connection, batches):
                return Stored(sum(map(len, batches)), 0)
            batches = [left for batch, known in zip(batches, stored, strict=True) if len(left := unlike(batch, known))]
        return self._merged(connection, batches)

    def _merged(self, connection: Connection, batches: Sequence[Bars]) -> Stored:
        """The conflict path: COPY beside the table, insert what is new, record what differs."""
        if not batches:
            return Stored(0, 0)
        names = _names(batches)
        connection.execute(_STAGE)
        self._copy_in(connection, _COPY_STAGE, numbered_blocks(batches))
        new = connection.execute(_INSERT, names).rowcount
        differing = new < sum(map(len, batches))
        return Stored(new, connection.execute(_CORRECT, names).rowcount if differing else 0)

    def _copied_directly(self, connection: Connection, batches: Sequence[Bars]) -> bool:
        """COPY into the table itself; False, with nothing written, when a row stands there that our lock did not keep
        out: one written by hand, or one that the batch holds twice."""
        try:
            with connection.transaction():
                self._copy_in(connection, _COPY_CANDLES, named_blocks(batches))
        except errors.UniqueViolation:
            return False
        return True

    @staticmethod
    def _copy_in(connection: Connection, statement: str, blocks: Any) -> None:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for block in blocks:
                copy.write(block)

    # ------------------------------------------------------------------------------------------------------- reading
    def read_bars(self, symbols: Sequence[str], timeframe: str, start_ms: int, end_ms: int) -> dict[str, Bars]:
        """Bars in [start_ms, end_ms) for every symbol, one query; a symbol without any has length-0 columns."""
        wanted = [empty_bars(symbol, timeframe) for symbol in dict.fromkeys(symbols)]
        with self._database.transaction() as connection:
            found = self._within(connection, wanted, [start_ms] * len(wanted), [end_ms] * len(wanted))
        return {bars.symbol: bars for bars in found}

    def read_last_bars(self, symbols: Sequence[str], timeframe: str, end_ms: int, count: int) -> dict[str, Bars]:
        """The last `count` bars opened before end_ms for every symbol, one query."""
        names = list(dict.fromkeys(symbols))
        params = {"symbols": names, "timeframe": timeframe, "end": from_ms(end_ms), "count": count}
        with self._database.transaction() as connection:
            rows = _raw_rows(connection, _READ_LAST, params)
        return {
            name: bars_from_runs(name, timeframe, row, descending=True) for name, row in zip(names, rows, strict=True)
        }

    @staticmethod
    def _within(
        connection: Connection, series: Sequence[Bars], starts_ms: Sequence[int], ends_ms: Sequence[int]
    ) -> list[Bars]:
        """What is stored of each series in its [start, end)."""
        spans = {"starts": [from_ms(ms) for ms in starts_ms], "ends": [from_ms(ms) for ms in ends_ms]}
        rows = _raw_rows(connection, _READ, {**_names(series), **spans})
        return [bars_from_runs(b.symbol, b.timeframe, row) for b, row in zip(series, rows, strict=True)]

    def last_open_ms(self, symbols: Sequence[str], timeframe: str) -> dict[str, int]:
        """The newest stored open time of each symbol that has any."""
        with self._database.transaction() as connection:
            rows = connection.execute(_NEWEST, {"symbols": list(symbols), "timeframe": timeframe}).fetchall()
        return {row["symbol"]: to_ms(row["open_time"]) for row in rows}

    def stored_series(self) -> dict[tuple[str, str], tuple[int, int]]:
        """The oldest and the newest stored open time of every (symbol, timeframe) that has any bar."""
        rows = self._database.rows(_SERIES)
        return {(row["symbol"], row["timeframe"]): (to_ms(row["first"]), to_ms(row["last"])) for row in rows}

    def find_gaps(self, wanted: Mapping[tuple[str, str], tuple[int, int]]) -> list[CandleGap]:
        """Missing ranges of every (symbol, timeframe) inside its wanted [start_ms, end_ms), head and tail included."""
        params: dict[str, list[Any]] = {"symbols": [], "timeframes": [], "steps": [], "starts": [], "ends": []}
        for (symbol, timeframe), (start_ms, end_ms) in wanted.items():
            first_ms, past_ms = ceil_ms(start_ms, timeframe), ceil_ms(end_ms, timeframe)
            if first_ms < past_ms:
                params["symbols"].append(symbol)
                params["timeframes"].append(timeframe)
                params["steps"].append(from_ms(timeframe_ms(timeframe)) - from_ms(0))
                params["starts"].append(from_ms(first_ms))
                params["ends"].append(from_ms(past_ms))
        if not params["symbols"]:
            return []
        with self._database.transaction() as connection:
            rows = connection.execute(_GAPS, params).fetchall()
        return join_gaps(
            CandleGap(row["symbol"], row["timeframe"], to_ms(row["first"]), to_ms(row["past"])) for row in rows
        )


def _raw_rows(connection: Connection, sql: str, params: Mapping[str, Any]) -> list[list[bytes | None]]:
    """The rows of a query, each field as the server sent it in its binary format."""
    with connection.cursor(binary=True) as cursor:
        cursor.execute(sql, params)
        result = cursor.pgresult
        assert result is not None, "a query that did not raise has a result"
        return [[result.get_value(row, field) for field in range(result.nfields)] for row in range(result.ntuples)]


def _names(batches: Sequence[Bars]) -> dict[str, Any]:
    return {"symbols": [b.symbol for b in batches], "timeframes": [b.timeframe for b in batches]}


def _is_bulk(batches: Sequence[Bars]) -> bool:
    """Whether so much is written, and so densely, that looking up what is stored costs less than it saves."""
    rows = sum(map(len, batches))
    span = sum(int(np.ptp(b.open_time_ms)) // timeframe_ms(b.timeframe) + 1 for b in batches)
    return rows >= _BULK_ROWS and span <= _THINNEST * rows
