"""A run on the stepped paper exchange over HTTP, through the jobs that the DAG tasks call, and its replay: the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.parity.conftest import PARAMS, START_MS, SYMBOLS, Models, peeking, stepwise, write_market
from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind.adapters.parity_store import PgParityStore
from tradewind.backtest.candle_files import read_candles
from tradewind.core.features import LIVE_WINDOW_BARS, Feature
from tradewind.core.leak_checks import check_truncation
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.parity import ParityReport
from tradewind.core.resampling import BASE_MS
from tradewind.core.timeframes import from_ms
from tradewind.core.types import OrderRole, OrderState, Outcome, SentimentState
from tradewind.jobs.parity import check_parity
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import open_day, watch_risk_once
from tradewind.jobs.trading import (
    check_trading_allowed,
    filter_signals,
    place_brackets,
    predict_signals,
    record_cycle,
    size_positions,
)

BARS = 210


class ParityRig(Rig):
    """A rig that trades every bar as the running system does."""

    symbols: tuple[str, ...]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parity_store = PgParityStore(self.database, self.account, self.params.strategy_version)

    def live_one_bar(self) -> None:
        """The bar has closed: collect it, decide, send; the minute's look at the positions comes after that."""
        self.collect()
        open_day(self)
        watch_risk_once(self)
        bar = self.bar()
        check_trading_allowed(self, bar)
        predict_signals(self, bar)
        filter_signals(self, bar)
        for intent_id in size_positions(self, bar):
            place_brackets(self, intent_id)
        record_cycle(self, bar, f"run-{bar:%Y%m%dT%H%M}")
        manage_positions(self)


@dataclass(frozen=True)
class Lived:
    """What the run left, and the folder of its market."""

    rig: ParityRig
    candles: Path


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, module_database: str) -> Iterator[Lived]:
    """Two hundred bars and more of five symbols, lived through once for this file."""
    candles = tmp_path_factory.mktemp("candles")
    write_market(candles, LIVE_WINDOW_BARS + 50, BARS + 4)
    with PaperServerProcess(market=f"replay:{candles}", own_time=True) as server:
        server.admin.set_clock(START_MS)
        account = server.create_account(USDT="10000")
        rig = ParityRig(server, module_database, account, params=PARAMS, symbols=SYMBOLS)
        rig.model_store = Models(from_ms(START_MS) - timedelta(days=2))
        rig.collect(LIVE_WINDOW_BARS)
        rig.make_ready()
        for number in range(BARS):
            server.admin.set_clock(START_MS + number * BASE_MS)
            early, late = news(number)
            rig.state_store.insert_sentiment(early)
            rig.live_one_bar()
            rig.state_store.insert_sentiment(late)
        yield Lived(rig, candles)
        rig.close()


def news(number: int) -> tuple[list[SentimentState], list[SentimentState]]:
    """Aggregates of every twelfth bar's close: some veto, some raise the bar, some are stale when they are read.

    They are stored just before that bar is decided, or just after: in a replay nobody knows which.
    """
    if number % 12:
        return [], []
    scores = np.random.default_rng(number).uniform(-1, 1, len(SYMBOLS)).round(3)
    states = [
        SentimentState(symbol, from_ms(START_MS + number * BASE_MS), float(score), 2.0, "ok", "lexicon")
        for symbol, score in zip(SYMBOLS, scores, strict=True)
    ]
    return (states, []) if number % 24 else ([], states)


def compared(lived: Lived, **options: Any) -> dict[str, Any]:
    return check_parity(lived.rig, from_ms(0), matching=MatchingSettings(), **options)


def test_the_run_was_worth_comparing(lived: Lived) -> None:
    live = lived.rig.parity_store.ledger(from_ms(0), from_ms(1 << 42))
    outcomes = Counter(decision.outcome for decision in live.decisions)
    assert sum(outcomes.values()) == BARS * len(SYMBOLS) >= 1000
    assert outcomes[Outcome.INTENT] >= 15
    filled = Counter(order.role for order in live.orders if order.state is OrderState.FILLED)
    assert filled[OrderRole.ENTRY] >= 15
    assert filled[OrderRole.STOP] >= 3
    assert filled[OrderRole.TARGET] >= 3
    assert filled[OrderRole.EXIT] >= 1, "no time stop"
    assert sum(order.role is OrderRole.STOP and order.generation > 0 for order in live.orders) >= 5, "no stop moved"
    refusals = Counter(d.reason.partition(":")[0] for d in live.decisions if d.outcome is Outcome.DECLINED)
    assert {"sentiment", "cooldown", "positions", "signal"} <= set(refusals)
    lived.rig.assert_agrees()


