"""Metrics by StatsD, beside Airflow's own: UDP, fire and forget, so a dead collector costs and raises nothing."""

from __future__ import annotations

import re
import time
from typing import Any

import statsd

# What separates the parts of a StatsD line, or of its tags, must not occur inside them.
_RESERVED = re.compile(r"[,=:|@#\s]")
_RETRY_RESOLVE_S = 30.0
_MAX_DATAGRAM_BYTES = 1400


class NullMetrics:
    """Metrics that go nowhere: no collector is configured."""

    def count(self, name: str, value: int = 1, **tags: str) -> None:
        return None

    def gauge(self, name: str, value: float, **tags: str) -> None:
        return None

    def timing_ms(self, name: str, value_ms: float, **tags: str) -> None:
        return None


class StatsdMetrics:
    """Sends each value as one UDP datagram, tags in InfluxDB's style (`name,tag=value`), which statsd_exporter reads.

    A host that does not resolve is tried again after 30 s instead of being dropped for good.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._client: Any = None
        self._next_try_s = 0.0

    def count(self, name: str, value: int = 1, **tags: str) -> None:
        if client := self._connected():
            client.incr(stat_name(name, tags), value)

    def gauge(self, name: str, value: float, **tags: str) -> None:
        if client := self._connected():
            # A level below zero arrives as two lines, zero first: a signed gauge is a change in StatsD.
            client.gauge(stat_name(name, tags), value)

    def timing_ms(self, name: str, value_ms: float, **tags: str) -> None:
        if client := self._connected():
            client.timing(stat_name(name, tags), value_ms)

    def _connected(self) -> Any:
        if self._client is None and time.monotonic() >= self._next_try_s:
            try:
                self._client = statsd.StatsClient(self._host, self._port, maxudpsize=_MAX_DATAGRAM_BYTES)
            except OSError:
                self._next_try_s = time.monotonic() + _RETRY_RESOLVE_S
        return self._client


def stat_name(name: str, tags: dict[str, str]) -> str:
    """`name,tag=value,…` with tags in a fixed order and the separators inside values replaced by `_`."""
    parts = [_RESERVED.sub("_", name)]
    parts += [
        f"{_RESERVED.sub('_', tag)}={_RESERVED.sub('_', str(value)) or '_'}" for tag, value in sorted(tags.items())
    ]
    return ",".join(parts)
