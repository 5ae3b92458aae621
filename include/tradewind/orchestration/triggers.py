"""The deferred half of the risk watch: it lives in the triggerer and holds no worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from airflow.triggers.base import BaseTrigger, TriggerEvent

from tradewind.errors import RetryError

# A reading that hangs longer than this counts as failed; the adapters' own time-outs are shorter.
READING_TIMEOUT_S = 20.0
# While readings fail, one log line in this time is enough: entries are blocked by the silent heartbeat meanwhile.
_COMPLAIN_EVERY_S = 60.0

log = structlog.get_logger(__name__)


class RiskWatchTrigger(BaseTrigger):
    """Marks equity every `poll_s` until a breach is latched or `until` is reached, and fires one event.

    The reading is `jobs.safety.watch_risk_once`, in a thread of its own, since it talks to PostgreSQL and the exchange:
    the triggerer's loop is never blocked. What passes by itself (an unreachable exchange, a restarting database) is
    waited out; anything else ends the trigger with its error, and the sensor's retry starts a new one.

    Parameters
    ----------
    until : end of the watch, ISO with offset.
    poll_s : seconds from one reading's start to the next one's.

    Event
    -----
    `{"breached": true, "reason": ..., "latch_sequence": ...}` after a breach; at the end `{"breached": false, "reason":
    "day over"}`.
    """

    def __init__(self, until: str, poll_s: float = 2.0) -> None:
        super().__init__()
        self.until = until
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", {"until": self.until, "poll_s": self.poll_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from tradewind.jobs.safety import watch_risk_once
        from tradewind.orchestration.runtime import build_wiring_async

        wiring = await build_wiring_async()
        try:
            reading = await watch(lambda: watch_risk_once(wiring), datetime.fromisoformat(self.until), self.poll_s)
        finally:
            wiring.close()
        if reading is None:
            yield TriggerEvent({"breached": False, "reason": "day over"})
        else:
            latch_sequence = reading["latch_sequence"]
            yield TriggerEvent({"breached": True, "reason": reading["reason"], "latch_sequence": latch_sequence})


async def watch(read: Callable[[], Mapping[str, Any]], until: datetime, poll_s: float) -> Mapping[str, Any] | None:
    """Call `read` in a thread every `poll_s` until it reports a breach, which is returned, or `until`: None.

    RetryError and a reading that hangs are waited out; any other exception of `read` passes through.
    """
    complained_at = float("-inf")
    while datetime.now(UTC) < until:
        started = time.monotonic()
        try:
            reading = await asyncio.wait_for(asyncio.to_thread(read), READING_TIMEOUT_S)
        except (RetryError, TimeoutError) as error:
            if started - complained_at >= _COMPLAIN_EVERY_S:
                complained_at = started
                log.warning("risk watch is blind", error=f"{type(error).__name__}: {error}")
        else:
            complained_at = float("-inf")
            if reading["breached"]:
                return reading
        await asyncio.sleep(max(0.0, poll_s - (time.monotonic() - started)))
    return None
