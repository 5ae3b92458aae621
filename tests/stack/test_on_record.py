"""`status` tells what a stopped deployment has on record, and starts nothing that was never made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer

from tradewind import stack
from tradewind.commands.stack import status
from tradewind.settings import Settings
from tradewind.stack import databases, services
from tradewind.stack.backup_file import server_of
from tradewind.stack.on_record import on_record
from tradewind.stack.postgres import discard
from tradewind.stack.report import print_report, stack_report
from tradewind.stack.state import home_lock


@pytest.fixture
def home(server_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home of its own, and the settings that a command run in it reads."""
    home = server_dir / tmp_path.name
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(home))
    monkeypatch.setenv("TRADEWIND_ACCOUNT_ID", "rig")
    yield home
    discard(home / "postgres")


@contextmanager
def stopped_deployment() -> Iterator[Settings]:
    """Made, with one open position and a latch, an account that has left its own, and its server stopped again."""
    settings = stack.with_secrets()
    with server_of(settings) as server:
        databases.make(settings, server)
        databases.ensure(settings, server)
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            connection.execute("SELECT tighten_latch('rig', 'reduce_only', 'maintenance', 'me', now())")
            connection.cursor().executemany(
                "INSERT INTO positions (position_id, account, strategy_version, symbol, side, family, status, bar, "
                "quantity, entry_quantity, entry_price, initial_stop_price, stop_price, target_price, atr_quote, "
                "realised_quote, fees_quote) VALUES (%s, %s, 'v', 'BTC/USDT', 'long', 'trending', %s, now(), "
                "%s, 0.01, 60000, 59000, 59000, 62000, 400, 0, 1)",
                [("p", "rig", "open", "0.0100"), ("q", "flat", "closed", "0")],
            )
    yield settings


def test_a_stopped_deployment_tells_its_ledger(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with stopped_deployment() as settings:
        report = stack_report(settings)
        assert services.embedded_postgres(settings).mark is None, "what was started to look is stopped again"
    ledger = report["ledger"]
    assert (report["running"], report["healthy"]) == (False, False)
    assert (ledger["latch"]["mode"], ledger["latch"]["reason"]) == ("reduce_only", "maintenance")
    assert [(held["symbol"], held["status"]) for held in ledger["positions"]] == [("BTC/USDT", "open")]
    assert (ledger["rows"]["positions"], ledger["rows"]["orders"], ledger["last_decided_bar"]) == (2, 0, None)
    assert ledger["other_accounts"] == [{"account": "flat", "latch": "active", "positions": 0}]
    print_report(report)
    said = capsys.readouterr().out
    assert "account    rig" in said
    assert "latch      reduce_only: maintenance" in said
    assert "BTC/USDT long 0.01, stop 59000" in said


def test_the_command_tells_it_as_json_and_that_nothing_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with stopped_deployment(), pytest.raises(typer.Exit) as ended:
        status(as_json=True)
    assert ended.value.exit_code == 1
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["running"] is False
    assert told["ledger"]["latch"]["mode"] == "reduce_only"


def test_the_wrong_account_is_told_of_the_others(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped_deployment():
        monkeypatch.setenv("TRADEWIND_ACCOUNT_ID", "mistaken")
        report = stack_report(stack.with_secrets())
    ledger = report["ledger"]
    assert (ledger["account"], ledger["latch"]["mode"], ledger["positions"]) == ("mistaken", "active", [])
    assert ledger["other_accounts"] == [
        {"account": "flat", "latch": "active", "positions": 0},
        {"account": "rig", "latch": "reduce_only", "positions": 1},
    ]
    print_report(report)
    assert "elsewhere  rig: latch reduce_only, positions 1 (TRADEWIND_ACCOUNT_ID=rig" in capsys.readouterr().out


def test_nothing_is_made_to_look_at_it(home: Path) -> None:
    assert stack_report(stack.with_secrets())["ledger"] is None
    assert not (home / "postgres").exists()


def test_a_server_that_is_down_while_the_stack_is_up_is_left_to_its_supervisor(home: Path) -> None:
    with stopped_deployment() as settings, home_lock(home):
        told = on_record(settings)
        assert services.embedded_postgres(settings).mark is None
    assert told is not None
    assert "is run by process" in told["error"]
