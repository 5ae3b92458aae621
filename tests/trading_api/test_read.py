"""The read side over a seeded week: shapes, pages, filters, exports, and what is answered while things are down."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from psycopg.types.json import Jsonb

from tests.support.outside import Outside
from tests.support.status_seed import FILTERS, SYMBOLS, seed_week
from tests.trading_api.conftest import READER
from tradewind.adapters.database import Database
from tradewind.settings import Settings
from tradewind.wiring import Wiring
from trading_api import create_app

LISTS = ("positions", "orders", "decisions", "models", "regimes", "sentiment")


@pytest.fixture
def bar(database: Database, settings: Settings) -> datetime:
    return seed_week(database, settings.account_id)


def get(client: FlaskClient, path: str) -> dict:
    answer = client.get(path, headers=READER)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def test_health_needs_nothing(client: FlaskClient) -> None:
    assert client.get("/api/health").get_json() == {"status": "ok"}


def test_ready_names_what_fails(client: FlaskClient, around: Outside, bar: datetime) -> None:
    assert client.get("/api/ready").get_json()["failed"] == []
    around.ill = {"triggerer"}
    answer = client.get("/api/ready")
    assert answer.status_code == 503
    body = answer.get_json()
    assert body["failed"] == ["airflow"]
    assert "triggerer" in next(check["detail"] for check in body["checks"] if check["name"] == "airflow")
    around.ill, around.paused = set(), {"manage_positions"}
    assert "paused: manage_positions" in client.get("/api/ready").text
    around.paused, around.airflow_down = set(), True
    assert client.get("/api/ready").get_json()["failed"] == ["airflow"]


def test_ready_names_a_silent_watch(client: FlaskClient, database: Database, bar: datetime) -> None:
    database.execute("UPDATE heartbeats SET at = now() - interval '1 minute' WHERE name = 'watch_risk'")
    assert client.get("/api/ready").get_json()["failed"] == ["watch"]
    assert get(client, "/api/system-status")["trading"]["allowed"] is False


def test_system_status_tells_it_all(client: FlaskClient, bar: datetime) -> None:
    status = get(client, "/api/system-status")
    assert status["available"] is True
    assert status["deployment"]["synthetic"] is True
    assert status["trading"] == status["trading"] | {"allowed": True, "reasons": [], "mode": "active"}
    equity = status["equity"]
    assert Decimal(equity["day_quote"]) == Decimal(equity["equity_quote"]) - Decimal(equity["day_open_quote"])
    assert Decimal(equity["breaker_quote"]) == Decimal(equity["day_open_quote"]) * Decimal("0.97")
    assert equity["drawdown_frac"] <= 0
    positions = {row["symbol"]: row for row in status["positions"]}
    assert positions["BTC/USDT"]["protected"] is True
    assert positions["SOL/USDT"]["protected"] is False, "its stop was cancelled"
    first = positions["BTC/USDT"]
    risk = Decimal(first["entry_price"]) - Decimal(first["initial_stop_price"])
    expected = (Decimal(str(first["last_close"])) - Decimal(first["entry_price"])) / risk
    assert first["r"] == pytest.approx(float(expected))
    assert {row["symbol"] for row in status["data"]} == set(SYMBOLS)
    assert not any(row["late"] for row in status["data"])
    assert status["model"]["version"] == "2026w09-a1b2c3"
    assert status["last_cycle"]["state"] == "done"


def test_a_latched_breaker_is_the_first_thing_said(client: FlaskClient, database: Database, bar: datetime) -> None:
    database.execute("SELECT tighten_latch('demo', 'halted', 'equity fell 3.1 %%', 'watch', now())", ())
    status = get(client, "/api/system-status")
    assert status["trading"]["mode"] == "halted"
    assert "3.1 %" in status["trading"]["reasons"][0]
    assert status["problems"][0]["what"] == "breaker"


def test_late_data_is_a_problem(client: FlaskClient, around: Outside, bar: datetime) -> None:
    around.market_now_ms = int((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
    problems = get(client, "/api/system-status")["problems"]
    assert any(problem["what"] == "data" and "BTC/USDT" in problem["detail"] for problem in problems)


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_paged_without_loss_or_repeat(client: FlaskClient, bar: datetime, name: str) -> None:
    whole = get(client, f"/api/{name}?limit=1000")["items"]
    paged, offset = [], 0
    while offset is not None and offset < 1000:
        page = get(client, f"/api/{name}?limit=7&offset={offset}")
        assert len(page["items"]) <= 7
        paged += page["items"]
        offset = page["next_offset"]
        if len(paged) > 60:
            break
    assert paged == whole[: len(paged)]
    assert paged


def test_decisions_by_symbol_bar_and_outcome(client: FlaskClient, bar: datetime) -> None:
    at = bar.isoformat().replace("+00:00", "Z")
    rows = get(client, f"/api/decisions?symbol=ETH/USDT&bar={at}")["items"]
    assert [(row["symbol"], row["bar"]) for row in rows] == [("ETH/USDT", at)]
    assert [verdict["filter"] for verdict in rows[0]["decision"]["verdicts"]] == list(FILTERS)
    assert {row["outcome"] for row in get(client, "/api/decisions?outcome=intent")["items"]} == {"intent"}


def test_time_filters_are_half_open(client: FlaskClient, bar: datetime) -> None:
    at = bar.isoformat().replace("+00:00", "Z")
    before = get(client, f"/api/decisions?to={at}&limit=1")["items"]
    assert before[0]["bar"] < at
    assert {row["bar"] for row in get(client, f"/api/decisions?from={at}")["items"]} == {at}


def test_equity_is_thinned_but_keeps_its_ends_and_lows(client: FlaskClient, database: Database, bar: datetime) -> None:
    answer = get(client, "/api/equity?points=50")
    assert 40 <= len(answer["marks"]) <= 52
    stored = database.row(
        "SELECT min(equity_quote) AS low, (array_agg(equity_quote ORDER BY at DESC))[1] AS last "
        "FROM equity WHERE kind = 'mark'"
    )
    assert stored is not None
    assert min(Decimal(mark["low_quote"]) for mark in answer["marks"]) == stored["low"]
    assert Decimal(answer["marks"][-1]["equity_quote"]) == stored["last"]
    assert len(answer["day_opens"]) >= 7


def test_what_was_paid_in_is_no_gain_on_any_curve(
    client: FlaskClient, database: Database, settings: Settings, bar: datetime
) -> None:
    """Four times of what is there come after the week: every reading before them counts five times as much."""
    before = get(client, "/api/system-status")["equity"]
    week = f"/api/equity?to={before['at']}"
    curve, last, account = get(client, week), Decimal(before["equity_quote"]), settings.account_id
    (link,) = database.rows(
        "INSERT INTO equity_links (account, at, before_quote, after_quote) VALUES (%s, now(), %s, %s) "
        "RETURNING link_id",
        (account, last, last * 5),
    )
    database.execute(
        "INSERT INTO equity (account, at, kind, equity_quote, link_id, detail) VALUES (%s, %s, 'mark', %s, %s, %s)",
        (account, before["at"], last * 5, link["link_id"], Jsonb({"unpriced": ["ETH/USDT"]})),
    )
    after = get(client, "/api/system-status")["equity"]
    assert Decimal(after["equity_quote"]) == last * 5
    for name in ("day_open_quote", "peak_quote", "breaker_quote"):
        assert Decimal(after[name]) == Decimal(before[name]) * 5, name
    for name in ("day_frac", "total_frac", "drawdown_frac", "breaker_frac"):
        assert after[name] == pytest.approx(before[name]), name
    assert after["day_quote"] == before["day_quote"], "money that was paid in was not won"
    assert after["unpriced"] == ["ETH/USDT"]
    scaled = get(client, week)
    for kind, name in (("marks", "equity_quote"), ("marks", "low_quote"), ("day_opens", "equity_quote")):
        assert [Decimal(row[name]) for row in scaled[kind]] == [Decimal(row[name]) * 5 for row in curve[kind]]
    assert all(Decimal(o["breaker_quote"]) == Decimal(o["equity_quote"]) * Decimal("0.97") for o in scaled["day_opens"])


def test_the_breakers_line_is_a_share_of_what_trading_may_use(
    settings: Settings, wiring: Wiring, bar: datetime
) -> None:
    capped = settings.model_copy(update={"max_capital_quote": Decimal(1000)})
    app = create_app(capped, wiring)
    equity = get(app.test_client(), "/api/system-status")["equity"]
    assert Decimal(equity["day_open_quote"]) - Decimal(equity["breaker_quote"]) == 30
    opens = get(app.test_client(), "/api/equity")["day_opens"]
    assert all(Decimal(opened["equity_quote"]) - Decimal(opened["breaker_quote"]) == 30 for opened in opens)


def test_equity_that_cannot_be_measured_is_a_reason_not_to_trade(
    client: FlaskClient, database: Database, bar: datetime
) -> None:
    database.execute("UPDATE equity SET equity_quote = 0")
    status = get(client, "/api/system-status")
    assert not status["trading"]["allowed"]
    assert any("no loss can be measured" in reason for reason in status["trading"]["reasons"])
    assert client.get("/", headers=READER).status_code == 200


def test_signs_of_life_from_the_future_are_none(client: FlaskClient, database: Database, bar: datetime) -> None:
    database.execute("UPDATE heartbeats SET at = now() + interval '1 hour'")
    database.execute("UPDATE reconciliations SET at = now() + interval '1 hour'")
    assert client.get("/api/ready").get_json()["failed"] == ["watch"]
    reasons = get(client, "/api/system-status")["trading"]["reasons"]
    assert sum("the clock ran backwards" in reason for reason in reasons) == 2


def test_candles_come_with_fills_and_stops(client: FlaskClient, bar: datetime) -> None:
    answer = get(client, "/api/candles?symbol=BTC/USDT&limit=96")
    assert len(answer["bars"]) == 96
    assert answer["bars"][-1]["open_time"] == bar.isoformat().replace("+00:00", "Z")
    assert [fill["role"] for fill in answer["fills"]] == ["entry"]
    assert any(stop["state"] == "working" for stop in answer["stops"])


def test_a_silent_watch_is_said_at_once_however_young_the_other_answers_are(
    client: FlaskClient, app: APIFlask, database: Database, bar: datetime
) -> None:
    app.extensions["tradewind"].checks.wait_s = 3600.0
    assert get(client, "/api/system-status")["trading"]["allowed"] is True
    database.execute("UPDATE heartbeats SET at = now() - interval '16 seconds' WHERE name = 'watch_risk'")
    status = get(client, "/api/system-status")
    assert status["trading"]["allowed"] is False
    assert status["trading"]["reasons"] == ["watch: last heartbeat 16 s ago, limit 15 s"]
    assert [check["name"] for check in status["checks"] if not check["ok"]] == ["watch"]
    assert "watch" in [problem["what"] for problem in status["problems"]]


def test_one_model_comes_with_its_manifest(client: FlaskClient, bar: datetime) -> None:
    listed = get(client, "/api/models")["items"][0]
    assert "manifest" not in listed
    whole = get(client, f"/api/models/{listed['version']}")
    assert whole["gates"] == listed["gates"]
    assert whole["manifest"]["metrics"]["promotion"]["pooled"] == listed["promotion"]["pooled"]
    for version in ("nobody", "%00", "a%0ab", "x" * 500):
        assert client.get(f"/api/models/{version}", headers=READER).status_code == 404


def test_models_bring_their_gates(client: FlaskClient, bar: datetime) -> None:
    champion = get(client, "/api/models")["items"][0]
    assert champion["state"] == "champion"
    assert len(champion["gates"]) == 3


def test_an_unchanged_list_costs_no_transfer(client: FlaskClient, bar: datetime) -> None:
    first = client.get("/api/models", headers=READER)
    again = client.get("/api/models", headers=READER | {"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.data == b""


@pytest.mark.parametrize("name", ["trades", "fills", "fees"])
def test_exports_are_csv(client: FlaskClient, bar: datetime, name: str) -> None:
    answer = client.get(f"/api/export/{name}.csv", headers=READER)
    assert answer.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert rows
    if name == "fees":
        assert sum(Decimal(row["fee"]) for row in rows) == 20
    if name == "trades":
        assert {row["status"] for row in rows} == {"closed"}


def test_an_export_longer_than_a_chunk_is_whole(client: FlaskClient, database: Database) -> None:
    database.execute(
        "INSERT INTO fills SELECT 'demo', 'BTC/USDT', n::text, 'x', true, 1, 1, 0.001, 'USDT', false, "
        "timestamptz '2026-01-01' + n * interval '1 s' FROM generate_series(1, 2500) n"
    )
    rows = list(csv.DictReader(io.StringIO(client.get("/api/export/fills.csv", headers=READER).text)))
    assert len({row["trade_id"] for row in rows}) == 2500


def test_formulas_do_not_reach_a_spreadsheet(client: FlaskClient, database: Database) -> None:
    database.execute(
        "INSERT INTO fills VALUES ('demo', 'BTC/USDT', '=1+1', 'x', true, 1, 1, -0.5, 'USDT', false, now())"
    )
    row = next(csv.DictReader(io.StringIO(client.get("/api/export/fills.csv", headers=READER).text)))
    assert row["trade_id"] == "'=1+1"
    assert row["fee"] == "-0.5"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "offset=-1", "limit=x", "symbol=BTC", "symbol='; DROP TABLE fills; --", "symbol=%00",
        "from=yesterday", "from=1800-01-01T00:00:00Z", "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "from=0001-01-01T00:00:00%2B14:00", "offset=99999999999999999999",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["orders", "regimes"])
def test_bad_queries_get_a_problem(client: FlaskClient, name: str, query: str) -> None:
    answer = client.get(f"/api/{name}?{query}", headers=READER)
    assert answer.status_code == 422, answer.text
    assert answer.mimetype == "application/problem+json"
    body = answer.get_json()
    assert body["status"] == 422
    assert body["errors"]


@pytest.mark.parametrize("job_id", ["nope", "%00", "a%0ab", "x" * 500, "..%2f..%2fetc"])
def test_an_unknown_job_is_not_found(client: FlaskClient, job_id: str) -> None:
    answer = client.get(f"/api/jobs/{job_id}", headers=READER)
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"


def test_another_accounts_rows_stay_unseen(client: FlaskClient, database: Database) -> None:
    seed_week(database, "another")
    for name in ("positions", "orders", "decisions"):
        assert get(client, f"/api/{name}")["items"] == []


def test_postgresql_down_is_said_and_nothing_crashes(client: FlaskClient, wiring, settings: Settings) -> None:
    from pydantic import SecretStr

    object.__setattr__(settings, "database_url", SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    assert "postgresql" in client.get("/api/ready").get_json()["failed"]
    status = get(client, "/api/system-status")
    assert status["available"] is False
    assert status["problems"][0]["what"] == "postgresql"
    page = client.get("/", headers=READER)
    assert page.status_code == 200
    assert "PostgreSQL does not answer" in page.text


def test_the_document_describes_every_route(client: FlaskClient, app) -> None:
    document = client.get("/api/openapi.json").get_json()
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    served = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/") and rule.rule != "/api/openapi.json"
    }
    assert described == served
