"""A ping to a watchdog outside: as long as all is well it hears of us; when it does not, it wakes somebody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import httpx

_log = logging.getLogger(__name__)
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
        try:
            return httpx.get(self._url, timeout=10.0).is_success
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
