"""A recorded market with the exchange's outages left in: each is asked for once, stays a gap, and heals when it can."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest

from tests.support.bars import random_bars
from tests.support.market_rig import DAY, NOON, NOON_MS, STEP, MarketRig
from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.candle_files import COLUMNS
from tradewind.core.candles import missing_ranges, take
from tradewind.core.ports import CandleGap
from tradewind.core.timeframes import columns, floor_ms, from_ms, to_ms
from tradewind.core.types import Bars
from tradewind.jobs import fetching
from tradewind.jobs.market import backfill_history, fill_candle_gaps

DAYS = 70
SINCE = NOON_MS - DAYS * DAY + 6 * STEP  # listed in the middle of an hour
# Offsets from the first bar and lengths, in bars: from one bar to more than a page, alone and close together.
OUTAGES = ((100, 1), (400, 8), (410, 3), (1_000, 34), (1_777, 17), (2_500, 10), (2_530, 6), (3_200, 1_060), (5_000, 5))
TIMEFRAMES = ["15m", "1h"]


def recorded(symbol: str, until_ms: int, outages: tuple[tuple[int, int], ...], seed: int) -> Bars:
    whole = random_bars((until_ms - SINCE) // STEP, symbol, start_ms=SINCE, seed=seed)
    keep = np.ones(len(whole), bool)
    for offset, length in outages:
        keep[offset : offset + length] = False
    return take(whole, keep)


def write(directory: Path, bars: Bars) -> None:
    path = directory / f"{bars.symbol.replace('/', '_')}-15m.parquet"
    pd.DataFrame(dict(zip(COLUMNS, columns(bars), strict=True))).to_parquet(path)


def asked(urls: list[str]) -> list[CandleGap]:
    """The ranges of the candle requests."""
    queries = [{name: values[0] for name, values in parse_qs(urlsplit(url).query).items()} for url in urls]
    return [
        CandleGap(query["symbol"], query["interval"], int(query["startTime"]), int(query["endTime"]) + 1)
        for query in queries
    ]


@pytest.fixture
def candles(tmp_path: Path) -> Path:
    """Two symbols with outages; the second was traded until five days ago."""
    directory = tmp_path / "candles"
    directory.mkdir()
    write(directory, recorded("BTC/USDT", NOON_MS, OUTAGES, 1))
    write(directory, recorded("OLD/USDT", NOON_MS - 5 * DAY, OUTAGES[:3], 2))
    return directory


@pytest.fixture
def server(candles: Path) -> Iterator[PaperServerProcess]:
    with PaperServerProcess(market=f"replay:{candles}", own_time=True) as server:
        yield server


@pytest.fixture
def rig(
    server: PaperServerProcess, postgres_url: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MarketRig]:
    monkeypatch.setattr(fetching, "_LONGEST_WAIT_S", 0.05)
    rig = MarketRig(server, postgres_url, valkey_url, tmp_path, ("BTC/USDT", "OLD/USDT"))
    rig.set_market(NOON + timedelta(minutes=5))
    yield rig
    rig.close()


def test_outages_are_asked_for_once_and_heal_when_the_exchange_does(
    rig: MarketRig, server: PaperServerProcess, candles: Path
) -> None:
    backfill_history(rig.ports, "load", ["BTC/USDT"], TIMEFRAMES, NOON - timedelta(days=DAYS + 30), NOON)
    before = {timeframe: rig.stored("BTC/USDT", timeframe) for timeframe in TIMEFRAMES}
    gaps = {
        timeframe: missing_ranges(bars.open_time_ms, floor_ms(SINCE, timeframe), NOON_MS, timeframe)
        for timeframe, bars in before.items()
    }
    assert [(end - start) // STEP for start, end in gaps["15m"]] == [length for _, length in OUTAGES]
    assert 0 < len(gaps["1h"]) < len(OUTAGES)  # an hour with one traded quarter is no gap
    assert rig.kline_calls

    first = fill_candle_gaps(rig.ports)
    requests = asked(rig.kline_calls)
    assert (first["found"], first["filled_bars"]) == (sum(map(len, gaps.values())), 0)
    for timeframe, ranges in gaps.items():
        for start, end in ranges:
            overlapping = [r for r in requests if r.timeframe == timeframe and r.start_ms < end and r.end_ms > start]
            assert len(overlapping) == -((start - end) // (1_000 * STEP)) if timeframe == "15m" else 1
    second = fill_candle_gaps(rig.ports)
    assert (second["requests"], second["known_empty_bars"]) == (0, second["missing_bars"])
    assert rig.kline_calls == []
    for timeframe, bars in before.items():
        for mine, then in zip(columns(rig.stored("BTC/USDT", timeframe)), columns(bars), strict=True):
            np.testing.assert_array_equal(mine, then)

    # The exchange restores one outage, and what is known of that one alone expires.
    server.stop()
    restored = gaps["15m"][3]
    write(candles, recorded("BTC/USDT", NOON_MS, (*OUTAGES[:3], *OUTAGES[4:]), 1))
    server.start()
    rig.set_market(NOON + timedelta(minutes=10))
    assert fill_candle_gaps(rig.ports)["requests"] == 0  # it is believed until then
    (key,) = rig.ports.redis.keys("*:15m:BTC/USDT")
    assert rig.ports.redis.zadd(key, {f"{restored[0]} {restored[1]}": 1.0}, xx=True, ch=True) == 1
    assert rig.kline_calls == []
    third = fill_candle_gaps(rig.ports)
    assert (third["requests"], third["filled_bars"], third["empty_bars"]) == (1, 34, 0)
    assert asked(rig.kline_calls) == [CandleGap("BTCUSDT", "15m", *restored)]
    assert len(rig.stored("BTC/USDT")) == len(before["15m"]) + 34


def test_a_symbol_that_ceased_to_trade_is_recognised(rig: MarketRig, server: PaperServerProcess) -> None:
    ceased_ms = NOON_MS - 5 * DAY
    server.admin.halt("OLDUSDT")
    backfill_history(rig.ports, "load", ["OLD/USDT"], ["15m"], from_ms(SINCE), NOON)
    first = fill_candle_gaps(rig.ports)
    assert (first["filled_bars"], first["missing_bars"]) == (0, 12 + 5 * 96)
    listing = rig.ports.market_store.listings(["OLD/USDT"])["OLD/USDT"]
    assert listing.listed_at is not None
    assert (to_ms(listing.listed_at), listing.delisted_at) == (SINCE, from_ms(ceased_ms))
    # Its tail is not asked for again, even when all that is known to be empty is lost; its outages are.
    rig.ports.redis.flushall()
    assert rig.kline_calls
    again = fill_candle_gaps(rig.ports)
    assert again["missing_bars"] == 12
    assert max(request.end_ms for request in asked(rig.kline_calls)) <= ceased_ms
    later = backfill_history(rig.ports, "later", ["OLD/USDT"], ["15m"], from_ms(ceased_ms), NOON)
    assert (later["chunks"], rig.kline_calls) == (0, [])


def test_what_the_exchange_cannot_reach_is_never_taken_for_empty(
    rig: MarketRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange that answers for its newest bars alone."""
    backfill_history(rig.ports, "load", ["BTC/USDT"], ["15m"], NOON - timedelta(days=30), NOON)
    reach = NOON_MS - 7 * DAY
    monkeypatch.setattr(rig.ports.market_data, "oldest_open_ms", lambda timeframe: reach)
    for start in (NOON_MS - 20 * DAY, NOON_MS - 3 * DAY):
        rig.ports.database.execute(
            "DELETE FROM candles WHERE open_time BETWEEN %s AND %s", (from_ms(start), from_ms(start + 4 * STEP))
        )
    result = fill_candle_gaps(rig.ports)
    assert (result["found"], result["filled_bars"]) == (1, 5)
    assert rig.ports.known_empty.entries() == []
    rig.ports.market_store.create_job("other", "backfill_history", {}, "test")
    backfill_history(rig.ports, "other", ["BTC/USDT"], ["15m"], NOON - timedelta(days=30), NOON)
    job = rig.ports.market_store.job("other")
    assert job is not None
    assert job["progress"]["expected_bars"] == 7 * 96
