"""Market data: writing candles, finding gaps, reading windows, and loading a year from an exchange.

Every ratio compares two ways of doing the same in the same run on the same server, one after the other. The tables are
vacuumed after they have been filled, as autovacuum does within a minute: counting on the primary key alone needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import psycopg
import sqlalchemy

from tradewind.adapters.bars_codec import named_blocks
from tradewind.adapters.database import Database
from tradewind.adapters.market_store import PgMarketStore
from tradewind.bench.history_load import measure_load
from tradewind.bench.rows import BenchOptions, Row, row_of, seconds, times
from tradewind.bench.servers import scratch_database, scratch_dir, scratch_postgres
from tradewind.core.candles import missing_ranges, take
from tradewind.core.ports import CandleGap
from tradewind.core.timeframes import timeframe_ms
from tradewind.core.types import Bars
from tradewind.stack.postgres import EmbeddedPostgres

_BENCH = "data"
_STEP_MS = timeframe_ms("15m")
_DAY_MS = timeframe_ms("1d")
_START_MS = 1_600_000_000_000 // _DAY_MS * _DAY_MS
_SERIES = 100
_READ_SYMBOLS = 50
_READ_BARS = 500
_MISSING_FRAC = 0.001
_ONE_SERIES = sqlalchemy.text("""
    SELECT open_time, open, high, low, close, volume FROM candles
    WHERE symbol = :symbol AND timeframe = :timeframe ORDER BY open_time DESC LIMIT :count""")


def measure(options: BenchOptions) -> list[Row]:
    """The figures of writing, gaps, reading and loading; one server each, durable and tuned as the stack's is."""
    with scratch_dir() as directory:
        with scratch_postgres(directory) as server:
            options.say("writing a million bars in four ways")
            rows = _writing(server, 100_000 if options.quick else 1_000_000, runs=1 if options.quick else 3)
            options.say(f"filling {_SERIES} series, then finding their gaps")
            rows += _gaps_and_reading(server, 10_000 if options.quick else 100_000)
        options.say("loading a year of 50 symbols from the paper exchange")
        return rows + measure_load(directory, options)


def _bars(symbol: str, count: int, timeframe: str = "15m", seed: int = 1) -> Bars:
    """Valid bars without gaps."""
    rng = np.random.default_rng(seed)
    price = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, count)))
    opens = _START_MS + np.arange(count, dtype=np.int64) * timeframe_ms(timeframe)
    return Bars(symbol, timeframe, opens, price, price * 1.001, price / 1.001, price, rng.uniform(0, 1e6, count))


