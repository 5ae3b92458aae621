"""The six stages over stored bars: decided once, stored whole, replayed to the same, repeated without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.trading_rig import STEP, Rig, RuleModels
from tradewind.core.decision import decide
from tradewind.core.features import LIVE_WINDOW_BARS
from tradewind.core.params import StrategyParams
from tradewind.core.types import OrderRole, Outcome
from tradewind.errors import StopError
from tradewind.fingerprint import code_sha256
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import halt, watch_risk_once
from tradewind.jobs.trading import (
    check_trading_allowed,
    filter_signals,
    place_brackets,
    predict_signals,
    record_cycle,
    size_positions,
)

# The synthetic market decides which filters pass; these let the rule's every answer through.
OPEN_PARAMS = StrategyParams(
    natr_min_frac=0.0,
    natr_max_frac=1.0,
    min_volume_ratio=0.0,
    natr_chaotic_ratio=1e9,
    trend_filter_ema_4h_bars=2,
    max_correlation=1.0,
)


@pytest.fixture
def cycle_rig(make_rig: Callable[..., Rig]) -> Iterator[Rig]:
    rig = make_rig(params=OPEN_PARAMS)
    rig.model_store = RuleModels(rig.clock.now() - timedelta(days=1))
    rig.collect(LIVE_WINDOW_BARS)
    rig.make_ready()
    return rig


def run(rig: Rig, run_id: str = "run-1") -> tuple[dict[str, Any], list[str]]:
    checked = check_trading_allowed(rig)
    bar = rig.bar()
    assert checked["bar"] == bar.isoformat()
    predict_signals(rig, bar)
    filter_signals(rig, bar)
    intent_ids = size_positions(rig, bar)
    for intent_id in intent_ids:
        place_brackets(rig, intent_id)
    return record_cycle(rig, bar, run_id), intent_ids


def step_until_intent(rig: Rig) -> tuple[dict[str, Any], list[str]]:
    for _ in range(40):
        rig.step()
        rig.make_ready()
        recorded, intent_ids = run(rig)
        if intent_ids:
            return recorded, intent_ids
    pytest.fail(f"no intent in 40 bars: {[d.reason for d in rig.trading_store.decisions(rig.bar())]}")


def rows_of(rig: Rig) -> list[Any]:
    tables = ("predictions", "filter_verdicts", "decisions", "cycle_inputs", "cycles", "orders", "positions")
    # Each lock draws a new fence, and each look at an order that rests is noted: the only traces that a repeat leaves.
    query = "SELECT to_jsonb({table}) - 'fence' - 'seen_at' AS row FROM {table} ORDER BY 1"
    return [rig.database.rows(query.format(table=table)) for table in tables]


def test_a_cycle_trades_and_a_repeat_changes_nothing(cycle_rig: Rig) -> None:
    recorded, intent_ids = step_until_intent(cycle_rig)
    assert recorded["state"] == "done"
    store = cycle_rig.trading_store
    for intent_id in intent_ids:
        entries = [order for order in store.orders_of(intent_id) if order.role is OrderRole.ENTRY]
        assert {order.state.value for order in entries} <= {"filled", "expired"}
    assert manage_positions(cycle_rig)["clean"]
    before = rows_of(cycle_rig)
    cycle_rig.make_ready()
    _, again = run(cycle_rig, "run-2")
    assert again == intent_ids
    assert rows_of(cycle_rig) == before
    cycle_rig.assert_agrees()


def test_stored_inputs_decide_the_same_again(cycle_rig: Rig) -> None:
    step_until_intent(cycle_rig)
    bar = cycle_rig.bar()
    inputs = cycle_rig.trading_store.cycle_inputs(bar)
    assert inputs is not None
    replayed = sorted(decide(inputs), key=lambda decision: decision.symbol)
    assert replayed == cycle_rig.trading_store.decisions(bar)
    stored = cycle_rig.trading_store.predictions(bar)
    assert {row.code_sha256 for row in stored.values()} == {code_sha256()}
    assert len(stored["BTC/USDT"].inputs["features"]) >= 60


def test_a_decision_sees_what_left_at_its_own_close(make_rig: Callable[..., Rig]) -> None:
    """The minute's look comes after the cycle: the time stop of this bar must not hold its slot for one bar more."""
    rig = make_rig(params=replace(OPEN_PARAMS, horizon_bars=2, cooldown_bars=0))
    rig.model_store = RuleModels(rig.clock.now() - timedelta(days=1))
    rig.collect(LIVE_WINDOW_BARS)
    rig.make_ready()
    _, (first, *_others) = step_until_intent(rig)
    store = rig.trading_store
    position = store.position(first)
    assert position is not None
    for number in range(2):
        rig.step()
        watch_risk_once(rig)
        run(rig, f"after-{number}")
    inputs = store.cycle_inputs(rig.bar())
    left = store.position(first)
    assert inputs is not None
    assert left is not None
    assert left.closed_at is not None
    assert left.closed_at <= inputs.now
    assert [t.symbol for t in inputs.portfolio.recent_trades if t.symbol == position.symbol]
    assert all(e.symbol != position.symbol for e in inputs.portfolio.exposures)
    rig.assert_agrees()


