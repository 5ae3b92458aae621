"""Request weights and order counts: the budgets whose breach answers 429 and, when ignored, 418."""

from __future__ import annotations

from dataclasses import dataclass, field

from tradewind.paper.dialect import ApiError

_MINUTE_MS = 60_000
_STRIKES = 10
"""A client that goes on after this many 429 answers within a minute is banned for two minutes."""
_BAN_MS = 120_000


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The budgets, as exchangeInfo publishes them."""

    weight_per_minute: int = 6_000
    orders_per_10s: int = 100
    orders_per_day: int = 200_000


@dataclass(slots=True)
class _Window:
    number: int = -1
    used: int = 0

    def add(self, number: int, amount: int) -> int:
        if number != self.number:
            self.number, self.used = number, 0
        self.used += amount
        return self.used

    def at(self, number: int) -> int:
        return self.used if number == self.number else 0


@dataclass(slots=True)
class _Client:
    weight: _Window = field(default_factory=_Window)
    strikes: _Window = field(default_factory=_Window)
    banned_until_ms: int = 0


@dataclass(slots=True)
class _Orders:
    short: _Window = field(default_factory=_Window)
    day: _Window = field(default_factory=_Window)


class RateLimiter:
    """Counts on wall time: weight by API key, else by client address, orders by account."""

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits
        self._clients: dict[str, _Client] = {}
        self._orders: dict[str, _Orders] = {}

    def spend(self, client_id: str, weight: int, wall_ms: int) -> int:
        """Count a request of a key or of an address; returns the weight used in this minute.

        Raises ApiError 429 or 418 with Retry-After.
        """
        client = self._clients.setdefault(client_id, _Client())
        if wall_ms < client.banned_until_ms:
            raise self._banned(client.banned_until_ms, wall_ms)
        minute = wall_ms // _MINUTE_MS
        used = client.weight.add(minute, weight)
        if used > self.limits.weight_per_minute:
            if client.strikes.add(minute, 1) > _STRIKES:
                client.banned_until_ms = wall_ms + _BAN_MS
                raise self._banned(client.banned_until_ms, wall_ms)
            wait_s = (_MINUTE_MS - wall_ms % _MINUTE_MS + 999) // 1000
            raise ApiError(
                -1003,
                f"Too much request weight used; current limit is {self.limits.weight_per_minute} request weight per"
                " 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API.",
                429,
                headers={"Retry-After": str(wait_s), "X-MBX-USED-WEIGHT-1M": str(used)},
            )
        return used

    def count_orders(self, account_id: str, orders: int, wall_ms: int) -> dict[str, str]:
        """Count new orders; returns the order-count headers. Raises ApiError -1015 (429) when a budget is used up."""
        counted = self._orders.setdefault(account_id, _Orders())
        for window, number, most, name in (
            (counted.short, wall_ms // 10_000, self.limits.orders_per_10s, "10 SECOND"),
            (counted.day, wall_ms // 86_400_000, self.limits.orders_per_day, "1 DAY"),
        ):
            if window.at(number) + orders > most:
                raise ApiError(
                    -1015,
                    f"Too many new orders; current limit is {most} orders per {name}.",
                    429,
                    headers={"Retry-After": "10"},
                )
        short = counted.short.add(wall_ms // 10_000, orders)
        day = counted.day.add(wall_ms // 86_400_000, orders)
        return {"X-MBX-ORDER-COUNT-10S": str(short), "X-MBX-ORDER-COUNT-1D": str(day)}

    def order_counts(self, account_id: str, wall_ms: int) -> tuple[int, int]:
        """Orders counted in the current ten seconds and in the current day."""
        counted = self._orders.get(account_id, _Orders())
        return counted.short.at(wall_ms // 10_000), counted.day.at(wall_ms // 86_400_000)

    @staticmethod
    def _banned(until_ms: int, wall_ms: int) -> ApiError:
        return ApiError(
            -1003,
            f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams for live"
            " updates to avoid bans.",
            418,
            headers={"Retry-After": str((until_ms - wall_ms + 999) // 1000)},
        )
