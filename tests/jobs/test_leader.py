"""The market leader is collected, loaded, repaired and judged whether it is traded or not, in any quote currency."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.conftest import NOW_MS
from tests.support.market_rig import NOON, NOON_MS, STEP, MarketRig
from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig, RuleModels
from tradewind.commands.doctor_exchange import examine
from tradewind.core.features import LIVE_WINDOW_BARS
from tradewind.core.params import StrategyParams
from tradewind.jobs.market import collect_candles, fill_candle_gaps
from tradewind.jobs.trading import filter_signals, predict_signals, size_positions
from tradewind.paper import __main__ as paper_main
from tradewind.settings import load_settings
from tradewind.wiring import Wiring

EUROS = "BTC/EUR,ETH/EUR,SOL/EUR"


def decided(rig: Rig) -> list[Any]:
    """The decisions of the newest bar, by a champion whose every answer is an entry."""
    rig.model_store = RuleModels(rig.clock.now() - timedelta(days=1))
    rig.collect(LIVE_WINDOW_BARS)
    rig.make_ready()
    predict_signals(rig, rig.bar())
    filter_signals(rig, rig.bar())
    size_positions(rig, rig.bar())
    return rig.trading_store.decisions(rig.bar())


def test_without_the_leader_among_the_symbols_decisions_have_all_their_inputs(make_rig: Callable[..., Rig]) -> None:
    (decision,) = decided(make_rig(symbols=("ETH/USDT",)))
    assert decision.symbol == "ETH/USDT", "the leader is not traded"
    assert decision.prediction is not None
    assert "missing" not in decision.reason
    assert "leader" not in decision.reason


def test_an_account_in_another_currency_is_led_by_bitcoin_in_it(postgres_url: str) -> None:
    with PaperServerProcess(symbols=EUROS) as server:
        server.admin.set_clock(NOW_MS)
        params = replace(StrategyParams(), leader_symbol="BTC/EUR")
        account = server.create_account(EUR="10000")
        rig = Rig(server, postgres_url, account, params=params, symbols=("ETH/EUR", "SOL/EUR"))
        try:
            decisions = decided(rig)
        finally:
            rig.close()
    assert {decision.symbol for decision in decisions} == {"ETH/EUR", "SOL/EUR"}
    for decision in decisions:
        assert decision.prediction is not None, decision.reason
        assert "missing" not in decision.reason


def test_the_wiring_knows_the_leader_of_its_currency(tmp_path: Path) -> None:
    settings = load_settings(home_dir=tmp_path, quote_currency="EUR", symbols=("ETH/EUR",))
    assert Wiring(settings).params.leader_symbol == "BTC/EUR"


@pytest.fixture
def led(paper_server: PaperServerProcess, postgres_url: str, valkey_url: str, tmp_path: Path) -> Iterator[MarketRig]:
    """A deployment that trades ETH alone."""
    rig = MarketRig(paper_server, postgres_url, valkey_url, tmp_path, symbols=("ETH/USDT",))
    yield rig
    rig.close()


def test_the_leader_is_collected_and_its_gaps_are_filled(led: MarketRig) -> None:
    led.set_market(NOON + timedelta(minutes=5))
    collected = collect_candles(led.ports, "15m", NOON - timedelta(hours=6), NOON - timedelta(hours=5))
    assert collected["bars"] == {"ETH/USDT": 4, "BTC/USDT": 4}
    collected = collect_candles(led.ports, "15m", None, None)
    assert collected["newest_complete"]
    hole = (NOON - timedelta(hours=4), NOON - timedelta(hours=3))
    lost = "DELETE FROM candles WHERE symbol = 'BTC/USDT' AND open_time >= %s AND open_time < %s"
    assert led.ports.database.execute(lost, hole) == 4
    filled = fill_candle_gaps(led.ports, ["15m"])
    assert (filled["missing_bars"], filled["filled_bars"]) == (4, 4)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        opens = led.stored(symbol).open_time_ms
        assert opens[-1] == NOON_MS - STEP
        assert (opens[1:] - opens[:-1] == STEP).all(), symbol
    assert led.ports.market_store.newest_quality(("BTC/USDT",), NOON - timedelta(minutes=15)).keys() == {"BTC/USDT"}


def test_the_paper_exchange_lists_the_leader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[str] = []
    monkeypatch.setattr(paper_main, "serve", lambda options: served.append(options.symbols) or 0)
    monkeypatch.setattr(paper_main, "configure_logging", lambda *_level, **_fields: None)
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(tmp_path))
    monkeypatch.setenv("TRADEWIND_QUOTE_CURRENCY", "EUR")
    monkeypatch.setenv("TRADEWIND_SYMBOLS", "ETH/EUR,SOL/EUR")
    assert paper_main.main([]) == 0
    assert served == ["ETH/EUR,SOL/EUR,BTC/EUR"]


def test_a_leader_that_the_exchange_does_not_list_is_told_of(make_rig: Callable[..., Rig]) -> None:
    rig: Any = make_rig(params=replace(StrategyParams(), leader_symbol="BTC/EUR"))
    rig.settings = load_settings(exchange_url=rig.server.url)
    assert examine(rig)["problems"] == ["BTC/EUR is not listed: name another leader_symbol in strategy.toml"]
