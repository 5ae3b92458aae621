"""Jobs whose process was killed: their row ends, a job that lives keeps its own."""

from __future__ import annotations

from tradewind.adapters.database import Database
from tradewind.adapters.market_store import PgMarketStore
from tradewind.stack.job_following import DIED, fail_silent_jobs


def running(store: PgMarketStore, job_id: str) -> None:
    store.create_job(job_id, "import_candles", {}, requested_by="test")
    store.move_job(job_id, "running")


def age(database: Database, job_id: str, minutes: int) -> None:
    """As if all that the job said were so much longer ago."""
    database.execute(
        "UPDATE jobs SET started_at = started_at - make_interval(mins => %(m)s),"
        " reported_at = reported_at - make_interval(mins => %(m)s) WHERE job_id = %(job_id)s",
        {"m": minutes, "job_id": job_id},
    )


def state(store: PgMarketStore, job_id: str) -> tuple[str, str | None]:
    row = store.job(job_id)
    assert row is not None
    return row["state"], row["error"]


def test_a_killed_import_does_not_run_for_ever(database: Database) -> None:
    store = PgMarketStore(database)
    running(store, "killed")
    age(database, "killed", 31)
    assert fail_silent_jobs(database) == 1
    assert state(store, "killed") == ("failed", DIED)
    assert fail_silent_jobs(database) == 0
    store.move_job("killed", "running")
    assert state(store, "killed") == ("running", None)


def test_a_job_that_reports_is_left_alone(database: Database) -> None:
    store = PgMarketStore(database)
    for job_id in ("fresh", "reporting", "chunked", "done"):
        running(store, job_id)
        age(database, job_id, 600 if job_id != "fresh" else 29)
    counts = {"expected_bars": 2, "done_bars": 1, "rows_seen": 1, "rows_new": 1}
    store.report_progress("reporting", {"BTC/USDT 15m": counts})
    database.execute(
        "INSERT INTO history_chunks VALUES ('chunked', 'BTC/USDT', '15m', now() - interval '9 days',"
        " now() - interval '8 days', now() - interval '20 minutes', 96, 96)"
    )
    store.move_job("done", "done")
    age(database, "done", 600)
    assert fail_silent_jobs(database) == 0
    assert {state(store, job_id)[0] for job_id in ("fresh", "reporting", "chunked")} == {"running"}
    assert state(store, "done") == ("done", None)


def test_a_job_with_a_run_is_airflows_to_end(database: Database) -> None:
    store = PgMarketStore(database)
    running(store, "run")
    age(database, "run", 600)
    database.execute("UPDATE jobs SET dag_id = 'backfill_history', dag_run_id = 'manual__1' WHERE job_id = 'run'")
    assert fail_silent_jobs(database) == 0
    assert state(store, "run")[0] == "running"
