"""Ranges of candles that the exchange is known not to have, in Redis.

One sorted set a series: a member is a range "start end" in milliseconds, its score the moment it expires, so that each
entry ages by itself. Redis may be flushed or away at any time: everything is then unknown and asked for again, once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from redis import Redis
from redis.exceptions import RedisError

from tradewind.core.candles import join_gaps, subtract_gaps
from tradewind.core.ports import CandleGap

from .redis_presence import RedisPresence


class RedisKnownEmpty:
    """Satisfies core.ports.KnownEmpty.

    Parameters
    ----------
    redis : the shared cache.
    namespace : keeps deployments apart that share one Redis; what one market lacks another may have.
    """

    def __init__(self, redis: Redis, *, namespace: str = "") -> None:
        self._redis = redis
        self._prefix = f"tradewind:empty:{namespace}"
        self._presence = RedisPresence(
            without="no range is known to be empty, all gaps are asked for", again="empty ranges are remembered again"
        )

    def filter_unknown(self, gaps: Sequence[CandleGap]) -> list[CandleGap]:
        """What is left of the gaps after everything known to be empty; all of it when Redis is away."""
        series = dict.fromkeys((gap.symbol, gap.timeframe) for gap in gaps)
        return subtract_gaps(gaps, self._entries_of(list(series)))

    def remember(self, gap: CandleGap, ttl_s: float) -> None:
        """Know the range as empty for `ttl_s` seconds of wall time."""
        if not self._presence.worth_asking():
            return
        now_s = time.time()
        key = self._key(gap.symbol, gap.timeframe)
        try:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.zremrangebyscore(key, "-inf", now_s)
            pipeline.zadd(key, {f"{gap.start_ms} {gap.end_ms}": now_s + ttl_s})
            # The set lives as long as its last entry: NX gives a first lifetime, GT only ever prolongs it.
            pipeline.expire(key, int(ttl_s) + 1, nx=True)
            pipeline.expire(key, int(ttl_s) + 1, gt=True)
            pipeline.execute()
            self._presence.answered()
        except RedisError as error:
            self._presence.missed(error)

    def forget(self, symbol: str, timeframe: str) -> None:
        """Ask again for everything of a series."""
        try:
            self._redis.delete(self._key(symbol, timeframe))
            self._presence.answered()
        except RedisError as error:
            self._presence.missed(error)

    def entries(self) -> list[CandleGap]:
        """Every range that is known to be empty now, joined, by series and time; none when Redis is away."""
        if not self._presence.worth_asking():
            return []
        try:
            keys = [key.decode() for key in self._redis.scan_iter(match=f"{_escaped(self._prefix)}:*", count=500)]
        except RedisError as error:
            self._presence.missed(error)
            return []
        series = []
        for key in keys:
            timeframe, symbol = key[len(self._prefix) + 1 :].split(":", 1)
            series.append((symbol, timeframe))
        return join_gaps(self._entries_of(series))

    def _entries_of(self, series: Sequence[tuple[str, str]]) -> Iterable[CandleGap]:
        if not series or not self._presence.worth_asking():
            return []
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for symbol, timeframe in series:
                pipeline.zrangebyscore(self._key(symbol, timeframe), f"({time.time()}", "+inf")
            answers = pipeline.execute()
            self._presence.answered()
        except RedisError as error:
            self._presence.missed(error)
            return []
        known = []
        for (symbol, timeframe), members in zip(series, answers, strict=True):
            for member in members:
                start, end = member.split()
                known.append(CandleGap(symbol, timeframe, int(start), int(end)))
        return known

    def _key(self, symbol: str, timeframe: str) -> str:
        return f"{self._prefix}:{timeframe}:{symbol}"


def _escaped(prefix: str) -> str:
    """The prefix with glob characters taken literally."""
    return "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in prefix)
