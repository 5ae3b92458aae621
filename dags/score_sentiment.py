"""Read the news feeds and score what is new.

Feeds are fetched, articles deduplicated, new ones scored in [-1, 1] by Gemini, or by the local lexicon where there is
no key (and labelled so), then aggregated per symbol and for the market with decay over time. A score counts from the
moment it was made, and for the bars that close after it. Sentiment can veto an entry or ask more of it, never open one;
stale or failed means neutral.

## What the buttons do

- **Clear** reads the feeds again, as they are now. Articles that have a score keep it.
- **Mark success** scores nothing; after two hours without scores sentiment is neutral, and said to be stale.
- **Retry** happens by itself, twice; a feed that fails alone does not fail the run.
- **Backfill** is refused: yesterday's feed cannot be read today.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag, task

from tradewind.orchestration.defaults import START_DATE, Pool, RunType, task_defaults


@dag(
    schedule=CronTriggerTimetable("*/20 * * * *", timezone="UTC"),
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=1),
    allowed_run_types=[RunType.SCHEDULED, RunType.MANUAL, RunType.OPERATOR_TRIGGERED],
    tags=["sentiment", "signals"],
    doc_md=__doc__,
    default_args=task_defaults(owner="research", pool=Pool.BULK, timeout=timedelta(minutes=10), retries=2),
)
def score_sentiment() -> None:
    @task
    def score_articles() -> None:
        from tradewind.jobs.sentiment import score_sentiment
        from tradewind.orchestration.runtime import report, task_ports

        with task_ports() as ports:
            report(score_sentiment(ports))

    score_articles()


score_sentiment()
