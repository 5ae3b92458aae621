"""The shared token bucket in a real Valkey, seen by several limiters as by several processes."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tradewind.adapters.rate_limit import RateLimiter
from tradewind.errors import RateLimited


def limiter(url: str, per_minute: float = 6_000, key: str = "test", **options: float) -> RateLimiter:
    """With its own connection, as another process would have."""
    return RateLimiter(redis.Redis.from_url(url), key, per_minute, **options)


def spend_until_refused(one: RateLimiter, weight: float, *, bulk: bool = False) -> float:
    spent = 0.0
    while True:
        try:
            one.acquire(weight, bulk=bulk)
        except RateLimited:
            return spent
        spent += weight


def refilled(started: float) -> float:
    """At most what flowed back into a bucket of 6,000 a minute since `started`, and one request of 10 more."""
    return (time.monotonic() - started) * 80 + 10


def test_all_processes_share_one_burst(valkey_url: str) -> None:
    limiters = [limiter(valkey_url, max_wait_s=0.0) for _ in range(4)]
    started = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        spent = sum(threads.map(lambda one: spend_until_refused(one, 10), limiters))
    assert 1_000 <= spent <= 1_000 + refilled(started)


def test_no_minute_can_exceed_the_limit() -> None:
    one = RateLimiter(None, "test", 6_000)
    assert one._capacity + 60 * one._rate <= 6_000


def test_a_full_bucket_refills_at_the_rate_of_the_limit(valkey_url: str) -> None:
    one = limiter(valkey_url, per_minute=60_000)
    spend_until_refused(limiter(valkey_url, per_minute=60_000, max_wait_s=0.0), 100)
    started = time.monotonic()
    for _ in range(8):
        one.acquire(100)
    elapsed = time.monotonic() - started
    assert elapsed > 0.6  # 800 units at 783 a second


def test_bulk_leaves_a_third_to_trading(valkey_url: str) -> None:
    bulk = limiter(valkey_url, max_wait_s=0.0, max_bulk_wait_s=0.0)
    started = time.monotonic()
    spent = spend_until_refused(bulk, 10, bulk=True)
    assert 640 <= spent <= 680 + refilled(started)
    limiter(valkey_url, max_wait_s=0.0).acquire(250)  # raises where it would have to wait


def test_the_exchanges_own_count_lowers_the_bucket(valkey_url: str) -> None:
    one = limiter(valkey_url, max_wait_s=0.0)
    started = time.monotonic()
    one.observe(5_650)
    other = limiter(valkey_url, max_wait_s=0.0)
    assert spend_until_refused(other, 10) <= 50 + refilled(started)  # 95 % of 6000 less 5650
    started = time.monotonic()
    one.observe(0)
    assert spend_until_refused(other, 10) <= refilled(started), "a low count must not fill the bucket again"


def test_a_used_up_minute_is_waited_out(valkey_url: str) -> None:
    one = limiter(valkey_url, max_wait_s=0.0)
    one.observe(5_900)
    with pytest.raises(RateLimited) as refused:
        limiter(valkey_url, max_wait_s=0.0).acquire(1)
    assert 0 < refused.value.retry_after_s <= 60


def test_a_429_stops_everybody_for_as_long_as_it_says(valkey_url: str) -> None:
    limiter(valkey_url).block(30)
    with pytest.raises(RateLimited) as refused:
        limiter(valkey_url, max_wait_s=0.1).acquire(1)
    assert 0 < refused.value.retry_after_s <= 30


def test_a_short_429_is_waited_out(valkey_url: str) -> None:
    started = time.monotonic()
    limiter(valkey_url).block(0.5)
    limiter(valkey_url).acquire(1)
    assert time.monotonic() - started > 0.45


def test_accounts_do_not_share(valkey_url: str) -> None:
    limiter(valkey_url, key="one").block(60)
    limiter(valkey_url, key="two", max_wait_s=0.0).acquire(1)


def test_without_redis_a_small_share_is_kept_to_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    lost = RateLimiter(redis.Redis(port=1, retry=None), "test", 6_000, max_wait_s=0.0)
    with caplog.at_level(logging.WARNING):
        assert 120 <= spend_until_refused(lost, 5) <= 160  # an eighth of 1000
        lost.block(60)
        lost.observe(10)
    assert [record.message[:17] for record in caplog.records] == ["The cache is away"]
    with pytest.raises(RateLimited):
        lost.acquire(1)


def test_flushing_redis_only_refills_the_bucket(valkey_url: str) -> None:
    one = limiter(valkey_url, max_wait_s=0.0)
    spend_until_refused(one, 10)
    redis.Redis.from_url(valkey_url).flushall()
    one.acquire(10)


def test_a_call_heavier_than_a_full_bucket_still_passes(valkey_url: str) -> None:
    one = limiter(valkey_url, per_minute=60, max_wait_s=0.0)
    one.acquire(40)
    with pytest.raises(RateLimited):
        one.acquire(1)


def test_a_higher_limit_learned_later_is_usable_at_once(valkey_url: str) -> None:
    one = limiter(valkey_url, max_wait_s=0.0, max_bulk_wait_s=0.0)
    one.acquire(20)
    one.set_limit(1_000_000)
    one.acquire(1_000, bulk=True)
