"""The page as HTML: what it says, what it never does."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.support.outside import Outside
from tests.support.status_seed import FILTERS, seed_week
from tests.trading_api.conftest import READER
from tradewind import wiring as wiring_module
from tradewind.adapters.alerts import OutboxAlerts
from tradewind.adapters.database import Database
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.settings import Settings
from trading_api import views


def page(client: FlaskClient, path: str = "/") -> str:
    answer = client.get(path, headers=READER)
    assert answer.status_code == 200
    return answer.text


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_an_empty_deployment_has_a_page_that_says_so(client: FlaskClient) -> None:
    said = text_of(page(client))
    assert "No equity has been measured yet" in said
    assert "No model has been trained" in said
    assert "May it trade? No" in said
    assert "exchange and ledger were never compared" in said


def test_paper_money_and_the_synthetic_market_are_unmistakable(client: FlaskClient) -> None:
    assert "PAPER MONEY · SYNTHETIC MARKET" in page(client)


def test_live_money_is_unmistakable(client: FlaskClient, settings: Settings) -> None:
    object.__setattr__(settings, "mode", "live")
    object.__setattr__(settings, "market", "exchange")
    html = page(client)
    assert "Real money" in html
    assert "PAPER" not in html


def test_a_chosen_bar_shows_its_own_decisions_and_orders(
    client: FlaskClient, database: Database, settings: Settings
) -> None:
    newest = seed_week(database, settings.account_id)
    row = database.row("SELECT bar FROM positions p JOIN orders o USING (position_id) ORDER BY bar LIMIT 1")
    assert row is not None
    bar = row["bar"]
    html = page(client, f"/?bar={views.iso(bar)}")
    assert f"bar of {views.moment(bar)}" in text_of(html)
    assert f"of the bar of {views.moment(bar)}" in text_of(html.partition('id="orders"')[2])
    for path in ("/", "/?bar=nonsense", "/?bar=2026-01-01", "/?bar=9999-01-01T00:00:00Z", "/?bar=%00<script>"):
        assert f"Last cycle bar of {views.moment(newest)}" in text_of(page(client, path)), path


def test_regimes_show_what_follows_what(client: FlaskClient, database: Database, settings: Settings) -> None:
    seed_week(database, settings.account_id)
    matrix = page(client).partition('class="matrix"')[2].partition("</table>")[0]
    shares = [float(share) for share in re.findall(r">([0-9.]+)\u202f%</td>", matrix)]
    assert len(re.findall('scope="row"', matrix)) >= 5
    assert max(shares) > 90, "regimes last: the next bar is mostly the same"


def test_dags_and_their_failures_are_named(client: FlaskClient, around: Outside) -> None:
    around.runs["watch_risk", "x"] = {
        "dag_id": "watch_risk", "dag_run_id": "x", "state": "failed", "start_date": "2026-03-01T12:00:00Z",
        "end_date": None,
    }  # fmt: skip
    status = client.get("/api/system-status", headers=READER).get_json()
    (watch,) = [dag for dag in status["dags"] if dag["dag_id"] == "watch_risk"]
    assert (watch["last_state"], watch["failed_24h"], watch["paused"]) == ("failed", 1, False)
    assert {"severity": "critical", "what": "DAG", "detail": "the last run of watch_risk failed"} in status["problems"]


def test_a_mistake_in_the_strategys_file_is_a_reason_not_to_trade(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strategy.toml").write_text("risk_frac = 5\n")
    monkeypatch.setattr(wiring_module, "STRATEGY_FILE", tmp_path / "strategy.toml")
    reasons = client.get("/api/system-status", headers=READER).get_json()["trading"]["reasons"]
    assert [reason for reason in reasons if "line 1: risk_frac = 5 lies outside (0, 0.05]" in reason]


def test_what_is_over_is_no_problem_any_more(client: FlaskClient, database: Database) -> None:
    insert = (
        "INSERT INTO alerts (account, severity, key, title, body, last_seen_at) "
        "VALUES ('demo', %s, %s, %s, '', now() - %s)"
    )
    database.execute(insert, ("warning", "stale-data", "No new bars", timedelta(minutes=9)))
    problems = client.get("/api/system-status", headers=READER).get_json()["problems"]
    assert "No new bars" in [problem["detail"] for problem in problems]
    database.execute(insert, ("info", "stale-data:over", "Bars arrive again", timedelta(minutes=1)))
    problems = client.get("/api/system-status", headers=READER).get_json()["problems"]
    assert "No new bars" not in [problem["detail"] for problem in problems]


def test_the_week_is_on_the_page(client: FlaskClient, database: Database, settings: Settings) -> None:
    seed_week(database, settings.account_id)
    html = page(client)
    said = text_of(html)
    assert "May it trade? Yes" in said
    assert "naked position SOL/USDT has no resting stop" in said
    for name in FILTERS:
        assert f"<b>{views.words(name)}</b>" in html
    assert "2026w09-a1b2c3" in said
    assert "Daily summary" in said
    assert '<progress max="1" value="0.7">' in html


def test_an_articles_text_is_text_and_its_link_an_address_or_nothing(
    client: FlaskClient, database: Database, settings: Settings
) -> None:
    seed_week(database, settings.account_id)
    html = page(client)
    assert "&lt;script&gt;alert(&#39;an article is text&#39;)&lt;/script&gt;" in html
    assert "<script>alert" not in html
    assert "javascript:" not in html


def test_hostile_words_in_the_ledger_are_text_too(client: FlaskClient, database: Database) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    database.execute("SELECT tighten_latch('demo', 'reduce_only', %s, 'control', now())", (hostile,))
    database.execute(
        "INSERT INTO alerts (account, severity, key, title, body) VALUES ('demo', 'critical', 'k', %s, %s)",
        (hostile, hostile),
    )
    database.execute(
        "INSERT INTO audit (actor, action, outcome, detail, source) "
        "VALUES (%s, %s, 'done', jsonb_build_object('account', 'demo'), %s)",
        (hostile,) * 3,
    )
    html = page(client)
    assert "<img src=x" not in html
    assert html.count("&lt;img src=x") >= 5


def test_the_page_shows_the_alerts_and_the_audit_of_its_own_account_alone(
    client: FlaskClient, database: Database, settings: Settings
) -> None:
    """A demo's database holds an account for each of its runs."""
    for account in (settings.account_id, "demo-of-yesterday"):
        OutboxAlerts(database, account).raise_alert("critical", "breaker", f"An alarm of {account}", "It fell.")
        PgTradingStore(database, account, "v").audit(f"person-of-{account}", "halt", "halted", {}, source="command")
    said = text_of(page(client))
    assert f"An alarm of {settings.account_id}" in said
    assert f"person-of-{settings.account_id}" in said
    assert "demo-of-yesterday" not in said
    status = client.get("/api/system-status", headers=READER).get_json()
    assert "demo-of-yesterday" not in json.dumps(status)


