"""The risk watch as a task: deferred for the whole UTC day, awake only to pass on what the trigger saw."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowSkipException


class RiskWatchSensor(BaseSensorOperator):
    """Watches equity until a breach or the end of the UTC day.

    Succeeds on a breach, so that what follows trips the breaker. A day that ends quietly ends skipped, and so does what
    follows. It never pokes: a worker's slot is taken for a moment only, the watching is the triggerer's.

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

    def pass_on(self, context: Context, event: dict[str, Any]) -> str:
        """What the trigger's event means: returns the reason of a breach.

        Raises AirflowSkipException after a day without one.
        """
        if not event["breached"]:
            raise AirflowSkipException(event["reason"])
        self.log.error("breach: %s", event["reason"])
        return str(event["reason"])


def next_midnight(moment: datetime) -> datetime:
    """The first UTC midnight after `moment`."""
    return datetime.combine(moment.astimezone(UTC).date() + timedelta(days=1), time(0), tzinfo=UTC)
