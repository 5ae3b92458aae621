"""Retention in a real PostgreSQL: what explains or moved money stays, what repeats itself goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from psycopg.types.json import Jsonb

from tradewind.adapters.database import Database
from tradewind.adapters.upkeep_store import PgUpkeep

NOW = datetime(2024, 3, 5, 12, tzinfo=UTC)
KEPT = timedelta(days=400)
_MARK = "INSERT INTO equity (account, at, kind, equity_quote, detail) VALUES ('a', %s, %s, %s, '{}')"


def test_of_old_marks_the_highest_lowest_and_last_of_each_quarter_stay(database: Database) -> None:
    quarter = NOW - timedelta(days=10)
    for second, equity in enumerate([100, 103, 99, 101, 102, 100.5]):
        database.execute(_MARK, (quarter + timedelta(seconds=second), "mark", equity))
    database.execute(_MARK, (quarter + timedelta(seconds=3), "day_open", 100))
    database.execute(_MARK, (quarter + timedelta(minutes=15), "mark", 98))
    recent = NOW - timedelta(days=1)
    for second in range(5):
        database.execute(_MARK, (recent + timedelta(seconds=second), "mark", 100))
    peak = "SELECT max(equity_quote) AS peak, min(equity_quote) AS low FROM equity"
    before = database.row(peak)
    assert PgUpkeep(database, KEPT).remove_expired(NOW)["equity"] == 3
    assert database.row(peak) == before
    old = database.rows("SELECT equity_quote FROM equity WHERE kind = 'mark' AND at < %s ORDER BY at", (recent,))
    assert [float(row["equity_quote"]) for row in old] == [103, 99, 100.5, 98]
    assert database.rows("SELECT 1 FROM equity WHERE kind = 'day_open'")
    assert len(database.rows("SELECT 1 FROM equity WHERE at >= %s", (recent,))) == 5
    assert PgUpkeep(database, KEPT).remove_expired(NOW)["equity"] == 0


def test_old_verdicts_and_clean_reconciliations_go(database: Database) -> None:
    for age_days, passed in [(100, True), (100, False), (10, True)]:
        database.execute(
            "INSERT INTO data_quality (symbol, bar, passed, findings) VALUES (%s, %s, %s, '{}')",
            (f"{passed}{age_days}", NOW - timedelta(days=age_days), passed),
        )
    for age_days, clean in [(20, True), (20, False), (1, True)]:
        database.execute(
            "INSERT INTO reconciliations (account, at, clean, report) VALUES ('a', %s, %s, %s)",
            (NOW - timedelta(days=age_days), clean, Jsonb({})),
        )
    removed = PgUpkeep(database, KEPT).remove_expired(NOW)
    assert (removed["data_quality"], removed["reconciliations"]) == (2, 1)
    assert len(database.rows("SELECT 1 FROM reconciliations WHERE NOT clean")) == 1


def test_finished_jobs_go_with_their_chunks_and_sent_alerts_too(database: Database) -> None:
    database.execute(
        "INSERT INTO jobs (job_id, kind, state, params, requested_by, finished_at) VALUES "
        "('old', 'k', 'done', '{}', 't', now() - interval '200 days'), ('open', 'k', 'running', '{}', 't', NULL)"
    )
    database.execute("INSERT INTO history_chunks VALUES ('old', 'A/USDT', '1h', now(), now())")
    database.execute(
        "INSERT INTO alerts (account, severity, key, title, body, created_at, sent_at) VALUES "
        "('a', 'info', 'a', 't', 'b', now() - interval '200 days', now()),"
        "('a', 'critical', 'b', 't', 'b', now() - interval '200 days', NULL)"
    )
    removed = PgUpkeep(database, KEPT).remove_expired(NOW)
    assert (removed["jobs"], removed["alerts"]) == (1, 1)
    assert [row["job_id"] for row in database.rows("SELECT job_id FROM jobs")] == ["open"]
    assert database.rows("SELECT 1 FROM history_chunks") == []


def test_declined_bars_go_after_their_time_and_bars_with_an_entry_never(database: Database) -> None:
    ages = {"declined long ago": 401, "entered long ago": 402, "declined lately": 399}
    for reason, age_days in ages.items():
        bar = NOW - timedelta(days=age_days)
        for symbol in ("BTC/USDT", "ETH/USDT"):
            entered = reason.startswith("entered") and symbol == "BTC/USDT"
            values = {"symbol": symbol, "bar": bar, "reason": reason, "outcome": "intent" if entered else "declined"}
            for insert in _DECIDED:
                database.execute(insert, values)
    database.execute(
        "INSERT INTO parity_reports (account, strategy_version, at, since, until, cycles, differences, unexplained, "
        "report) SELECT 'a', 'v', t, t, t, 1, 0, 0, '{}' FROM unnest(%s::timestamptz[]) t",
        ([NOW - timedelta(days=401), NOW],),
    )
    removed = PgUpkeep(database, KEPT).remove_expired(NOW)
    tables = ("cycle_inputs", "predictions", "filter_verdicts", "decisions", "parity_reports")
    assert {table: removed[table] for table in tables} == dict(zip(tables, (1, 2, 2, 2, 1), strict=True))
    for table in tables[:-1]:
        left = {row["bar"] for row in database.rows(f"SELECT bar FROM {table}")}
        assert left == {NOW - timedelta(days=402), NOW - timedelta(days=399)}, table
    kept = {row["reason"] for row in database.rows("SELECT reason FROM decisions")}
    assert kept == {"entered long ago", "declined lately"}
    again = PgUpkeep(database, KEPT).remove_expired(NOW)
    assert not any(again[table] for table in tables)


_DECIDED = (
    "INSERT INTO cycle_inputs VALUES ('a', 'v', %(bar)s, '{}') ON CONFLICT DO NOTHING",
    "INSERT INTO predictions VALUES ('a', 'v', %(symbol)s, %(bar)s, true, '', '{}', '{}', 'sha')",
    "INSERT INTO filter_verdicts VALUES ('a', 'v', %(symbol)s, %(bar)s, false, '[]')",
    "INSERT INTO decisions VALUES ('a', 'v', %(symbol)s, %(bar)s, %(outcome)s, %(reason)s, NULL, '{}')",
)


def test_statistics_name_the_largest_tables(database: Database) -> None:
    tables = {row["name"]: row["bytes"] for row in PgUpkeep(database, KEPT).refresh_statistics()}
    assert tables
    assert min(tables.values()) >= 0
