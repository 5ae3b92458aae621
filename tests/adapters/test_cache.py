"""Known-empty ranges in a real Valkey: each entry ages by itself, losing them all costs requests alone."""

from __future__ import annotations

import logging
import time

import pytest
import redis

from tradewind.adapters.cache import RedisKnownEmpty
from tradewind.core.ports import CandleGap


def gap(start: int, end: int, symbol: str = "BTC/USDT", timeframe: str = "15m") -> CandleGap:
    return CandleGap(symbol, timeframe, start, end)


@pytest.fixture
def known(valkey_url: str) -> RedisKnownEmpty:
    return RedisKnownEmpty(redis.Redis.from_url(valkey_url), namespace="demo*1")


def test_what_is_remembered_is_taken_out_of_the_gaps(known: RedisKnownEmpty) -> None:
    known.remember(gap(100, 200), 60)
    known.remember(gap(150, 250), 60)
    known.remember(gap(400, 500), 60)
    assert known.filter_unknown([gap(0, 1_000)]) == [gap(0, 100), gap(250, 400), gap(500, 1_000)]
    assert known.filter_unknown([gap(120, 240)]) == []
    other = [gap(100, 200, "ETH/USDT"), gap(100, 200, timeframe="1h")]
    assert known.filter_unknown(other) == other
    assert known.filter_unknown([]) == []


def test_each_entry_expires_by_itself(known: RedisKnownEmpty) -> None:
    known.remember(gap(20, 30), 600)
    known.remember(gap(60, 70), 600)
    known.remember(gap(0, 10), 0.2)
    known.remember(gap(40, 50), 0.2)
    time.sleep(0.3)
    assert known.entries() == [gap(20, 30), gap(60, 70)]
    assert known.filter_unknown([gap(0, 30)]) == [gap(0, 20)]


def test_remembering_again_prolongs(known: RedisKnownEmpty) -> None:
    known.remember(gap(0, 10), 0.2)
    known.remember(gap(0, 10), 600)
    time.sleep(0.3)
    assert known.entries() == [gap(0, 10)]


def test_the_set_leaves_redis_with_its_last_entry(known: RedisKnownEmpty, valkey_url: str) -> None:
    client = redis.Redis.from_url(valkey_url)
    known.remember(gap(0, 10), 100)
    known.remember(gap(20, 30), 10)
    (key,) = client.keys("tradewind:empty:*")
    assert 90 < client.ttl(key) <= 101


def test_namespaces_do_not_see_each_other(known: RedisKnownEmpty, valkey_url: str) -> None:
    known.remember(gap(0, 10), 60)
    other = RedisKnownEmpty(redis.Redis.from_url(valkey_url), namespace="demo-1")
    assert other.entries() == []
    assert other.filter_unknown([gap(0, 10)]) == [gap(0, 10)]


def test_a_series_can_be_forgotten(known: RedisKnownEmpty) -> None:
    known.remember(gap(0, 10), 60)
    known.remember(gap(0, 10, "ETH/USDT"), 60)
    known.forget("BTC/USDT", "15m")
    assert known.entries() == [gap(0, 10, "ETH/USDT")]


def test_without_redis_everything_is_unknown_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    known = RedisKnownEmpty(redis.Redis(port=1, retry=None))
    with caplog.at_level(logging.WARNING):
        known.remember(gap(0, 10), 60)
        assert known.filter_unknown([gap(0, 10)]) == [gap(0, 10)]
        assert known.entries() == []
    assert [record.message[:17] for record in caplog.records] == ["The cache is away"]
