"""Collect the closed 15-minute candles of every symbol.

Every run owns one interval, [start, end). It asks the exchange from the moment the bar closes until the bar is there,
drops unfinished and impossible candles, and inserts the rest; what is stored already stays as it is. When its interval
is the newest one it also takes what earlier runs of the day missed, judges each symbol's recent bars (no verdict, no
entry), and announces `closed_candles_15m`, which wakes `run_trade_cycle` and `detect_regime`. A symbol that lacks its
bar holds up the others for ten seconds at most; the event names it. A run that was triggered without a date takes the
last interval that has closed.

## What the buttons do

- **Clear** asks the exchange for the same interval again. Bars that are stored stay; missing ones are added. Only the
  newest interval is announced, and a bar that was decided is never decided again.
- **Mark success** fetches nothing: the bar stays missing until the next run or `fill_candle_gaps` takes it.
- **Retry** happens by itself, six times with growing pauses, while the exchange does not answer.
- **Backfill** is what this DAG is made for: one run an interval, the end date included, as many at a time as you allow.
  It announces nothing, so no backfill ever wakes trading, and repeating it adds no bar. It runs in the pool `bulk`, so
  that fresh candles do not queue behind it. For months or years, `backfill_history` is a hundred times quicker.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronDataIntervalTimetable, dag, get_current_context, task

from tradewind.orchestration.assets import CLOSED_CANDLES_15M, COLLECTED_15M
from tradewind.orchestration.collection import collect_interval
from tradewind.orchestration.defaults import START_DATE, Pool, task_defaults


@dag(
    schedule=CronDataIntervalTimetable("*/15 * * * *", timezone="UTC"),
    start_date=START_DATE,
    catchup=False,
    max_active_runs=16,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=1),
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
def collect_candles_15m() -> None:
    @task(outlets=[COLLECTED_15M])
    def collect_candles() -> None:
        collect_interval(get_current_context(), "15m", COLLECTED_15M, CLOSED_CANDLES_15M)

    collect_candles()


collect_candles_15m()