def test_what_the_app_itself_writes_is_of_its_account(client: FlaskClient, database: Database) -> None:
    client.get("/api/system-status", headers={"Authorization": "Bearer wrong"})
    row = database.row("SELECT detail FROM audit ORDER BY audit_id DESC LIMIT 1")
    assert row is not None
    assert row["detail"]["account"] == "demo"


def test_rows_of_before_accounts_were_written_are_of_the_stamped_account(
    client: FlaskClient, database: Database
) -> None:
    insert = "INSERT INTO audit (actor, action, outcome, detail, source) VALUES ('a former', 'halt', 'done', '{}', 'x')"
    database.execute(insert)
    assert "a former" not in text_of(page(client))
    database.execute("INSERT INTO deployment (identity) VALUES (jsonb_build_object('account', 'demo'))")
    assert "a former" in text_of(page(client))


def test_a_halt_by_hand_offers_to_resume(client: FlaskClient, database: Database) -> None:
    database.execute("SELECT tighten_latch('demo', 'reduce_only', 'lunch', 'control', now())")
    html = page(client)
    assert re.search(r'data-action="halt" disabled', html)
    assert re.search(r'data-action="resume" >', html)
    assert "halted by hand: lunch" in html


def test_the_page_is_made_of_this_hosts_files(client: FlaskClient) -> None:
    html = page(client)
    for address in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert address.startswith("/"), address
    for address in re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', html):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]


def test_files_travel_compressed(client: FlaskClient) -> None:
    plain = client.get("/static/plotly.js")
    packed = client.get("/static/plotly.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.data) < len(plain.data) / 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [(Decimal("1234567.891"), "1\u2009234\u2009567.89"), (Decimal("-5"), "−5.00"), (None, "–"), (Decimal(0), "0.00")],
)
def test_amounts_read_well(value: Decimal | None, expected: str) -> None:
    assert views.quote(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(61_500.123, "61\u2009500.12"), (148.2, "148.200"), (2.5, "2.5000"), (0.58, "0.580000")],
)
def test_prices_keep_their_digits(value: float, expected: str) -> None:
    assert views.price(value) == expected


def test_spans_and_ages() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert views.span(59) == "59 s"
    assert views.span(3600 * 5) == "5 h"
    assert views.ago(now - timedelta(days=3), now) == "3 d ago"
    assert views.ago(None, now) == "never"
