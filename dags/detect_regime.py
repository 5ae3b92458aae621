"""Classify the market regime of each symbol and closed bar.

ADX, normalised ATR and Bollinger band width of the 1h context, each against its own trailing window, with hysteresis
from the stored previous state: `trending_strong`, `trending_weak`, `ranging_volatile`, `ranging_quiet`,
`ranging_squeeze`, `chaotic`. The asset event only wakes it: it classifies every stored bar that has no regime yet. The
trade cycle computes the same with the same function, and both insert only what is not there, so neither waits.

## What the buttons do

- **Clear** looks for unclassified bars again. Regimes that are stored stay; nothing decided changes.
- **Mark success** classifies nothing; the next bar's run catches up.
- **Retry** happens by itself, three times with growing pauses.
- **Backfill** is refused: waking up once classifies every bar that is stored.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from tradewind.orchestration.assets import CLOSED_CANDLES_15M
from tradewind.orchestration.defaults import START_DATE, Pool, RunType, task_defaults


@dag(
    schedule=[CLOSED_CANDLES_15M],
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=1),
    allowed_run_types=[RunType.ASSET_TRIGGERED, RunType.MANUAL, RunType.OPERATOR_TRIGGERED],
    tags=["regime", "signals"],
    doc_md=__doc__,
    default_args=task_defaults(owner="research", pool=Pool.MARKET, timeout=timedelta(minutes=15), retries=3),
)
def detect_regime() -> None:
    @task
    def classify_bars() -> None:
        from tradewind.jobs.regime import detect_regime
        from tradewind.orchestration.runtime import report, task_ports

        with task_ports() as ports:
            report(detect_regime(ports))

    classify_bars()


detect_regime()
