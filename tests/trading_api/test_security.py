"""Who gets in and who does not; what a refusal gives away; what a browser may do with an answer."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from pydantic import SecretStr

from tests.trading_api.conftest import CONTROL, CONTROLLER, READ, READER, SESSION
from tradewind.adapters.database import Database
from tradewind.adapters.login_tickets import login_link, make_ticket
from tradewind.errors import BadSetting
from tradewind.settings import Settings
from tradewind.wiring import Wiring
from trading_api import create_app, page
from trading_api.security import Limiter

READ_PATHS = (
    "/api/system-status",
    "/api/positions",
    "/api/orders",
    "/api/equity",
    "/api/jobs/x",
    "/api/export/fills.csv",
)
CONTROL_PATHS = (
    "/api/halt", "/api/resume", "/api/flatten", "/api/train", "/api/trigger-trade-cycle",
    "/api/collect-historical-data",
)  # fmt: skip
BAD_AUTHORISATION = ("", "Bearer", "Bearer ", "Bearer wrong", f"Basic {READ}", f"Bearer {READ}x", "Bearer \xff\xfe")


@pytest.mark.parametrize("header", BAD_AUTHORISATION)
@pytest.mark.parametrize("path", READ_PATHS)
def test_reading_needs_the_token(client: FlaskClient, path: str, header: str) -> None:
    answer = client.get(path, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.get_json()["detail"] == "A valid token is needed."


def test_every_refusal_reads_the_same(client: FlaskClient) -> None:
    texts = set()
    for header in BAD_AUTHORISATION[:5]:
        body = client.get("/api/orders", headers={"Authorization": header, "X-Request-ID": "same"}).get_json()
        texts.add(str(body))
    assert len(texts) == 1


@pytest.mark.parametrize("path", CONTROL_PATHS)
def test_control_needs_the_control_token(client: FlaskClient, path: str) -> None:
    body = {"reason": "x"} if path == "/api/halt" else {}
    assert client.post(path, json=body).status_code == 401
    assert client.post(path, json=body, headers=READER).status_code == 403
    assert client.post(path, json=body, headers=READER | {"X-Tradewind-Control": READ}).status_code == 403
    assert client.post(path, json=body, headers={"X-Tradewind-Control": "wrong"}).status_code == 401


@pytest.mark.parametrize("path", CONTROL_PATHS)
def test_a_stranger_learns_nothing_about_the_body(client: FlaskClient, path: str) -> None:
    assert client.post(path, data="{", content_type="application/json").status_code == 401
    assert client.post(path, json={"unknown": 1}).status_code == 401


def test_refusals_are_audited_without_what_was_given(client: FlaskClient, database: Database) -> None:
    client.post("/api/halt", json={"reason": "x"}, headers=READER | {"X-Tradewind-Control": "guess-123"})
    row = database.row("SELECT actor, action, outcome, detail, request_id, source FROM audit")
    assert row is not None
    assert (row["actor"], row["action"], row["outcome"]) == ("unknown", "control", "refused")
    assert row["request_id"]
    assert "guess-123" not in str(row)
    assert database.rows("SELECT 1 FROM latches") == []


def test_guessing_is_slowed_down(settings: Settings, wiring: Wiring) -> None:
    app = create_app(settings, wiring, {"REFUSALS_PER_MINUTE": 5})
    client = app.test_client()
    statuses = [client.get("/api/orders", headers={"Authorization": f"Bearer {n}"}).status_code for n in range(8)]
    assert statuses == [401] * 5 + [429] * 3
    assert client.get("/api/orders", headers=READER).status_code == 200, "who has the token is not shut out"


def test_strangers_requests_are_limited_and_nobody_elses_by_them(settings: Settings, wiring: Wiring) -> None:
    client = create_app(settings, wiring, {"STRANGER_REQUESTS_PER_MINUTE": 3}).test_client()
    assert [client.get("/").status_code for _ in range(5)] == [303, 303, 303, 429, 429]
    assert client.get("/").headers["Retry-After"] == "60"
    assert client.get("/api/orders", headers=READER).status_code == 200
    assert client.get("/api/health").status_code == 200, "the supervisor would take a refusal for a hang"
    assert client.post("/login", data={"token": READ}).status_code == 303, "who signs in is a stranger until then"
    assert client.get("/").status_code == 200


def test_readers_are_limited_by_their_credential_and_the_control_token_never(
    settings: Settings, wiring: Wiring
) -> None:
    app = create_app(settings, wiring, {"READER_REQUESTS_PER_MINUTE": 2})
    one, other = app.test_client(), app.test_client()
    for client in (one, other):
        client.post("/login", data={"token": READ})
    assert [one.get("/api/orders").status_code for _ in range(3)] == [200, 200, 429]
    assert other.get("/api/orders").status_code == 200
    client = app.test_client()
    assert [client.get("/api/orders", headers=READER).status_code for _ in range(3)] == [200, 200, 429]
    halts = [client.post("/api/halt", json={"reason": "x"}, headers=CONTROLLER).status_code for _ in range(3)]
    assert halts == [200, 200, 200]


def test_the_limiter_forgets_after_a_minute() -> None:
    now = [0.0]
    limiter = Limiter(lambda: now[0])
    assert [limiter.allows("a", 2) for _ in range(3)] == [True, True, False]
    assert limiter.allows("b", 2)
    now[0] = 61.0
    assert limiter.allows("a", 2)


def test_an_app_without_tokens_does_not_start(settings: Settings, wiring: Wiring) -> None:
    object.__setattr__(settings, "api_read_token", SecretStr(""))
    with pytest.raises(BadSetting, match="TRADEWIND_API_READ_TOKEN"):
        create_app(settings, wiring)


# --------------------------------------------------------------------------------------------------------------- login
def test_strangers_are_sent_to_the_login(client: FlaskClient) -> None:
    for path in ("/", "/panels"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/login")


def test_login_exchanges_the_token_for_a_strict_cookie(client: FlaskClient) -> None:
    assert client.post("/login", data={"token": "wrong"}).status_code == 401
    assert client.post("/login", data={"token": CONTROL}).status_code == 401
    answer = client.post("/login", data={"token": READ})
    assert answer.status_code == 303
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert READ not in cookie
    assert client.get("/").status_code == 200
    assert client.get("/api/orders").status_code == 200


@pytest.mark.parametrize("cookie", ["x", "a.b.c", "\xff", ""])
def test_forged_cookies_open_nothing(client: FlaskClient, cookie: str) -> None:
    client.set_cookie("tradewind_session", cookie)
    assert client.get("/api/orders").status_code == 401


def test_a_new_read_token_ends_old_sessions(app: APIFlask, settings: Settings, wiring: Wiring) -> None:
    client = app.test_client()
    client.post("/login", data={"token": READ})
    cookie = client.get_cookie("tradewind_session")
    assert cookie is not None
    object.__setattr__(settings, "api_read_token", SecretStr("another"))
    other = create_app(settings, wiring).test_client()
    other.set_cookie("tradewind_session", cookie.value)
    assert other.get("/api/orders").status_code == 401


def test_a_login_link_works_once(client: FlaskClient, database: Database) -> None:
    path = login_link("http://localhost", SESSION).removeprefix("http://localhost")
    assert client.get(path).status_code == 200
    assert client.get("/api/orders").status_code == 200
    client.delete_cookie("tradewind_session")
    assert client.get(path).status_code == 401
    assert client.get("/api/orders").status_code == 401


def test_of_two_who_use_a_link_at_once_one_signs_in(app: APIFlask, monkeypatch: pytest.MonkeyPatch) -> None:
    path = login_link("http://localhost", SESSION).removeprefix("http://localhost")
    read, both = page.read_ticket, Barrier(2)

    def read_by_both(session_key: str, ticket: str) -> str | None:
        both.wait(60)
        return read(session_key, ticket)

    monkeypatch.setattr(page, "read_ticket", read_by_both)
    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(lambda _: app.test_client().get(path).status_code, range(2)))
    assert sorted(statuses) == [200, 401]


def test_forged_and_old_links_open_nothing(client: FlaskClient) -> None:
    for ticket in ("x", make_ticket("another-key"), make_ticket(SESSION)[:-2] + "AA"):
        assert client.get(f"/login?ticket={ticket}").status_code == 401
        assert client.get("/api/orders").status_code == 401


# ---------------------------------------------------------------------------------------------------------------- CSRF
def _csrf(client: FlaskClient) -> str:
    found = re.search(r'name="csrf" content="([0-9a-f]+)"', client.get("/").text)
    assert found
    return found[1]


def test_a_cookie_session_needs_the_csrf_token_as_well(client: FlaskClient) -> None:
    client.post("/login", data={"token": READ})
    control = {"X-Tradewind-Control": CONTROL}
    assert client.post("/api/halt", json={"reason": "x"}, headers=control).status_code == 403
    assert (
        client.post("/api/halt", json={"reason": "x"}, headers=control | {"X-CSRF-Token": "0" * 64}).status_code == 403
    )
    token = _csrf(client)
    assert client.post("/api/halt", json={"reason": "x"}, headers=control | {"X-CSRF-Token": token}).status_code == 200


def test_signing_out_takes_the_cookie_back(client: FlaskClient, database: Database) -> None:
    client.post("/login", data={"token": READ})
    csrf = re.search(r'name="csrf" content="([^"]+)"', client.get("/").text)
    assert csrf is not None
    assert client.post("/logout", data={"csrf": "a form of another site"}).status_code == 403
    assert client.get("/").status_code == 200
    assert client.post("/logout", data={"csrf": csrf[1]}).location == "/login"
    assert client.get("/").location == "/login"
    rows = database.rows("SELECT action, outcome FROM audit WHERE action = 'logout' ORDER BY audit_id")
    assert [row["outcome"] for row in rows] == ["refused", "done"]


def test_another_sessions_csrf_token_is_none(app: APIFlask) -> None:
    mine, other = app.test_client(), app.test_client()
    for client in (mine, other):
        client.post("/login", data={"token": READ})
    headers = {"X-Tradewind-Control": CONTROL, "X-CSRF-Token": _csrf(other)}
    assert mine.post("/api/halt", json={"reason": "x"}, headers=headers).status_code == 403


def test_a_form_post_of_another_site_halts_nothing(client: FlaskClient, database: Database) -> None:
    client.post("/login", data={"token": READ})
    assert client.post("/api/halt", data={"reason": "x"}).status_code == 403
    assert database.rows("SELECT 1 FROM latches") == []


# ------------------------------------------------------------------------------------------------------------- headers
def test_the_browser_is_kept_in_its_place(client: FlaskClient, settings: Settings) -> None:
    for path in ("/login", "/api/health", "/nope"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert settings.airflow_url in policy.partition("frame-ancestors ")[2]
        assert "*" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_request_ids_are_kept_when_harmless(client: FlaskClient) -> None:
    assert client.get("/api/health", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    for hostile in ("a b", "x" * 65, "<script>"):
        assert client.get("/api/health", headers={"X-Request-ID": hostile}).headers["X-Request-ID"] != hostile


@pytest.mark.parametrize("name", ["../__init__.py", "..%2f__init__.py", "page.py", ".", "%00", "plotly.css"])
def test_static_files_are_those_of_the_page_alone(client: FlaskClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_templates_hold_no_inline_script_and_no_foreign_address() -> None:
    root = Path(__file__).resolve().parents[2] / "trading_api"
    for path in (root / "templates").glob("*.html"):
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path.name
        assert not re.search(r"\son\w+=", text), path.name
        assert "//" not in re.sub(r"https?://(www\.w3\.org|127)", "", text), path.name
        assert "| safe" not in text, path.name


def test_too_large_a_body_is_refused(client: FlaskClient) -> None:
    answer = client.post("/api/halt", json={"reason": "x" * 100_000}, headers=CONTROLLER)
    assert answer.status_code in (413, 422)
