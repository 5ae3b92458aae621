"""`./tradewind history` against a paper exchange: loads, carries on, watches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.migrations import migrate
from tradewind.cli import _register, app
from tradewind.core.timeframes import to_ms
from tradewind.errors import BadInput, MissingData
from tradewind.settings import load_settings

NOON = datetime(2024, 3, 5, 12, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not app.registered_commands:
        _register()


@pytest.fixture(scope="module")
def server() -> Iterator[PaperServerProcess]:
    with PaperServerProcess() as server:
        server.admin.set_clock(to_ms(NOON))
        yield server


@pytest.fixture(autouse=True)
def _deployment(
    server: PaperServerProcess, postgres_url: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEWIND_DATABASE_URL", postgres_url)
    monkeypatch.setenv("TRADEWIND_CACHE_URL", valkey_url)
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("TRADEWIND_EXCHANGE_URL", server.url)
    monkeypatch.setenv("TRADEWIND_EXCHANGE_ADMIN_TOKEN", server.token)
    monkeypatch.setenv("TRADEWIND_SYMBOLS", "BTC/USDT,ETH/USDT")
    migrate(postgres_url, load_settings().identity)


def run(*arguments: str) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["history", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_a_load_shows_its_bars_and_is_found_again() -> None:
    start = f"{NOON - timedelta(days=20):%Y-%m-%dT%H:%M}"
    loaded = json.loads(run("mine", "--from", start, "--json")[0])
    assert (loaded["job_id"], loaded["state"], loaded["percent"]) == ("mine", "done", 100.0)
    assert loaded["rows_new"] == 2 * 20 * (96 + 24)
    assert set(loaded["series"]) == {"BTC/USDT 15m", "BTC/USDT 1h", "ETH/USDT 15m", "ETH/USDT 1h"}
    watched = json.loads(run("--json")[0])
    assert (watched["job_id"], watched["rows_new"]) == ("mine", loaded["rows_new"])
    words, bars = run("--from", start, "--symbol", "ETH/USDT", "--timeframe", "1h")
    assert "done, 480 bars, 0 of them new" in words
    assert "ETH/USDT 1h" in bars


def test_what_cannot_be_watched_or_read_is_said() -> None:
    with pytest.raises(MissingData, match="--from"):
        run()
    with pytest.raises(BadInput, match="no job none"):
        run("none")
    with pytest.raises(BadInput, match="2024-01-31"):
        run("--from", "yesterday")
    with pytest.raises(BadInput, match="NONE/USDT 1h"):
        run("bad", "--from", "2024-03-01", "--symbol", "NONE/USDT", "--timeframe", "1h")
    with pytest.raises(BadInput, match="NONE/USDT 1h"):
        run("bad")
