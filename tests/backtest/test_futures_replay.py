"""The replay on futures: both sides, margin, the same functions, and no difference between walking and passing over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.support.trading import BAR_MS, PARAMS, STEP_MS, D, cycle, instrument, prediction, random_bars, symbol_inputs
from tradewind.backtest.booking import matching_settings
from tradewind.backtest.futures_account import LIQUIDATED, FuturesSimulatedAccount
from tradewind.backtest.replay import ReplayResult, ReplaySettings, replay
from tradewind.backtest.signals import Forecast, SymbolSeries, moment, prefilter, symbol_series
from tradewind.core.decision import decide, filter_candidates
from tradewind.core.futures import make_brackets
from tradewind.core.matching_book import BarTicks
from tradewind.core.types import (
    Bars,
    BracketSupport,
    Instrument,
    Intent,
    MarginRules,
    OrderRole,
    OrderState,
    Outcome,
    PositionStatus,
    RegimeFamily,
    Side,
)

START_MS = BAR_MS - 1400 * STEP_MS
OPEN_MS = BAR_MS + STEP_MS
BOTH = (Side.LONG, Side.SHORT)
BRACKETS = make_brackets([("0", "0.01", 50), ("50000", "0.02", 25)])
SYMBOLS = ("A/USDT", "B/USDT", "C/USDT")


def contract(symbol: str, leverage: int = 3) -> Instrument:
    return instrument(symbol, bracket=BracketSupport.EMULATED, margin=MarginRules(leverage, BRACKETS))


def forecast(bars: Bars, seed: int) -> Forecast:
    """Nothing but chance: every tenth bar looks good, on one side or the other."""
    rng = np.random.default_rng(seed)
    good = rng.uniform(size=len(bars)) < 0.1
    short = rng.uniform(size=len(bars)) < 0.5
    high, low = np.where(good, 0.55, 0.3), np.full(len(bars), 0.2)
    worth = np.where(good, rng.uniform(0.1, 0.6, len(bars)), rng.uniform(-0.5, 0.0, len(bars)))
    return Forecast(
        np.where(short, low, high), np.where(short, high, low), np.where(short, -1.0, worth),
        np.where(short, worth, -1.0), "chance",
    )  # fmt: skip


@pytest.fixture(scope="module")
def series() -> dict[str, SymbolSeries]:
    made = {}
    for number, symbol in enumerate(SYMBOLS):
        bars = random_bars(symbol, 4000, seed=number)
        made[symbol] = symbol_series(bars, contract(symbol), forecast(bars, 70 + number), PARAMS)
    return made


@pytest.fixture(scope="module")
def result(series: dict[str, SymbolSeries]) -> ReplayResult:
    return replay(series, PARAMS, START_MS, BAR_MS)


def test_both_sides_are_traded_and_end_by_stop_and_target(result: ReplayResult) -> None:
    for side in BOTH:
        trades = [trade for trade in result.run.trades if trade.side is side]
        assert len(trades) > 10
        assert {"stop", "target"} <= {trade.exit_reason for trade in trades}
        sign = 1 if side is Side.LONG else -1
        for trade in trades:
            assert sign * (trade.entry_price - trade.initial_stop_price) > 0
            assert sign * (trade.target_price - trade.entry_price) > 0
            moves = [sign * price for _, price in trade.stop_path]
            assert moves == sorted(moves), "a stop moves towards profit only"


def test_every_short_was_judged_against_liquidation(result: ReplayResult) -> None:
    shorts = [d for d in result.decisions if d.intent is not None and d.intent.side is Side.SHORT]
    assert shorts
    for decision in shorts:
        assert decision.verdicts[-1].filter == "liquidation"
        assert decision.verdicts[-1].passed


def test_passing_over_quiet_bars_changes_nothing(series: dict[str, SymbolSeries], result: ReplayResult) -> None:
    every = replay(series, PARAMS, START_MS, BAR_MS, ReplaySettings(visit_every_bar=True))
    assert result.decisions == every.decisions
    assert result.orders == every.orders
    assert result.fills == every.fills
    assert result.run.trades == every.run.trades
    np.testing.assert_allclose(
        [e.equity_quote for e in result.run.equity], [e.equity_quote for e in every.run.equity], rtol=1e-12
    )


def test_the_columns_say_what_the_filters_say_of_either_side(series: dict[str, SymbolSeries]) -> None:
    one = series["A/USDT"]
    masks = prefilter(one, PARAMS, may_short=True)
    rng = np.random.default_rng(5)
    for row in rng.integers(3000, 3999, 150):
        now_ms = int(one.bars.open_time_ms[row]) + STEP_MS
        inputs = _cycle_at(one, int(row), now_ms)
        (candidate,) = filter_candidates(inputs)
        verdicts = {v.filter: v.passed for v in candidate.verdicts}
        for name in ("signal", "trend", "expected_value"):
            assert bool(masks[name][row]) == verdicts[name], (name, int(row))


def _cycle_at(one: SymbolSeries, row: int, now_ms: int) -> Any:
    symbol = one.inputs_at(row, timedelta(hours=2))
    return cycle(symbol, bar=moment(now_ms - STEP_MS), now=moment(now_ms + 5000), allowed_sides=BOTH)


# ------------------------------------------------------------------------------------------------------------- account
def short_intent(leverage: int = 3) -> Intent:
    """What the chain decides where a fall is foreseen."""
    falling = prediction(p_long=0.1, p_short=0.6, expected_r_long=-0.4, expected_r_short=0.4)
    inputs = symbol_inputs(prediction=falling, instrument=contract("SOL/USDT", leverage))
    below = replace(inputs, numbers=replace(inputs.numbers, trend_ema=105.0))  # type: ignore[type-var]
    (decision,) = decide(cycle(below, allowed_sides=BOTH))
    assert decision.outcome is Outcome.INTENT, decision.reason
    assert decision.intent is not None
    return decision.intent


def account(leverage: int = 3) -> FuturesSimulatedAccount:
    made = FuturesSimulatedAccount(
        "test", {"SOL/USDT": contract("SOL/USDT", leverage)}, D(10_000), matching_settings(PARAMS)
    )
    made.feed_price("SOL/USDT", 10_000, 50_000_000, OPEN_MS, OPEN_MS)
    return made


def feed(made: FuturesSimulatedAccount, number: int, *prices: float) -> None:
    at = OPEN_MS + number * STEP_MS
    opened, high, low, close = (round(price * 100) for price in prices)
    made.feed_bar("SOL/USDT", BarTicks(opened, high, low, close, 50_000_000), at, at + STEP_MS - 1)


def test_a_short_is_protected_at_once_and_stopped_above() -> None:
    made = account()
    free = made.free_quote
    holding = made.enter(short_intent(), RegimeFamily.TRENDING, "trending_weak", OPEN_MS)
    assert holding.position.status is PositionStatus.OPEN
    assert not made.unprotected(holding)
    taken = free - made.free_quote
    notional = holding.position.quantity * D(100)
    assert notional / 4 < taken < notional / 2, "a third of the notional, and the fee"
    stop = float(holding.position.stop_price)
    feed(made, 0, 100.0, stop + 0.5, 99.5, stop + 0.2)
    assert holding.position.status is PositionStatus.CLOSED
    assert holding.position.exit_reason == "stop"
    assert holding.position.realised_quote < 0
    wallet = made.futures.margins["test"].wallet_atoms
    assert D(wallet) / 10**8 == D(10_000) + holding.cash_quote, "ledger and wallet agree to the last digit"


def test_a_gap_into_liquidation_is_an_exit_of_the_position() -> None:
    made = account(leverage=50)
    intent = short_intent()
    holding = made.enter(intent, RegimeFamily.TRENDING, "trending_weak", OPEN_MS)
    for order in list(holding.orders.values()):
        if order.role is OrderRole.STOP and order.state is OrderState.WORKING:
            made.engine.cancel("test", int(str(order.exchange_order_id)), OPEN_MS)
    feed(made, 0, 100.0, 120.0, 100.0, 119.0)
    assert made.futures.margins["test"].position("SOL/USDT").lots == 0
    assert holding.position.quantity == 0
    assert holding.position.exit_reason == LIQUIDATED