def test_without_a_champion_everything_is_declined_and_stored(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.collect(LIVE_WINDOW_BARS)
    rig.make_ready()
    recorded, intent_ids = run(rig)
    assert intent_ids == []
    assert recorded["outcomes"] == {"unavailable": 2}
    reasons = [decision.reason for decision in rig.trading_store.decisions(rig.bar())]
    assert all("no champion" in reason for reason in reasons)


def test_missing_bars_are_named_and_block_that_symbol_alone(cycle_rig: Rig) -> None:
    cycle_rig.database.execute("DELETE FROM candles WHERE symbol = 'ETH/USDT' AND open_time = %s", (cycle_rig.bar(),))
    run(cycle_rig)
    by_symbol = {decision.symbol: decision for decision in cycle_rig.trading_store.decisions(cycle_rig.bar())}
    assert by_symbol["ETH/USDT"].outcome is Outcome.UNAVAILABLE
    assert "bar" in by_symbol["ETH/USDT"].reason
    assert by_symbol["BTC/USDT"].outcome is not Outcome.UNAVAILABLE


def test_missing_leader_blocks_the_others_by_name(cycle_rig: Rig) -> None:
    cycle_rig.database.execute("DELETE FROM candles WHERE symbol = 'BTC/USDT' AND open_time = %s", (cycle_rig.bar(),))
    run(cycle_rig)
    by_symbol = {decision.symbol: decision for decision in cycle_rig.trading_store.decisions(cycle_rig.bar())}
    assert "leader BTC/USDT" in by_symbol["ETH/USDT"].reason


def test_a_late_bar_is_decided_as_expired_and_never_executed(cycle_rig: Rig) -> None:
    bar = cycle_rig.bar()
    cycle_rig.step(2)
    watch_risk_once(cycle_rig)
    checked = check_trading_allowed(cycle_rig, bar)
    assert checked["bar"] == bar.isoformat()
    predict_signals(cycle_rig, bar)
    filter_signals(cycle_rig, bar)
    assert size_positions(cycle_rig, bar) == []
    assert {d.outcome for d in cycle_rig.trading_store.decisions(bar)} == {Outcome.EXPIRED}
    assert record_cycle(cycle_rig, bar, "late")["state"] == "expired"


def test_a_halted_account_declines_with_the_reason(cycle_rig: Rig) -> None:
    halt(cycle_rig, "kim is careful", "kim")
    assert not check_trading_allowed(cycle_rig)["allowed"]
    _, intent_ids = run(cycle_rig)
    assert intent_ids == []
    (permission,) = {
        verdict.reason
        for verdicts in cycle_rig.trading_store.verdicts(cycle_rig.bar()).values()
        for verdict in verdicts
        if verdict.filter == "permission"
    }
    assert "kim is careful" in permission


def test_a_stage_that_left_nothing_fails_the_cycle(cycle_rig: Rig) -> None:
    bar = cycle_rig.bar()
    with pytest.raises(StopError, match="predict_signals"):
        filter_signals(cycle_rig, bar)
    with pytest.raises(StopError, match="predict_signals"):
        record_cycle(cycle_rig, bar, "run-1")
    cycle = cycle_rig.trading_store.cycle(bar)
    assert cycle is not None
    assert cycle.state == "failed"
    predict_signals(cycle_rig, bar)
    with pytest.raises(StopError, match="filter_signals"):
        size_positions(cycle_rig, bar)


def test_regimes_are_stored_as_detected(cycle_rig: Rig) -> None:
    run(cycle_rig)
    bar = cycle_rig.bar()
    known = cycle_rig.state_store.last_regimes(cycle_rig.symbols, bar + STEP, cycle_rig.params.hash)
    inputs = cycle_rig.trading_store.cycle_inputs(bar)
    assert inputs is not None
    for symbol in inputs.symbols:
        if symbol.regime is not None:
            assert known[symbol.symbol] == replace(symbol.regime)
