"""The app over a real PostgreSQL and a real Valkey, with an exchange and an Airflow on HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from pydantic import SecretStr

from tests.support.outside import Outside, outside
from tradewind.adapters.database import Database
from tradewind.settings import Settings
from tradewind.wiring import Wiring
from trading_api import create_app

READ, CONTROL, SESSION = "read-token-of-tests", "control-token-of-tests", "session-key-of-tests"
READER = {"Authorization": f"Bearer {READ}"}
CONTROLLER = READER | {"X-Tradewind-Control": CONTROL}


@pytest.fixture
def around() -> Iterator[Outside]:
    with outside() as made:
        yield made


def login(postgres_url: str, role: str) -> str:
    """The test's database through one of a deployment's roles."""
    password = f"{role}-password-of-tests"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{password}'")
    parts = urlsplit(postgres_url)
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@:{parts.port}"))


@pytest.fixture
def status_url(postgres_url: str) -> str:
    """The one that the app has in a deployment."""
    return login(postgres_url, "tradewind_status")


@pytest.fixture
def settings(status_url: str, valkey_url: str, around: Outside, tmp_path: Path) -> Settings:
    return Settings(
        home_dir=tmp_path,
        database_url=SecretStr(status_url),
        cache_url=SecretStr(valkey_url),
        exchange_url=around.exchange_url,
        airflow_url=around.airflow_url,
        api_read_token=SecretStr(READ),
        api_control_token=SecretStr(CONTROL),
        api_session_key=SecretStr(SESSION),
    )


@pytest.fixture
def wiring(settings: Settings) -> Iterator[Wiring]:
    """The real wiring over the test's own database, which has no deployment's stamp to verify."""
    wiring = Wiring(settings)
    for name in ("database", "urgent_database"):
        wiring.__dict__[name] = Database(settings.database_url.get_secret_value())
    yield wiring
    wiring.close()


@pytest.fixture
def app(settings: Settings, wiring: Wiring) -> APIFlask:
    app = create_app(settings, wiring)
    # Answers are kept for seconds; a test that stops a part must see it at once.
    app.extensions["tradewind"].checks.wait_s = 0.0
    return app


@pytest.fixture
def client(app: APIFlask) -> FlaskClient:
    return app.test_client()
