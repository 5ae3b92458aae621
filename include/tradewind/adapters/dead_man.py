"""A ping to a watchdog outside: as long as all is well it hears of us; when it does not, it wakes somebody."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

from .bounded_http import BoundedTransport

_log = logging.getLogger(__name__)
_MAX_BYTES = 65_536
_TIMEOUT_S = 10.0
# httpx writes whole addresses at INFO, keys in them included.
logging.getLogger("httpx").setLevel(logging.WARNING)


class DeadManPing:
    """Calls `url` every minute while `is_well` says so; silence is the alarm.

    Parameters
    ----------
    url : the watchdog's address; it holds a secret, so no log names it.
    is_well : whether every part answers; asked before each ping.
    every_s : seconds between pings.
    """

    def __init__(self, url: str, is_well: Callable[[], bool], *, every_s: float = 60.0) -> None:
        self._url = url
        self._is_well = is_well
        self._every_s = every_s
        self._stop = threading.Event()

    def ping_once(self) -> bool:
        """Ping if all is well; says whether the watchdog heard it."""
        if not self._is_well():
            return False
        transport = BoundedTransport(
            max_bytes=_MAX_BYTES,
            until=lambda: time.monotonic() + _TIMEOUT_S,
            named_host=urlsplit(self._url).hostname or "",
        )
        try:
            with httpx.Client(transport=transport, timeout=_TIMEOUT_S) as client:
                return client.get(self._url).is_success
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _log.warning("the watchdog outside does not answer: %s", type(error).__name__)
            return False

    def start(self) -> threading.Thread:
        """Ping in a daemon thread until `stop`."""
        thread = threading.Thread(target=self._run, name="dead-man-ping", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.ping_once()
