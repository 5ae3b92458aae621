"""A resume that the page asked for, carried out by its run's job against a paper exchange."""

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
from tradewind.errors import StopError
from tradewind.jobs.safety import resume_requested
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
    return create_app(wiring.settings, wiring).test_client()


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
    with pytest.raises(StopError, match="no resume was asked for"):
        resume_requested(wiring, request)
    assert wiring.trading_store.latch().mode.value == "reduce_only"
    actions = wiring.database.rows("SELECT action, outcome FROM audit WHERE outcome <> 'failed' ORDER BY audit_id")
    assert [(row["action"], row["outcome"]) for row in actions] == [
        ("halt", "reduce_only"), ("resume", "requested"), ("resume", "taken"), ("resume", "opened"),
        ("halt", "reduce_only"),
    ]  # fmt: skip


@pytest.mark.parametrize("request_id", ["", "made-up"])
def test_a_run_started_by_hand_opens_nothing(client: FlaskClient, wiring: Wiring, request_id: str) -> None:
    client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
    with pytest.raises(StopError, match="press Resume on the status page"):
        resume_requested(wiring, request_id)
    assert wiring.trading_store.latch().mode.value == "reduce_only"


def test_an_old_request_opens_nothing(client: FlaskClient, wiring: Wiring) -> None:
    client.post("/api/halt", json={"reason": "lunch"}, headers=CONTROLLER)
    request = asked_for(client, wiring)
    wiring.database.execute("UPDATE audit SET at = at - interval '11 minutes'")
    with pytest.raises(StopError, match="no resume was asked for"):
        resume_requested(wiring, request)
