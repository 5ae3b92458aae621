"""A stack that is up, as a command of another shell finds it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.trading_rig import Rig
from tradewind import stack
from tradewind.core.timeframes import from_ms, last_closed_open_ms, to_ms
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import open_day, watch_risk_once
from tradewind.jobs.trading import place_brackets
from tradewind.settings import Settings, load_settings
from tradewind.stack import databases
from tradewind.stack.processes import free_ports
from tradewind.wiring import Wiring


@pytest.fixture(scope="module")
def up(server_dir: Path, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """PostgreSQL and the paper exchange of a stack in mode paper, and a demo's database on the same server."""
    home = server_dir / request.module.__name__.rpartition(".")[2]
    given = {"home_dir": home, "market": "synthetic", **free_ports()}
    settings = stack.with_secrets(mode="paper", account_id="main", **given)
    with stack.running_stack(settings, parts={"postgres", "exchange"}) as running:
        databases.ensure(load_settings(mode="demo", **given), running.postgres())
        yield settings


def enter(wiring: Wiring) -> str:
    """Open a position as a cycle would; returns its symbol."""
    manage_positions(wiring)
    open_day(wiring)
    watch_risk_once(wiring)
    bar = from_ms(last_closed_open_ms(to_ms(wiring.clock.now()), "15m"))
    # The market goes by the wall's clock here, and must not end the position by itself.
    far = Decimal("0.3")
    intent = Rig.decide(wiring, bar=bar, stop_frac=far, target_frac=far)  # type: ignore[arg-type]
    assert place_brackets(wiring, intent.intent_id)["outcome"] == "filled"
    return intent.symbol
