"""One token bucket for all processes that talk to an exchange with one account.

The bucket lies in Redis and is changed by atomic scripts on the server's own clock. A full bucket holds some seconds'
weight, ten by default, and refills so that no minute can exceed 95 % of the limit, whatever the bursts. Bulk calls
leave a third of the bucket to trading calls. The exchange's own count (the used-weight header) only ever lowers it.

Redis may vanish: then each process falls back to an eighth of the limit of its own, says so once, and says when it is
back.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from tradewind.errors import RateLimited

from .redis_presence import RedisPresence

_SAFE_FRAC = 0.95
_BULK_RESERVE_FRAC = 1 / 3
_LOCAL_SHARE = 8

# The bucket as it stands now: KEYS[1] names it; ARGV[1], ARGV[2] are the rate per second and the capacity. A process
# that knows another limit (published meanwhile) finds the bucket as full as it was, not with as many tokens. `save`
# keeps it for ten minutes, or as long as a ban already keeps it.
_STATE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local rate, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at', 'blocked_until', 'capacity')
local tokens = tonumber(state[1] or capacity) * capacity / tonumber(state[4] or capacity)
tokens = math.min(capacity, tokens + math.max(0, now - tonumber(state[2] or now)) * rate)
local blocked_until = tonumber(state[3] or 0)
local function save(...)
  redis.call('HSET', KEYS[1], ...)
  if redis.call('TTL', KEYS[1]) < 600 then redis.call('EXPIRE', KEYS[1], 600) end
end
"""

# ARGV[3] wanted weight, ARGV[4] weight that must stay. Answers 0 when taken, else the milliseconds to wait. A weight
# above the capacity is taken from a full bucket, which then goes negative.
_TAKE = (
    _STATE
    + """
if blocked_until > now then return math.ceil((blocked_until - now) * 1000) end
local weight, reserve = tonumber(ARGV[3]), tonumber(ARGV[4])
local needed = math.min(weight + reserve, capacity)
local wait = 0
if tokens >= needed then tokens = tokens - weight else wait = math.ceil((needed - tokens) / rate * 1000) end
save('tokens', tokens, 'at', now, 'capacity', capacity)
return wait
"""
)

# ARGV[3] what the exchange still allows in this minute by its own count. Nothing left: wait for the next minute.
_LOWER = (
    _STATE
    + """
local left = tonumber(ARGV[3])
save('tokens', math.min(tokens, math.max(left, 0)), 'at', now, 'capacity', capacity)
if left <= 0 then
  save('blocked_until', math.max(blocked_until, (math.floor(now / 60) + 1) * 60))
end
return 0
"""
)

# ARGV[1] seconds for which nobody may call.
_BLOCK = """
local time = redis.call('TIME')
local until_s = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[1])
local known = tonumber(redis.call('HGET', KEYS[1], 'blocked_until') or 0)
redis.call('HSET', KEYS[1], 'blocked_until', math.max(known, until_s))
redis.call('EXPIRE', KEYS[1], math.max(600, math.ceil(tonumber(ARGV[1])) + 60))
return 0
"""


@dataclass
class _LocalBucket:
    """This process's own share, for when Redis is away."""

    rate: float
    capacity: float
    tokens: float
    at_s: float
    blocked_until_s: float = 0.0

    def take(self, weight: float, reserve: float) -> float:
        """Seconds to wait; 0.0 when taken."""
        now = time.monotonic()
        if self.blocked_until_s > now:
            return self.blocked_until_s - now
        self.tokens = min(self.capacity, self.tokens + (now - self.at_s) * self.rate)
        self.at_s = now
        needed = min(weight + reserve, self.capacity)
        if self.tokens < needed:
            return (needed - self.tokens) / self.rate
        self.tokens -= weight
        return 0.0


class RateLimiter:
    """Waits until the exchange's limit allows a call.

    Parameters
    ----------
    redis : the shared cache; None keeps the bucket in this process.
    key : names the exchange account whose limit is shared.
    weight_per_minute : the exchange's limit.
    burst_s : how many seconds' weight may be spent at once, where the exchange counts by the minute or by the second.
    max_wait_s, max_bulk_wait_s : beyond these a call gives up with RateLimited instead of blocking its task.
    """

    def __init__(
        self,
        redis: Redis | None,
        key: str,
        weight_per_minute: float,
        *,
        burst_s: float = 10.0,
        max_wait_s: float = 20.0,
        max_bulk_wait_s: float = 180.0,
    ) -> None:
        self._redis = redis
        self._key = f"tradewind:rate:{key}"
        self._max_wait_s = {False: max_wait_s, True: max_bulk_wait_s}
        self._burst_s = burst_s
        self._lock = threading.Lock()
        self.set_limit(weight_per_minute)
        self._presence = RedisPresence(
            without=f"this process keeps to 1/{_LOCAL_SHARE} of the exchange's limit until it is back",
            again="the exchange's limit is shared by all processes again",
        )
        if redis is not None:
            self._take = redis.register_script(_TAKE)
            self._lower = redis.register_script(_LOWER)
            self._block = redis.register_script(_BLOCK)

    def set_limit(self, weight_per_minute: float) -> None:
        """Keep to another limit from now on, as when the exchange has published its own."""
        self.weight_per_minute = weight_per_minute
        self._capacity = weight_per_minute * self._burst_s / 60
        self._rate = (weight_per_minute * _SAFE_FRAC - self._capacity) / 60
        share = 1.0 if self._redis is None else 1 / _LOCAL_SHARE
        self._local = _LocalBucket(self._rate * share, self._capacity * share, self._capacity * share, time.monotonic())

    def acquire(self, weight: float, *, bulk: bool = False) -> None:
        """Block until `weight` may be spent.

        Raises RateLimited when that would take longer than the configured patience.
        """
        deadline_s = time.monotonic() + self._max_wait_s[bulk]
        while (wait_s := self._try_take(weight, bulk)) > 0:
            if time.monotonic() + wait_s > deadline_s:
                raise RateLimited("the exchange's rate limit is used up: wait, or ask for less at once", wait_s)
            time.sleep(wait_s)

    def observe(self, used_weight: float) -> None:
        """Lower the bucket to what the exchange's own count of this minute leaves."""
        left = self.weight_per_minute * _SAFE_FRAC - used_weight
        if self._redis_usable():
            try:
                self._lower(keys=[self._key], args=[self._rate, self._capacity, left])
                self._presence.answered()
            except RedisError as error:
                self._presence.missed(error)
        with self._lock:
            self._local.tokens = min(self._local.tokens, max(left, 0.0))

    def block(self, seconds: float) -> None:
        """Nobody calls for this long: the exchange said so by 429 or 418."""
        if self._redis_usable():
            try:
                self._block(keys=[self._key], args=[seconds])
                self._presence.answered()
            except RedisError as error:
                self._presence.missed(error)
        with self._lock:
            self._local.blocked_until_s = max(self._local.blocked_until_s, time.monotonic() + seconds)

    def _try_take(self, weight: float, bulk: bool) -> float:
        reserve = self._capacity * _BULK_RESERVE_FRAC if bulk else 0.0
        if self._redis_usable():
            try:
                wait_ms = int(self._take(keys=[self._key], args=[self._rate, self._capacity, weight, reserve]))
            except RedisError as error:
                self._presence.missed(error)
            else:
                self._presence.answered()
                return wait_ms / 1000
        with self._lock:
            return self._local.take(weight, self._local.capacity * _BULK_RESERVE_FRAC if bulk else 0.0)

    def _redis_usable(self) -> bool:
        return self._redis is not None and self._presence.worth_asking()