def test_live_and_replay_are_equal(lived: Lived) -> None:
    result = compared(lived)
    assert result["cycles"] >= 200
    assert result["decisions"] >= 200 * len(SYMBOLS)
    assert result["orders"] > 60
    assert result["fills"] > 40
    assert result["differences"] == 0, result["shown"]
    stored = lived.rig.parity_store.reports(1)[0]
    assert (stored["cycles"], stored["unexplained"]) == (result["cycles"], 0)


def test_a_strategy_that_peeks_is_caught(lived: Lived) -> None:
    models = lived.rig.model_store
    lived.rig.model_store = replace(models, replayed=peeking)
    try:
        result = compared(lived)
    finally:
        lived.rig.model_store = models
    assert result["unexplained"] > 50
    assert any("prediction" in row["field"] for row in result["shown"])
    alerts = lived.rig.database.rows("SELECT title FROM alerts WHERE key LIKE 'parity-%'")
    assert alerts


def test_the_leak_test_catches_the_same_peek(tmp_path: Path) -> None:
    write_market(tmp_path, 400, 10)
    bars, _ = read_candles(tmp_path, "BTC/USDT")

    def next_move(series: Any) -> np.ndarray:
        return np.append(np.diff(np.log(series.close)), 0.0)

    honest = Feature("move", "test", "15m", 2, 2, lambda series: np.append(0.0, np.diff(np.log(series.close))))
    biased = Feature("next_move", "test", "15m", 1, 1, next_move)
    rows = [len(bars) - 40, len(bars) - 7]
    assert check_truncation(bars, bars, PARAMS, rows, (honest,)) == []
    assert {leak.feature for leak in check_truncation(bars, bars, PARAMS, rows, (biased,))} == {"next_move"}


def test_an_execution_that_differs_is_named_with_its_cause(lived: Lived) -> None:
    """A fill that the ledger holds at another moment and price than the market gave."""
    database = lived.rig.database
    fill = database.row("SELECT symbol, trade_id, price, at FROM fills WHERE is_buy ORDER BY at DESC OFFSET 8 LIMIT 1")
    assert fill is not None
    key = (fill["symbol"], fill["trade_id"])
    shift = "UPDATE fills SET price = price * %s, at = at + %s WHERE symbol = %s AND trade_id = %s"
    database.execute(shift, (2, timedelta(seconds=7), *key))
    try:
        result = compared(lived)
    finally:
        restore = "UPDATE fills SET price = %s, at = %s WHERE symbol = %s AND trade_id = %s"
        database.execute(restore, (fill["price"], fill["at"], *key))
    assert result["unexplained"] == 0, result["shown"]
    assert {row["field"] for row in result["shown"]} == {"price", "at"}
    assert "+7.0 s" in result["shown"][0]["cause"]


def test_a_tampered_decision_is_unexplained(lived: Lived) -> None:
    database = lived.rig.database
    row = database.row("SELECT symbol, bar, decision FROM decisions ORDER BY bar DESC, symbol OFFSET 30 LIMIT 1")
    assert row is not None
    changed = dict(row["decision"], prediction=dict(row["decision"]["prediction"], p_long=0.9))
    update = "UPDATE decisions SET decision = %s WHERE symbol = %s AND bar = %s"
    database.execute(update, (psycopg.types.json.Jsonb(changed), row["symbol"], row["bar"]))
    try:
        result = compared(lived)
    finally:
        database.execute(update, (psycopg.types.json.Jsonb(row["decision"]), row["symbol"], row["bar"]))
    assert result["unexplained"] == 1
    assert result["shown"][0]["field"] == "prediction.p_long"


def test_a_part_of_the_period_compares_too(lived: Lived) -> None:
    since = from_ms(START_MS + 60 * BASE_MS)
    result = compared(lived, until=from_ms(START_MS + 150 * BASE_MS))
    assert result["differences"] == 0
    later = check_parity(lived.rig, since, matching=MatchingSettings())
    assert later["differences"] == 0, later["shown"]


def test_both_functions_differ_only_in_what_they_see() -> None:
    features = np.random.default_rng(1).normal(size=(5, 200))
    np.testing.assert_array_equal(peeking(features)[:-1], stepwise(features)[1:])
    assert ParityReport(1, 0, 0, ()).unexplained == 0
