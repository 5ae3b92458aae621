"""What both collecting DAGs do inside their task: which interval, collect it, announce the newest."""

from __future__ import annotations

import structlog
from airflow.sdk import Asset, AssetAlias, Context
from airflow.sdk.exceptions import AirflowSkipException

from tradewind.orchestration.defaults import BACKFILL

log = structlog.get_logger(__name__)


def collect_interval(context: Context, timeframe: str, alias: AssetAlias, asset: Asset) -> None:
    """Collect the closed bars of this run's data interval and, when it is the newest one, announce them.

    A run without a data interval (triggered with a null date) takes the last interval that has closed. "Closed" and
    "newest" are by the market's clock, which in the demo is not the wall's.

    Raises
    ------
    AirflowSkipException : the interval has not closed yet by the market's clock.
    """
    from tradewind.jobs.market import collect_candles
    from tradewind.orchestration.runtime import report, task_ports

    dag_run = context["dag_run"]
    dated = dag_run.logical_date is not None
    start, end = (dag_run.data_interval_start, dag_run.data_interval_end) if dated else (None, None)
    with task_ports(timeframe=timeframe) as ports:
        collected = collect_candles(ports, timeframe, start, end)
        report(collected)
    if collected["state"] == "not_closed":
        raise AirflowSkipException(f"the interval up to {collected['end']} has not closed by the market's clock")
    if collected["newest"] and dag_run.run_type != BACKFILL:
        # Also when a symbol's bar is missing: it was waited for, the others must not wait longer, and its own decision
        # says what is missing. The event tells which, for whoever reads it in the UI.
        absent = sorted({*collected["missing"], *collected["failed"]})
        event = {"interval_end": collected["end"], "complete": collected["newest_complete"], "missing": absent}
        context["outlet_events"][alias].add(asset, extra=event)
        log.info("announced", asset=asset.name, **event)
