"""One position's trouble stays its own: markets without rules, price or answer, defects, rules that were changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.support.trading_rig import Rig
from tradewind.core.types import Position, PositionStatus
from tradewind.jobs.tending import follow_bar, tend_all
from tradewind.jobs.trading import place_brackets

OVER = (PositionStatus.CLOSED, PositionStatus.DUST)
BTC, ETH = "BTC/USDT", "ETH/USDT"


def enter(rig: Rig, symbol: str, **options: object) -> str:
    wide = {"stop_frac": Decimal("0.1"), "target_frac": Decimal("0.3"), **options}
    intent = rig.decide(symbol, notional=Decimal(2000), **wide)  # type: ignore[arg-type]
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    return intent.intent_id


def held(rig: Rig, position_id: str) -> Position:
    found = rig.trading_store.position(position_id)
    assert found is not None
    return found


def alerts(rig: Rig) -> dict[str, str]:
    return {row["key"]: row["severity"] for row in rig.database.rows("SELECT key, severity FROM alerts")}


# ---------------------------------------------------------------------------------------------------------------- rules
def test_an_open_position_follows_the_rules_it_was_opened_with(rig: Rig, make_rig: Callable[..., Rig]) -> None:
    rig.make_ready()
    old = enter(rig, BTC)
    changed = make_rig(paper_account=rig.paper_account, params=replace(rig.params, horizon_bars=2))
    rig.step()
    changed.make_ready()
    new = enter(changed, ETH)
    rig.step(3)
    changed.collect()
    assert follow_bar(changed) == []
    assert held(rig, new).exit_reason == "time_stop"
    assert held(rig, new).status in OVER
    assert held(rig, old).status is PositionStatus.OPEN
    assert held(rig, old).managed_bar == rig.bar(), "it was looked at, by its own rules"


@pytest.mark.parametrize("remembered", [True, False])
def test_a_position_of_before_rules_were_kept_follows_its_version(
    rig: Rig, make_rig: Callable[..., Rig], remembered: bool
) -> None:
    rig.make_ready()
    position_id = enter(rig, BTC)
    if remembered:
        rig.trading_store.remember_strategy(rig.params)
    rig.database.execute("UPDATE positions SET rules = NULL")
    changed = make_rig(paper_account=rig.paper_account, params=replace(rig.params, horizon_bars=2))
    rig.step(3)
    assert tend_all(changed) == []
    assert (held(rig, position_id).status in OVER) is not remembered


def test_rules_that_cannot_be_read_leave_no_position_untended(rig: Rig, make_rig: Callable[..., Rig]) -> None:
    rig.make_ready()
    position_id = enter(rig, BTC)
    rig.trading_store.remember_strategy(rig.params)
    rig.database.execute("""UPDATE positions SET rules = '{"horizon_bars": -1}'""")
    changed = make_rig(paper_account=rig.paper_account, params=replace(rig.params, horizon_bars=2))
    rig.step(3)
    assert tend_all(changed) == []
    assert held(rig, position_id).managed_bar == rig.bar()
    assert held(rig, position_id).status is PositionStatus.OPEN, "by the rules of its version"
    assert alerts(rig)[f"rules-{position_id}"] == "critical"
