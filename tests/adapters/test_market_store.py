"""Candles in a real PostgreSQL: what is written once stays, what is missing is found, what is read is exact."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest

from tests.support.bars import joined, random_bars
from tradewind.adapters.database import Database
from tradewind.adapters.market_store import PgMarketStore
from tradewind.core.candles import missing_ranges, take
from tradewind.core.ports import CandleGap, HistoryChunk, Listing, Stored
from tradewind.core.timeframes import columns, from_ms, timeframe_ms
from tradewind.core.types import Bars, QualityVerdict

STEP = timeframe_ms("15m")
DAY = timeframe_ms("1d")
START = 1_700_006_400_000 // DAY * DAY


def bars_from(
    count: int, symbol: str = "BTC/USDT", timeframe: str = "15m", start_ms: int = START, seed: int = 1
) -> Bars:
    return random_bars(count, symbol, timeframe, start_ms=start_ms, seed=seed)


def assert_same(left: Bars, right: Bars) -> None:
    assert (left.symbol, left.timeframe) == (right.symbol, right.timeframe)
    for mine, other in zip(columns(left), columns(right), strict=True):
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype


@pytest.fixture
def store(database: Database) -> PgMarketStore:
    return PgMarketStore(database)


@pytest.mark.parametrize("count", [1, 300, 6_000])
def test_what_is_written_is_read_back_exactly(store: PgMarketStore, count: int) -> None:
    bars = [bars_from(count, symbol, timeframe, seed=i) for i, (symbol, timeframe) in enumerate(
        [("BTC/USDT", "15m"), ("SOLO/USDT", "15m"), ("BTC/USDT", "1h")]
    )]  # fmt: skip
    assert store.store_candles(bars) == Stored(3 * count, 0)
    read = store.read_bars(["SOLO/USDT", "BTC/USDT", "NONE/USDT"], "15m", START, START + count * STEP)
    assert_same(read["BTC/USDT"], bars[0])
    assert_same(read["SOLO/USDT"], bars[1])
    assert len(read["NONE/USDT"]) == 0
    assert_same(store.read_bars(["BTC/USDT"], "1h", 0, START * 2)["BTC/USDT"], bars[2])


def test_times_before_2000_and_rows_in_any_order_survive(store: PgMarketStore) -> None:
    bars = bars_from(50, start_ms=0)
    shuffled = take(bars, np.random.default_rng(3).permutation(50))
    assert store.insert_candles([shuffled]) == 50
    assert_same(store.read_bars(["BTC/USDT"], "15m", 0, DAY)["BTC/USDT"], bars)


@pytest.mark.parametrize("count", [100, 6_000])
def test_a_repetition_adds_nothing_and_is_no_correction(store: PgMarketStore, count: int) -> None:
    bars = bars_from(count)
    assert store.store_candles([bars]) == Stored(count, 0)
    assert store.store_candles([bars]) == Stored(0, 0)
    more = bars_from(count + 10)
    overlapping = joined([bars, more.slice(count, count + 10)])
    assert store.store_candles([overlapping]) == Stored(10, 0)


def test_a_differing_bar_is_kept_and_the_difference_recorded_once(store: PgMarketStore, database: Database) -> None:
    bars = bars_from(20)
    store.store_candles([bars])
    volume = bars.volume.copy()
    volume[7] += 1.5
    corrected = replace(bars, volume=volume)
    assert store.store_candles([corrected]) == Stored(0, 1)
    assert store.store_candles([corrected]) == Stored(0, 0)
    assert_same(store.read_bars(["BTC/USDT"], "15m", START, START + DAY)["BTC/USDT"], bars)
    rows = database.rows("SELECT symbol, open_time, volume FROM candle_corrections")
    assert [(row["symbol"], row["volume"]) for row in rows] == [("BTC/USDT", volume[7])]
    assert rows[0]["open_time"] == datetime.fromtimestamp((START + 7 * STEP) / 1000, UTC)


def test_a_bulk_repetition_with_news_and_differences_tells_them_apart(store: PgMarketStore, database: Database) -> None:
    bars = [bars_from(6_000), bars_from(6_000, "ETH/USDT", seed=2)]
    keep = np.ones(6_000, bool)
    keep[[0, 17, 4_000]] = False
    store.store_candles([take(bars[0], keep), bars[1]])
    close = bars[1].close.copy()
    close[[5, 5_999]] = (bars[1].high + bars[1].low)[[5, 5_999]] / 2
    assert store.store_candles([bars[0], replace(bars[1], close=close)]) == Stored(3, 2)
    assert_same(store.read_bars(["BTC/USDT"], "15m", 0, START * 2)["BTC/USDT"], bars[0])
    assert_same(store.read_bars(["ETH/USDT"], "15m", 0, START * 2)["ETH/USDT"], bars[1])
    rows = database.rows("SELECT symbol, close FROM candle_corrections ORDER BY open_time")
    assert [(row["symbol"], row["close"]) for row in rows] == [("ETH/USDT", close[5]), ("ETH/USDT", close[5_999])]


def test_a_bar_that_a_batch_holds_twice_is_stored_once(store: PgMarketStore) -> None:
    bars = bars_from(6_000)
    assert store.store_candles([joined([bars, bars.slice(10, 12)])]) == Stored(6_000, 0)


def test_a_thin_batch_reads_no_history(store: PgMarketStore) -> None:
    bars = bars_from(30_000)
    store.store_candles([bars])
    every_fifth = take(bars, np.arange(0, 30_000, 5))
    assert store.store_candles([every_fifth]) == Stored(0, 0)


def test_a_writer_without_the_lock_is_no_obstacle(store: PgMarketStore, database: Database, postgres_url: str) -> None:
    """A row that another session has written and not yet committed when the range is looked up."""
    bars = bars_from(6_000)
    row = [bars.open[9], bars.high[9], bars.low[9], bars.close[9], bars.volume[9]]
    with psycopg.connect(postgres_url) as other, ThreadPoolExecutor(1) as thread:
        other.execute(
            "INSERT INTO candles VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            ("BTC/USDT", "15m", from_ms(START + 9 * STEP), *map(float, row)),
        )
        writing = thread.submit(store.store_candles, [bars])
        blocked = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while database.rows(blocked)[0]["n"] == 0:
            time.sleep(0.01)
        other.commit()
        assert writing.result(30) == Stored(5_999, 0)
    assert_same(store.read_bars(["BTC/USDT"], "15m", 0, START * 2)["BTC/USDT"], bars)


def test_writers_at_the_same_time_lose_and_double_nothing(store: PgMarketStore) -> None:
    bars = bars_from(12_000)
    pieces = [bars.slice(0, 8_000), bars.slice(4_000, 12_000), bars.slice(3_990, 4_010), bars]
    with ThreadPoolExecutor(4) as threads:
        stored = list(threads.map(lambda piece: store.store_candles([piece]), pieces))
    assert sum(result.new for result in stored) == 12_000
    assert sum(result.corrections for result in stored) == 0
    assert_same(store.read_bars(["BTC/USDT"], "15m", 0, START * 2)["BTC/USDT"], bars)


def test_an_invalid_bar_fails_its_whole_batch(store: PgMarketStore) -> None:
    bars = bars_from(10)
    with pytest.raises(Exception, match="candles_check"):
        store.store_candles([replace(bars, low=bars.high * 2)])
    assert store.last_open_ms(["BTC/USDT"], "15m") == {}


def test_the_last_bars_are_those_before_the_end(store: PgMarketStore) -> None:
    bars, short = bars_from(500), bars_from(30, "ETH/USDT")
    store.store_candles([bars, short])
    end_ms = START + 400 * STEP
    last = store.read_last_bars(["ETH/USDT", "BTC/USDT", "X/USDT"], "15m", end_ms, 100)
    assert_same(last["BTC/USDT"], bars.slice(300, 400))
    assert_same(last["ETH/USDT"], short)
    assert len(last["X/USDT"]) == 0
    assert store.last_open_ms(["ETH/USDT", "X/USDT"], "15m") == {"ETH/USDT": START + 29 * STEP}


# ---------------------------------------------------------------------------------------------------------------- gaps
def brute_force(wanted: dict[tuple[str, str], tuple[int, int]], stored: list[Bars]) -> list[CandleGap]:
    by_series = {(bars.symbol, bars.timeframe): bars.open_time_ms for bars in stored}
    return [
        CandleGap(symbol, timeframe, first, past)
        for (symbol, timeframe), (start, end) in sorted(wanted.items())
        for first, past in missing_ranges(
            by_series.get((symbol, timeframe), np.empty(0, np.int64)), start, end, timeframe
        )
    ]


@pytest.mark.parametrize("seed", range(4))
def test_gaps_are_those_of_a_brute_force_check(store: PgMarketStore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored, wanted = [], {}
    for symbol, timeframe in [
        ("A/USDT", "15m"),
        ("B/USDT", "1h"),
        ("C/USDT", "1d"),
        ("D/USDT", "5m"),
        ("E/USDT", "4h"),
    ]:
        bars = bars_from(700, symbol, timeframe)
        keep = rng.random(700) > rng.choice([0.0, 0.01, 0.5])
        keep[200 : 200 + rng.integers(0, 300)] = False
        stored.append(take(bars, keep))
        step = timeframe_ms(timeframe)
        # Head and tail reach beyond what is stored, at moments off the grid.
        start, end = rng.integers(-300, 50) * step + START + 1, START + rng.integers(650, 1_000) * step - 1
        wanted[symbol, timeframe] = (int(start), int(end))
    wanted["NOTHING/USDT", "15m"] = (START, START + 100 * STEP)
    store.store_candles(stored)
    assert store.find_gaps(wanted) == brute_force(wanted, stored)


def test_a_complete_series_has_no_gap_and_an_empty_range_none_either(store: PgMarketStore) -> None:
    store.store_candles([bars_from(500)])
    assert store.find_gaps({("BTC/USDT", "15m"): (START, START + 500 * STEP)}) == []
    assert store.find_gaps({("BTC/USDT", "15m"): (START, START)}) == []
    assert store.find_gaps({}) == []


# --------------------------------------------------------------------------------------------------- jobs and the rest
def test_a_chunk_is_done_exactly_when_its_bars_are_stored(store: PgMarketStore) -> None:
    chunks = [HistoryChunk("job", "BTC/USDT", "15m", START + i * DAY, START + (i + 1) * DAY) for i in range(3)]
    assert store.create_job("job", "backfill_history", {"symbols": ["BTC/USDT"]}, "test")
    assert not store.create_job("job", "backfill_history", {}, "someone else")
    assert store.plan_chunks("job", chunks) == 3
    assert store.plan_chunks("job", chunks) == 0
    store.move_job("job", "running")
    bars = bars_from(288)
    assert store.finish_chunk(chunks[0], bars.slice(0, 90)) == Stored(90, 0)
    with pytest.raises(Exception, match="candles_check"):
        store.finish_chunk(chunks[1], replace(bars, low=bars.high * 2))
    assert store.open_chunks("job") == chunks[1:]
    row = store.job("job")
    assert row is not None
    assert row["state"] == "running"
    assert row["requested_by"] == "test"
    progress = row["progress"]
    assert (progress["expected_bars"], progress["done_bars"], progress["rows_new"]) == (288, 96, 90)
    assert progress["percent"] == 33.3
    assert progress["eta_s"] == pytest.approx(2 * row["elapsed_s"])
    assert progress["series"]["BTC/USDT 15m"]["rows_seen"] == 90
    store.move_job("job", "done")
    finished = store.job("job")
    assert finished is not None
    assert finished["finished_at"] >= finished["started_at"]
    assert store.job("nothing") is None


def test_the_pace_of_an_interrupted_load_is_that_of_its_last_minutes(store: PgMarketStore, database: Database) -> None:
    chunks = [HistoryChunk("job", "BTC/USDT", "15m", START + i * DAY, START + (i + 1) * DAY) for i in range(10)]
    store.create_job("job", "backfill_history", {}, "test")
    store.plan_chunks("job", chunks)
    store.move_job("job", "running")
    for chunk in chunks[:4]:
        store.finish_chunk(chunk, bars_from(96, start_ms=chunk.start_ms))
    database.execute("UPDATE jobs SET started_at = now() - interval '10 hours'")
    database.execute(
        "UPDATE history_chunks SET done_at = now() - interval '9 hours' WHERE start_time < %s",
        [from_ms(START + 2 * DAY)],
    )
    job = store.job("job")
    assert job is not None
    assert job["progress"]["percent"] == 40.0
    assert job["progress"]["eta_s"] == pytest.approx(300 * 6 / 2)
    assert store.newest_job("backfill_history") == "job"
    assert store.newest_job("import_candles") is None


def test_a_job_without_chunks_reports_what_it_did(store: PgMarketStore) -> None:
    store.create_job("job", "import_candles", {}, "test")
    store.move_job("job", "running")
    counts = {"expected_bars": 400, "done_bars": 100, "rows_seen": 100, "rows_new": 99}
    store.report_progress("job", {"BTC/USDT 1h": counts})
    job = store.job("job")
    assert job is not None
    assert (job["progress"]["percent"], job["progress"]["rows_new"]) == (25.0, 99)
    assert job["progress"]["eta_s"] == pytest.approx(3 * job["elapsed_s"])
    assert job["progress"]["series"]["BTC/USDT 1h"]["percent"] == 25.0


def test_a_job_that_is_not_planned_yet_is_not_done(store: PgMarketStore) -> None:
    """A running load showed 100 per cent until its chunks were planned."""
    store.create_job("early", "backfill_history", {}, requested_by="test")
    store.move_job("early", "running")
    job = store.job("early")
    assert job is not None
    assert (job["progress"]["percent"], job["progress"]["eta_s"]) == (0.0, None)
    store.move_job("early", "done")
    job = store.job("early")
    assert job is not None
    assert job["progress"]["percent"] == 100.0


def test_a_series_is_wanted_from_its_oldest_bar_or_request(store: PgMarketStore) -> None:
    store.store_candles([bars_from(5), bars_from(5, "ETH/USDT", "1h")])
    store.create_job("job", "backfill_history", {}, "test")
    store.plan_chunks("job", [HistoryChunk("job", "ETH/USDT", "1h", START - DAY, START)])
    assert store.first_wanted_ms(["BTC/USDT", "ETH/USDT", "X/USDT"], ["15m", "1h"]) == {
        ("BTC/USDT", "15m"): START,
        ("ETH/USDT", "1h"): START - DAY,
    }


def test_listings_are_kept_and_replaced(store: PgMarketStore) -> None:
    since = datetime(2020, 8, 11, 6, tzinfo=UTC)
    store.save_listings([Listing("SOL/USDT", since, None)])
    store.save_listings([Listing("SOL/USDT", since, datetime(2024, 1, 1, tzinfo=UTC))])
    assert store.listings(["SOL/USDT", "X/USDT"]) == {
        "SOL/USDT": Listing("SOL/USDT", since, datetime(2024, 1, 1, tzinfo=UTC))
    }


def test_a_quality_verdict_is_written_once(store: PgMarketStore) -> None:
    bar = datetime(2024, 1, 1, tzinfo=UTC)
    bad = QualityVerdict("BTC/USDT", False, {"incomplete": {"missing_bars": 3}})
    assert store.save_quality(bar, [bad, QualityVerdict("ETH/USDT", True)]) == 2
    assert store.save_quality(bar, [QualityVerdict("BTC/USDT", True)]) == 0
    assert store.quality(bar, ["BTC/USDT", "X/USDT"]) == {"BTC/USDT": bad}


def test_the_newest_verdict_is_that_of_the_bar_or_before(store: PgMarketStore) -> None:
    first, second, third = (datetime(2024, 1, 1, 0, minute, tzinfo=UTC) for minute in (0, 15, 30))
    store.save_quality(first, [QualityVerdict("BTC/USDT", True), QualityVerdict("ETH/USDT", True)])
    store.save_quality(second, [QualityVerdict("BTC/USDT", False, {"stale": {"bar_ms": 1}})])
    store.save_quality(third, [QualityVerdict("BTC/USDT", True)])
    newest = store.newest_quality(["BTC/USDT", "ETH/USDT", "X/USDT"], second)
    assert set(newest) == {"BTC/USDT", "ETH/USDT"}
    assert (newest["BTC/USDT"].bar, newest["BTC/USDT"].passed) == (second, False)
    assert newest["BTC/USDT"].findings == {"stale": {"bar_ms": 1}}
    assert newest["ETH/USDT"].bar == first
    assert newest["ETH/USDT"].checked_at.tzinfo is not None
