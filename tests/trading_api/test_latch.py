"""A resume that the page asked for, carried out by its run's job against a paper exchange: each with its own role."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from flask.testing import FlaskClient
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from tests.support.outside import outside
from tests.support.paper_server import PaperServerProcess
from tests.trading_api.conftest import CONTROL, CONTROLLER, READ, SESSION, login
from tradewind.adapters.control_requests import STORE_KEY, padded_keys, sign
from tradewind.adapters.database import Database
from tradewind.core.types import TradingMode
from tradewind.errors import StopError, TradingHalted
from tradewind.jobs.safety import resume_requested
from tradewind.settings import Settings
from tradewind.wiring import Wiring
from trading_api import control, create_app


@pytest.fixture
def writer_url(postgres_url: str) -> str:
    return login(postgres_url, "tradewind_writer")


@pytest.fixture
def wiring(postgres_url: str, writer_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Wiring]:
    """A task's, whose database knows the control token's key from the last start."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute(STORE_KEY, padded_keys(CONTROL))
    with outside() as around, PaperServerProcess() as paper:
        around.airflow_down = True
        account = paper.create_account(USDT="10000")
        settings = Settings(
            home_dir=tmp_path,
            symbols=("BTC/USDT", "ETH/USDT"),
            database_url=SecretStr(writer_url),
            cache_url=SecretStr(valkey_url),
            exchange_url=paper.url,
            airflow_url=around.airflow_url,
            exchange_admin_token=SecretStr(paper.token),
            paper_api_key=SecretStr(account.api_key),
            paper_api_secret=SecretStr(account.api_secret),
            api_read_token=SecretStr(READ),
            api_control_token=SecretStr(CONTROL),
            api_session_key=SecretStr(SESSION),
        )
        wiring = Wiring(settings)
        wiring.__dict__["database"] = Database(writer_url)
        yield wiring
        wiring.close()


@pytest.fixture
def client(wiring: Wiring, status_url: str) -> Iterator[FlaskClient]:
    own = Wiring(wiring.settings)
    for name in ("database", "urgent_database"):
        own.__dict__[name] = Database(status_url)
    yield create_app(own.settings, own).test_client()
    own.close()


def asked_for(client: FlaskClient, wiring: Wiring) -> str:
    assert client.post("/api/resume", json={}, headers=CONTROLLER).status_code == 503, "Airflow is down"
    row = wiring.database.row("SELECT detail ->> 'request' AS number FROM audit WHERE outcome = 'requested'")
    assert row is not None
    return str(row["number"])


def test_a_request_opens_the_latch_once(client: FlaskClient, wiring: Wiring) -> None:
    assert client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER).get_json()["mode"] == "reduce_only"
    request = asked_for(client, wiring)
    assert resume_requested(wiring, request)["mode"] == "active"
    client.post("/api/halt", json={"reason": "again"}, headers=CONTROLLER)
    with pytest.raises(TradingHalted, match="closed anew"):
        resume_requested(wiring, request)
    assert wiring.trading_store.latch().mode.value == "reduce_only"
    actions = wiring.database.rows("SELECT action, outcome FROM audit WHERE outcome <> 'failed' ORDER BY audit_id")
    assert [(row["action"], row["outcome"]) for row in actions] == [
        ("halt", "reduce_only"), ("resume", "requested"), ("resume", "opened"), ("halt", "reduce_only"),
        ("resume", "refused"),
    ]  # fmt: skip


@pytest.mark.parametrize("request_id", ["", "made-up"])
def test_a_run_started_by_hand_opens_nothing(client: FlaskClient, wiring: Wiring, request_id: str) -> None:
    client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
    with pytest.raises(StopError, match="press Resume on the status page"):
        resume_requested(wiring, request_id)
    assert wiring.trading_store.latch().mode.value == "reduce_only"


@pytest.mark.parametrize("role", ["status", "writer"])
def test_a_row_made_without_the_token_opens_nothing(
    client: FlaskClient, wiring: Wiring, status_url: str, writer_url: str, role: str
) -> None:
    """A process that may insert audit rows, and start the run, has all but the signature."""
    client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
    fields: dict[str, str | int] = {
        "action": "resume", "account": wiring.account, "request": "forged", "latch_sequence": 1, "actor": "control",
        "source": "api", "at": int(time.time()),
    }  # fmt: skip
    signed = sign("a token of one's own", **fields)
    detail = Jsonb({"request": "forged", "account": wiring.account, **signed})
    insert = "INSERT INTO audit (actor, action, outcome, detail) VALUES ('control', 'resume', 'requested', %s)"
    with psycopg.connect(status_url if role == "status" else writer_url) as connection:
        connection.execute(insert, (detail,))
    with pytest.raises(StopError, match="no resume was asked for"):
        resume_requested(wiring, "forged")
    assert wiring.trading_store.latch().mode.value == "reduce_only"


def test_a_breach_after_the_request_is_not_opened_by_it(client: FlaskClient, wiring: Wiring) -> None:
    client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
    request = asked_for(client, wiring)
    wiring.trading_store.set_latch(TradingMode.HALTED, "breach", wiring.wall.now(), actor="watch")
    with pytest.raises(TradingHalted, match="closed anew"):
        resume_requested(wiring, request)
    assert wiring.trading_store.latch().reason == "breach"


def test_an_old_request_opens_nothing(client: FlaskClient, wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
    old = control._SEEN.replace("clock_timestamp()", "clock_timestamp() - interval '11 minutes'")
    monkeypatch.setattr(control, "_SEEN", old)
    request = asked_for(client, wiring)
    with pytest.raises(StopError, match="no resume was asked for"):
        resume_requested(wiring, request)
