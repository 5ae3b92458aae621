"""Whose time it is: the wall's, or the paper market's when that market's clock is stepped."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import httpx

from tradewind.errors import ExchangeUnreachable


class WallClock:
    """The machine's clock, UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class PaperClock:
    """The paper exchange's market clock, asked over HTTP and trusted for `max_age_s` of wall time.

    A task that starts after a step of the market asks anew, because each task has a wiring of its own. Whoever steps
    the market and goes on with the same wiring says so with `forget`.
    """

    def __init__(self, exchange_url: str, admin_token: str, *, max_age_s: float = 0.2) -> None:
        self._url = f"{exchange_url.rstrip('/')}/__admin/clock"
        self._headers = {"X-Tradewind-Admin": admin_token}
        self._max_age_s = max_age_s
        self._asked_at_s = -1e9
        self._now = datetime.fromtimestamp(0, UTC)
        self._client = httpx.Client(timeout=10.0)

    def now(self) -> datetime:
        """The market's time, aware, UTC.

        Raises
        ------
        ExchangeUnreachable
            When the paper exchange does not answer; the caller's task retries.
        """
        if time.monotonic() - self._asked_at_s > self._max_age_s:
            try:
                answer = self._client.get(self._url, headers=self._headers)
                answer.raise_for_status()
            except httpx.HTTPError as error:
                raise ExchangeUnreachable(f"the paper market's clock at {self._url} did not answer: {error}") from error
            self._now = datetime.fromtimestamp(answer.json()["market_ms"] / 1000, UTC)
            self._asked_at_s = time.monotonic()
        return self._now

    def forget(self) -> None:
        """Ask anew next time: the market has been stepped."""
        self._asked_at_s = -1e9