# ------------------------------------------------------------------------------------------------------------- writing
def _writing(server: EmbeddedPostgres, total: int, runs: int) -> list[Row]:
    url = scratch_database(server, "writing")
    database = Database(url)
    store = PgMarketStore(database)
    series = [_bars(f"S{i}/USDT", total // 10, seed=i) for i in range(10)]
    plain_data = list(named_blocks(series))
    plain_s: list[float] = []
    direct_s: list[float] = []
    conflict_s: list[float] = []
    repeated_s: list[float] = []
    added = 0
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(runs):
            for found, work in ((plain_s, lambda: _plain_copy(connection, plain_data)),
                                (direct_s, lambda: store.store_candles(series))):  # fmt: skip
                _empty(connection)
                found.append(seconds(work))
            # One stored bar a series, and its range is not empty any more.
            _empty(connection)
            store.store_candles([bars.slice(len(bars) // 2, len(bars) // 2 + 1) for bars in series])
            conflict_s.append(seconds(lambda: store.store_candles(series)))
            before = _count(connection)
            connection.execute("CHECKPOINT")
            repeated_s.append(seconds(lambda: store.store_candles(series)))
            added += _count(connection) - before
    database.close()
    per_s = f"{total:,} bars"
    return [
        row_of(_BENCH, f"plain binary COPY of {per_s}", [total / s for s in plain_s], "rows/s"),
        row_of(
            _BENCH, f"insert of {per_s} by the conflict path, of a plain COPY's speed",
            [p / c for p, c in zip(plain_s, conflict_s, strict=True)], "x", 0.25, "at least",
        ),
        row_of(
            _BENCH, f"insert of {per_s} into a range known to be empty, of a plain COPY's speed",
            [p / d for p, d in zip(plain_s, direct_s, strict=True)], "x", 0.80, "at least",
        ),
        row_of(
            _BENCH, f"re-insert of {per_s}, of the conflict path's speed",
            [c / r for c, r in zip(conflict_s, repeated_s, strict=True)], "x", 2.0, "at least",
        ),
        Row(_BENCH, "rows that re-inserting added", added, "rows", 0),
    ]  # fmt: skip


def _plain_copy(connection: psycopg.Connection, blocks: Sequence[bytes]) -> None:
    names = "symbol, timeframe, open_time, open, high, low, close, volume"
    with connection.cursor() as cursor, cursor.copy(f"COPY candles ({names}) FROM STDIN (FORMAT BINARY)") as copy:
        for block in blocks:
            copy.write(block)


def _empty(connection: psycopg.Connection) -> None:
    connection.execute("TRUNCATE candles")
    connection.execute("CHECKPOINT")


def _count(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM candles").fetchone()
    return int(row[0]) if row else 0


# ----------------------------------------------------------------------------------------------------- gaps and reading
def _gaps_and_reading(server: EmbeddedPostgres, bars_each: int) -> list[Row]:
    url = scratch_database(server, "gaps")
    database = Database(url)
    store = PgMarketStore(database)
    present: dict[str, np.ndarray] = {}
    for bars in _series_with_gaps(bars_each):
        store.store_candles([bars])
        present[bars.symbol] = bars.open_time_ms
    store.store_candles([_bars(f"S{i:03d}/USDT", 2_000, "1h") for i in range(_READ_SYMBOLS)])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) candles")
    rows = _gaps(store, present, _START_MS + bars_each * _STEP_MS)
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.connect() as connection:
        rows += _reading(store, connection)
    engine.dispose()
    database.close()
    return rows


def _series_with_gaps(bars_each: int) -> Iterator[Bars]:
    for number in range(_SERIES):
        bars = _bars(f"S{number:03d}/USDT", bars_each, seed=number)
        yield take(bars, np.random.default_rng(number).random(bars_each) >= _MISSING_FRAC)


def _gaps(store: PgMarketStore, present: dict[str, np.ndarray], end_ms: int) -> list[Row]:
    whole = {(symbol, "15m"): (_START_MS, end_ms) for symbol in present}
    week = dict.fromkeys(whole, (end_ms - 7 * _DAY_MS, end_ms))
    by_hand = {
        CandleGap(symbol, "15m", *missing)
        for symbol, opens in present.items()
        for missing in missing_ranges(opens, _START_MS, end_ms, "15m")
    }
    stored = sum(map(len, present.values()))
    return [
        row_of(
            _BENCH, f"all gaps over {stored:,} bars in {_SERIES} series, {_MISSING_FRAC:.1%} missing",
            times(lambda: store.find_gaps(whole)), "s", 5.0,
        ),
        Row(
            _BENCH, "gaps that a brute-force check finds otherwise",
            len(by_hand ^ set(store.find_gaps(whole))), "gaps", 0,
        ),
        row_of(
            _BENCH, f"the gaps of the last 7 days of {_SERIES} series",
            [1000 * s for s in times(lambda: store.find_gaps(week), runs=9)], "ms", 50.0,
        ),
    ]  # fmt: skip


def _reading(store: PgMarketStore, connection: sqlalchemy.Connection) -> list[Row]:
    symbols = [f"S{i:03d}/USDT" for i in range(_READ_SYMBOLS)]
    end_ms = 2 * _START_MS

    def ours() -> list[Bars]:
        return [
            bars
            for timeframe in ("15m", "1h")
            for bars in store.read_last_bars(symbols, timeframe, end_ms, _READ_BARS).values()
        ]

    ours_s, pandas_s = [], []
    for _ in range(7):
        ours_s.append(seconds(ours))
        pandas_s.append(seconds(lambda: _by_pandas(connection, symbols)))
    what = f"the last {_READ_BARS} + {_READ_BARS} bars of {_READ_SYMBOLS} symbols as numpy columns"
    return [
        row_of(_BENCH, what, [1000 * s for s in ours_s], "ms", 100.0),
        row_of(
            _BENCH, f"{what}, against one pandas query a series",
            [p / o for p, o in zip(pandas_s, ours_s, strict=True)], "x", 8.0, "at least",
        ),
    ]  # fmt: skip


def _by_pandas(connection: sqlalchemy.Connection, symbols: Sequence[str]) -> list[object]:
    """One query a series, as pandas documents it."""
    import pandas as pd

    return [
        pd.read_sql_query(
            _ONE_SERIES, connection, params={"symbol": symbol, "timeframe": timeframe, "count": _READ_BARS}
        ).sort_values("open_time")
        for timeframe in ("15m", "1h")
        for symbol in symbols
    ]
