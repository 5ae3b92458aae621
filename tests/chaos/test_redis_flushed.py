"""Redis emptied again and again in the middle of everything: nothing lost, nothing doubled, nothing invented."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from tests.support.market_rig import DAY, NOON, NOON_MS, STEP, MarketRig
from tests.support.paper_server import PaperServerProcess
from tradewind.core.ports import CandleGap
from tradewind.core.timeframes import columns, from_ms
from tradewind.jobs.market import backfill_history, collect_candles, fill_candle_gaps

pytestmark = pytest.mark.chaos

DAYS = 90
QUARTER = timedelta(minutes=15)


@pytest.fixture
def rig(postgres_url: str, valkey_url: str, tmp_path: Path) -> Iterator[MarketRig]:
    with PaperServerProcess() as server:
        rig = MarketRig(server, postgres_url, valkey_url, tmp_path)
        yield rig
        rig.close()


@contextmanager
def flushing(url: str) -> Iterator[list[int]]:
    """Empties Redis every few milliseconds; yields how often so far."""
    flushes, ended = [0], threading.Event()

    def flush() -> None:
        with Redis.from_url(url) as client:
            while not ended.wait(0.005):
                client.flushall()
                flushes[0] += 1

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        yield flushes
    finally:
        ended.set()
        thread.join()


def test_flushing_redis_loses_speed_alone(rig: MarketRig, valkey_url: str) -> None:
    outage = (NOON_MS - 10 * DAY, NOON_MS - 10 * DAY + 20 * STEP)
    rig.server.admin.add_fault(
        "missing_candles", path="/api/v3/klines", symbol="BTCUSDT", from_ms=outage[0], to_ms=outage[1]
    )
    end_ms = NOON_MS + 3 * STEP
    with flushing(valkey_url) as flushes:
        loaded = backfill_history(
            rig.ports, "load", ["BTC/USDT", "ETH/USDT"], ["15m", "1h"], NOON - timedelta(days=DAYS), NOON
        )
        for bars in (1, 2, 3):
            rig.set_market(NOON + bars * QUARTER)
            assert collect_candles(rig.ports, "15m", None, None)["newest_complete"]
        rig.ports.database.execute(
            "DELETE FROM candles WHERE symbol = 'ETH/USDT' AND open_time BETWEEN %s AND %s",
            (from_ms(NOON_MS - 5 * DAY), from_ms(NOON_MS - 4 * DAY)),
        )
        rig.set_market(NOON + 3 * QUARTER + timedelta(minutes=5))
        filled = [fill_candle_gaps(rig.ports)["filled_bars"] for _ in range(3)]
        assert flushes[0] > 20
    assert loaded["rows_new"] == 2 * DAYS * (96 + 24) - 25  # 20 bars of 15m, 5 of 1h
    assert filled == [97 + 25, 0, 0]
    rig.ports.redis.flushall()
    assert [(gap.start_ms, gap.end_ms) for gap in gaps(rig)] == [outage, outage]
    for symbol in ("BTC/USDT", "ETH/USDT"):
        for timeframe, last_ms in (("15m", end_ms), ("1h", NOON_MS)):
            stored = rig.stored(symbol, timeframe)
            truth = rig.truth(symbol, timeframe, NOON_MS - DAYS * DAY, last_ms)
            for mine, theirs in zip(columns(stored), columns(truth), strict=True):
                np.testing.assert_array_equal(mine, theirs)
    assert rig.ports.database.rows("SELECT 1 FROM candle_corrections") == []
    # In peace again, what is empty is learned with one request each, and kept.
    assert fill_candle_gaps(rig.ports)["requests"] == 2
    assert fill_candle_gaps(rig.ports)["requests"] == 0


def gaps(rig: MarketRig) -> list[CandleGap]:
    wanted = {("BTC/USDT", timeframe): (NOON_MS - DAYS * DAY, NOON_MS) for timeframe in ("15m", "1h")}
    return rig.ports.market_store.find_gaps(wanted)
