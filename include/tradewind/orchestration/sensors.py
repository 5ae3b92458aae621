"""The risk watch as a task: deferred for the whole UTC day, awake only to pass on what the trigger saw."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context

from tradewind.orchestration.cycle import breaker_run


class RiskWatchSensor(BaseSensorOperator):
    """Watches equity until a breach or the end of the UTC day.

    It returns one set of arguments for the breaker's start after a breach and none after a quiet day, for a task to be
    mapped over. So nothing but a breach trips the breaker: a person's Mark success leaves no result to map over, and a
    repeat derives the run id that exists already. It never pokes: the watching is the triggerer's.

    Parameters
    ----------
    poll_s : seconds between two readings.
    """

    def __init__(self, *, poll_s: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.poll_s = poll_s

    def execute(self, context: Context) -> None:
        from tradewind.orchestration.triggers import RiskWatchTrigger

        until = next_midnight(datetime.now(UTC))
        self.defer(
            trigger=RiskWatchTrigger(until=until.isoformat(), poll_s=self.poll_s),
            method_name=self.pass_on.__name__,
        )

    def pass_on(self, context: Context, event: dict[str, Any]) -> list[dict[str, Any]]:
        """What the trigger's event means: arguments of the breaker's start after a breach, else nothing."""
        if not event["breached"]:
            self.log.info("the watch ends: %s", event["reason"])
            return []
        self.log.error("breach: %s", event["reason"])
        return [breaker_run(event["latch_sequence"], event["reason"])]


def next_midnight(moment: datetime) -> datetime:
    """The first UTC midnight after `moment`."""
    return datetime.combine(moment.astimezone(UTC).date() + timedelta(days=1), time(0), tzinfo=UTC)
