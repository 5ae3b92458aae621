"""Halt, flatten and resume through the API against a paper exchange, with Airflow down all the while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from tests.support.outside import outside
from tests.support.paper_server import PaperServerProcess
from tests.trading_api.conftest import CONTROL, CONTROLLER, READ, SESSION
from tradewind.adapters.database import Database
from tradewind.settings import Settings
from tradewind.wiring import Wiring
from trading_api import create_app


@pytest.fixture
def wiring(postgres_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Wiring]:
    with outside() as around, PaperServerProcess() as paper:
        around.airflow_down = True
        account = paper.create_account(USDT="10000")
        settings = Settings(
            home_dir=tmp_path,
            symbols=("BTC/USDT", "ETH/USDT"),
            database_url=SecretStr(postgres_url),
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
        wiring.__dict__["database"] = Database(postgres_url)
        yield wiring
        wiring.close()


@pytest.fixture
def client(wiring: Wiring) -> FlaskClient:
    return create_app(wiring.settings, wiring, {"BACKGROUND_THREADS": False}).test_client()


def test_a_halt_is_lifted_by_resume(client: FlaskClient, wiring: Wiring) -> None:
    assert client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER).get_json()["mode"] == "reduce_only"
    answer = client.post("/api/resume", json={}, headers=CONTROLLER)
    assert answer.status_code == 200, answer.text
    assert answer.get_json()["mode"] == "active"
    actions = wiring.database.rows("SELECT action, outcome FROM audit ORDER BY audit_id")
    assert [(row["action"], row["outcome"]) for row in actions] == [("halt", "reduce_only"), ("resume", "opened")]


def test_flatten_does_the_work_itself_without_airflow(client: FlaskClient, wiring: Wiring) -> None:
    answer = client.post("/api/flatten", json={}, headers=CONTROLLER)
    assert answer.status_code == 200, answer.text
    body = answer.get_json()
    assert body["mode"] == "halted"
    assert body["detail"]["by"] == "status app"
    assert body["detail"]["flat"] is True
    flattened = wiring.database.row("SELECT verified_flat_at FROM flattenings")
    assert flattened is not None
    assert flattened["verified_flat_at"] is not None
    assert client.post("/api/resume", json={}, headers=CONTROLLER).get_json()["mode"] == "active"


def test_resume_with_the_exchange_gone_is_refused(client: FlaskClient, wiring: Wiring) -> None:
    client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
    object.__setattr__(wiring.settings, "exchange_url", "http://127.0.0.1:9")
    answer = client.post("/api/resume", json={}, headers=CONTROLLER)
    assert answer.status_code in (409, 503), answer.text
    assert answer.mimetype == "application/problem+json"
    assert wiring.trading_store.latch().mode.value == "reduce_only"
