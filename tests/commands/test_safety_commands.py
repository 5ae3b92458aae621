"""The stop from the command line: it needs PostgreSQL and the exchange, and nothing of Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import tradewind.commands.safety as safety_commands
from tests.jobs.conftest import make_rig, paper_server
from tests.support.trading_rig import Rig
from tradewind.cli import prepare
from tradewind.core.types import TradingMode
from tradewind.errors import BadInput, StopError, TradingHalted
from tradewind.jobs.trading import place_brackets

__all__ = ["make_rig", "paper_server"]


@pytest.fixture
def rig(make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> Rig:
    made = make_rig()
    made.settings = SimpleNamespace(is_paper_exchange=True)  # type: ignore[attr-defined]

    @contextmanager
    def ports(**_how: Any) -> Iterator[Rig]:
        yield made

    monkeypatch.setattr(safety_commands, "acting_ports", ports)
    made.make_ready()
    return made


def run(*arguments: str) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(prepare)
    safety_commands.register(app)
    return CliRunner().invoke(app, list(arguments))


def enter(rig: Rig) -> None:
    intent = rig.decide(notional=Decimal(1000))
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"


def test_halt_and_resume(rig: Rig) -> None:
    result = run("halt", "exchange maintenance", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["mode"] == "reduce_only"
    assert rig.trading_store.latch().reason == "exchange maintenance"
    assert run("resume", "--reason", "it is over").exit_code == 0
    assert rig.trading_store.latch().mode is TradingMode.ACTIVE
    assert isinstance(run("halt", " ").exception, BadInput)


def test_flatten_then_resume(rig: Rig) -> None:
    enter(rig)
    result = run("flatten")
    assert result.exit_code == 0
    assert "Flat" in result.output
    assert rig.exchange_orders() == []
    assert run("resume").exit_code == 0
    actions = [row["action"] for row in rig.database.rows("SELECT action FROM audit ORDER BY audit_id")]
    assert actions == ["flatten", "flatten", "resume"]


def test_resume_is_refused_while_something_is_held(rig: Rig) -> None:
    enter(rig)
    rig.trading_store.set_latch(TradingMode.HALTED, "breaker", rig.wall.now(), actor="watch")
    assert isinstance(run("resume").exception, TradingHalted)


def test_drill_trips_the_breaker_on_paper_and_nowhere_else(rig: Rig) -> None:
    enter(rig)
    result = run("drill", "breaker", "--json")
    assert result.exit_code == 0
    outcome = json.loads(result.stdout)
    assert outcome["flat"]
    assert outcome["positions_left"] == ["BTC/USDT"]
    assert rig.trading_store.latch().mode is TradingMode.HALTED
    rig.settings = SimpleNamespace(is_paper_exchange=False)  # type: ignore[attr-defined]
    assert isinstance(run("drill", "breaker").exception, BadInput)


def test_what_cannot_be_sold_is_written_off(rig: Rig) -> None:
    enter(rig)
    (position,) = rig.trading_store.live_positions()
    assert isinstance(run("write-off", position.position_id, "--reason", "tired").exception, StopError)
    assert isinstance(
        run("write-off", position.position_id, "--reason", "gone", "--settled-at", "much").exception, BadInput
    )
    rig.admin.delist("BTC/USDT")
    result = run("write-off", position.position_id, "--reason", "delisted on 5 March")
    assert result.exit_code == 0, result.output
    assert "written off" in result.output
    assert json.loads(run("write-off", position.position_id, "--reason", "again", "--json").stdout)["clean"]
    assert run("flatten").exit_code == 0, "nothing is left that could not be sold"
    (row,) = rig.trading_store.write_offs()
    assert row.reason == "delisted on 5 March"
