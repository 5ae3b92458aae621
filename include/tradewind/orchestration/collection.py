"""What both collecting DAGs do inside their task: which interval, collect it, announce the newest."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from airflow.sdk import Asset, AssetAlias, Context
from airflow.sdk.exceptions import AirflowSkipException

log = structlog.get_logger(__name__)


def collect_interval(context: Context, length: timedelta, timeframe: str, alias: AssetAlias, asset: Asset) -> None:
    """Collect the closed bars of this run's data interval and, when it is the newest one, announce them.

    A run without a data interval (triggered with a null date) takes the last interval that has closed. "Closed" and
    "newest" are by the market's clock: in the demo it is not the wall's.

    Raises
    ------
    AirflowSkipException : the interval has not closed yet by the market's clock.
    """
    from tradewind.jobs.market import collect_candles
    from tradewind.orchestration.runtime import report, task_ports

    with task_ports(timeframe=timeframe) as ports:
        now = ports.clock.now()
        last_close = floor_to(now, length)
        start, end = _data_interval(context) or (last_close - length, last_close)
        if end > now:
            raise AirflowSkipException(f"the interval ends at {end:%F %T}, but the market's clock says {now:%F %T}")
        report(collect_candles(ports, timeframe, start, end))
        # The clock may have moved on while we waited for the bars.
        is_newest = end == floor_to(ports.clock.now(), length)
    if is_newest and context["dag_run"].run_type != "backfill":
        context["outlet_events"][alias].add(asset)
        log.info("announced", asset=asset.name, interval_end=end.isoformat())


def _data_interval(context: Context) -> tuple[datetime, datetime] | None:
    dag_run = context["dag_run"]
    if dag_run.logical_date is None or dag_run.data_interval_start is None or dag_run.data_interval_end is None:
        return None
    return dag_run.data_interval_start, dag_run.data_interval_end


def floor_to(moment: datetime, length: timedelta) -> datetime:
    """The last boundary at or before `moment` of intervals of this length counted from the epoch."""
    epoch = datetime.fromtimestamp(0, tz=moment.tzinfo)
    return moment - (moment - epoch) % length
