"""A file of the strategy's values that cannot be used: entries wait, everything that protects goes on."""

from __future__ import annotations

import pytest

from tests.support.trading_rig import Rig
from tradewind.core.types import TradingMode
from tradewind.errors import BadInput
from tradewind.jobs.permission import permission_now
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import flatten
from tradewind.jobs.trading import check_trading_allowed, place_brackets
from tradewind.jobs.training import retrain_models

MISTAKE = "include/strategy.toml line 12: risk_frac = 5 lies outside (0, 0.05]"


def test_entries_wait_with_the_words_of_the_mistake(rig: Rig) -> None:
    rig.make_ready()
    intent = rig.decide()
    assert permission_now(rig).allowed
    rig.params_error = MISTAKE
    assert check_trading_allowed(rig)["reasons"] == [MISTAKE]
    placed = place_brackets(rig, intent.intent_id)
    assert (placed["outcome"], placed["reason"]) == ("expired", MISTAKE)
    assert rig.exchange_orders() == []


def test_positions_are_managed_and_left_and_somebody_hears_of_it(rig: Rig) -> None:
    rig.make_ready()
    intent = rig.decide()
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    rig.params_error = MISTAKE
    looked = manage_positions(rig)
    assert (looked["positions"], looked["problems"], looked["clean"]) == (1, [], True)
    alerts = rig.database.rows("SELECT severity, body FROM alerts WHERE key = 'strategy-file'")
    assert [(alert["severity"], alert["body"]) for alert in alerts] == [("warning", MISTAKE)]
    assert flatten(rig, "a person")["flat"]
    assert rig.trading_store.latch().mode is TradingMode.HALTED
    assert rig.trading_store.live_positions() == []


def test_nothing_is_trained_by_values_that_are_not_the_files(rig: Rig) -> None:
    from tradewind.adapters.model_store import PgModelStore

    rig.model_store = PgModelStore(rig.database, "file:///nowhere")
    rig.params_error = MISTAKE
    with pytest.raises(BadInput, match="risk_frac = 5"):
        retrain_models(rig, "a test")
    run = rig.database.row("SELECT state, report FROM training_runs")
    assert run is not None
    assert run["state"] == "failed"
    assert MISTAKE in run["report"]["error"]
