"""Binance's schedule of spot delistings: elsewhere a market's own rules tell its end.

The schedule is asked for every hour at most, by one process of a deployment for all.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime
from typing import Any, Final

from redis.exceptions import RedisError

from tradewind.core.timeframes import from_ms
from tradewind.errors import RetryError, StopError

from .ccxt_client import CcxtClient
from .ccxt_errors import UNREADABLE

_log = logging.getLogger(__name__)
_LASTS_S: Final = 3600.0
_RETRY_S: Final = 300.0


class Delistings:
    """When spot markets end, by the exchange's names of them. Nothing is told without a key."""

    def __init__(self, client: CcxtClient) -> None:
        self._client = client
        self._ends_ms: dict[str, int] = {}
        self._told_at_s = 0.0  # wall time
        self._refused_until_s = 0.0

    def end_of(self, market: str) -> datetime | None:
        """The announced end of a market; None without one, and while the schedule cannot be had."""
        if self._client.config.api_key and not self._is_fresh():
            self._take_cached()
            if not self._is_fresh() and time.monotonic() >= self._refused_until_s:
                self._ask()
        end_ms = self._ends_ms.get(market)
        return None if end_ms is None else from_ms(end_ms)

    def _is_fresh(self) -> bool:
        return abs(time.time() - self._told_at_s) < _LASTS_S

    def _ask(self) -> None:
        try:
            told: Any = self._client.read("sapi_get_spot_delist_schedule")
            self._ends_ms = {str(market): int(row["delistTime"]) for row in told for market in row["symbols"]}
        except (RetryError, StopError, *UNREADABLE) as error:
            _log.info("The schedule of delistings is not told: %s", error)
            self._refused_until_s = time.monotonic() + _RETRY_S
            return
        self._told_at_s = time.time()
        if self._client.redis is None:
            return
        try:
            packed = json.dumps([self._told_at_s, self._ends_ms])
            self._client.redis.set(self._key, packed, ex=int(_LASTS_S))
        except RedisError as error:
            _log.info("The cache is away (%s): each process asks for delistings itself", type(error).__name__)

    @property
    def _key(self) -> str:
        return f"tradewind:delistings:{self._client.config.limit_key}"

    def _take_cached(self) -> None:
        if self._client.redis is None:
            return
        try:
            packed: Any = self._client.redis.get(self._key)
        except RedisError as error:
            _log.info("The cache is away (%s): delistings are asked for", type(error).__name__)
            return
        if packed is not None:
            self._told_at_s, self._ends_ms = json.loads(packed)
