"""Whether Redis is there: said once when it goes, once when it returns, and not asked in between for a few seconds."""

from __future__ import annotations

import logging
import time

from redis.exceptions import RedisError

_log = logging.getLogger(__name__)
# Asking a dead server before each call would cost its time-out each time.
_PAUSE_S = 5.0


class RedisPresence:
    """One user's view of a cache that may vanish.

    Parameters
    ----------
    without, again : what the log says follows from its absence and from its return.
    """

    def __init__(self, *, without: str, again: str) -> None:
        self._without = without
        self._again = again
        self._ask_again_at_s = 0.0
        self._is_lost = False

    def worth_asking(self) -> bool:
        return time.monotonic() >= self._ask_again_at_s

    def missed(self, error: RedisError) -> None:
        self._ask_again_at_s = time.monotonic() + _PAUSE_S
        if not self._is_lost:
            self._is_lost = True
            _log.warning("The cache is away (%s): %s", type(error).__name__, self._without)

    def answered(self) -> None:
        if self._is_lost:
            self._is_lost = False
            _log.warning("The cache is back: %s", self._again)
