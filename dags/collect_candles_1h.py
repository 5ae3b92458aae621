"""Collect the closed 1-hour candles of every symbol.

Nothing decides on these bars: 1h and 4h context is resampled from 15m candles, here and in training and backtests
alike. Stored 1h bars cross-check the resampled ones and reach further back. Every run owns one interval, [start, end);
when that is the newest one it also takes what earlier runs of the last days missed, and announces `closed_candles_1h`.
A run that was triggered without a date takes the last interval that has closed.

## What the buttons do

- **Clear** asks the exchange for the same interval again. Bars that are stored stay; missing ones are added.
- **Mark success** fetches nothing: the bar stays missing until the next run or `fill_candle_gaps` takes it.
- **Retry** happens by itself, six times with growing pauses, while the exchange does not answer.
- **Backfill** runs one run an interval, the end date included. It announces nothing, and repeating it adds no bar. It
  runs in the pool `bulk`. For months or years, `backfill_history` is a hundred times quicker.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronDataIntervalTimetable, dag, get_current_context, task

from tradewind.orchestration.assets import CLOSED_CANDLES_1H, COLLECTED_1H
from tradewind.orchestration.collection import collect_interval
from tradewind.orchestration.defaults import START_DATE, Pool, task_defaults


@dag(
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=START_DATE,
    catchup=False,
    max_active_runs=16,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=2),
    tags=["candles", "market-data"],
    doc_md=__doc__,
    default_args=task_defaults(
        owner="market-data",
        pool=Pool.MARKET,
        timeout=timedelta(minutes=10),
        retries=6,
        retry_delay=timedelta(seconds=5),
    ),
)
def collect_candles_1h() -> None:
    @task(outlets=[COLLECTED_1H])
    def collect_candles() -> None:
        collect_interval(get_current_context(), "1h", COLLECTED_1H, CLOSED_CANDLES_1H)

    collect_candles()


collect_candles_1h()
