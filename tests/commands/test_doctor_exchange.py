"""What each exchange gives an entry, and what the doctor finds wrong with one."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import tradewind.wiring
from tests.jobs.conftest import make_rig, paper_server
from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_support import support_of
from tradewind.commands import doctor, doctor_exchange
from tradewind.core.ports import KeyRights
from tradewind.core.types import BracketSupport
from tradewind.jobs.permission import permission_now
from tradewind.jobs.positions import manage_positions

__all__ = ["make_rig", "paper_server", "rig"]
from tests.jobs.conftest import rig


def run(*arguments: str) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False)
    doctor.register(app)
    doctor_exchange.register(app)
    return CliRunner().invoke(app, ["doctor", "exchange", *arguments])


@pytest.mark.parametrize(
    ("exchange", "bracket"),
    [
        ("binance", BracketSupport.OPOCO),
        ("bybit", BracketSupport.ATTACHED),
        ("okx", BracketSupport.ATTACHED),
        ("bitget", BracketSupport.EMULATED),
        ("kraken", BracketSupport.EMULATED),
    ],
)
def test_brackets_by_ccxts_own_table(exchange: str, bracket: BracketSupport) -> None:
    assert support_of(exchange).bracket is bracket


def test_offline_asks_nobody() -> None:
    result = run("--offline", "--json")
    assert result.exit_code == 0
    told = {row["exchange"]: row for row in json.loads(result.output)["exchanges"]}
    assert {name for name, row in told.items() if row["traded"]} == {"binance", "bybit", "okx", "bitget"}
    assert "watched" in told["bybit"]["words"]
    assert "entry first" in told["bitget"]["words"]
    assert "OCO" in told["okx"]["words"]
    assert [row["exchange"] for row in json.loads(result.output)["exchanges"]][:2] == ["binance", "bybit"]


def test_your_own_exchange(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.settings = SimpleNamespace(  # type: ignore[attr-defined]
        exchange="binance", market_type="spot", mode="demo", exchange_url=rig.server.url
    )
    monkeypatch.setattr(tradewind.wiring, "Wiring", lambda _settings: rig)
    started = time.monotonic()
    result = run("--json")
    assert result.exit_code == 0, result.output
    yours = json.loads(result.stdout)["yours"]
    assert abs(yours["clock_offset_ms"]) <= (time.monotonic() - started) * 1000 + 1
    assert yours["key"]["can_withdraw"] is False
    assert yours["symbols"]["BTC/USDT"]["bracket"] == "opoco"
    monkeypatch.setattr(rig.exchange, "key_rights", lambda: KeyRights(True, True, False))
    monkeypatch.setattr(rig.market_data, "clock_offset_ms", lambda: -7000.0)
    result = run()
    assert result.exit_code == 1
    assert "may withdraw" in result.output
    assert "7000 ms off" in result.output


def test_a_key_that_may_withdraw_and_a_clock_that_is_off_block_entries(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.make_ready()
    assert permission_now(rig).allowed
    monkeypatch.setattr(rig.exchange, "key_rights", lambda: KeyRights(True, True, False))
    monkeypatch.setattr(rig.market_data, "clock_offset_ms", lambda: 600.0)
    manage_positions(rig)
    reasons = permission_now(rig).reasons
    assert [reason for reason in reasons if "withdraw" in reason]
    assert not [reason for reason in reasons if "clock" in reason]  # over 500 ms it is an alert
    keys = {row["key"] for row in rig.database.rows("SELECT key FROM alerts")}
    assert {"key-may-withdraw", "clock-offset"} <= keys
    monkeypatch.setattr(rig.market_data, "clock_offset_ms", lambda: -5200.0)
    manage_positions(rig)
    assert [reason for reason in permission_now(rig).reasons if "clock" in reason]
