from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trading import BAR, BAR_MS, NOW, PARAMS, STEP_MS, cycle, instrument, random_bars
from tradewind.backtest.replay import ReplayResult, ReplaySettings, replay
from tradewind.backtest.signals import Forecast, SymbolSeries, prefilter, symbol_series
from tradewind.core.candles import take
from tradewind.core.decision import filter_candidates
from tradewind.core.types import Bars, BracketSupport, Outcome

START_MS = BAR_MS - 1400 * STEP_MS
EDGES = ["A/USDT", "B/USDT", "C/USDT"]


def forecast(bars: Bars, seed: int, rate: float = 0.05) -> Forecast:
    """Nothing but chance: every twentieth bar looks good."""
    rng = np.random.default_rng(seed)
    good = rng.uniform(size=len(bars)) < rate
    p_long = np.where(good, 0.55, rng.uniform(0.1, 0.5, len(bars)))
    p_short = np.full(len(bars), 0.2)
    expected = np.where(good, rng.uniform(0.1, 0.6, len(bars)), rng.uniform(-0.5, 0.2, len(bars)))
    p_long[rng.uniform(size=len(bars)) < 0.02] = np.nan
    return Forecast(p_long, p_short, expected, -expected, "chance")


def three(**changes: Any) -> dict[str, SymbolSeries]:
    made = {}
    for number, symbol in enumerate(EDGES):
        bars = random_bars(symbol, 4000, seed=number)
        market = instrument(symbol, bracket=BracketSupport.OPOCO if number % 2 else BracketSupport.OTOCO)
        made[symbol] = symbol_series(bars, market, forecast(bars, 50 + number), PARAMS)
    return made


@pytest.fixture(scope="module")
def series() -> dict[str, SymbolSeries]:
    return three()


@pytest.fixture(scope="module")
def result(series: dict[str, SymbolSeries]) -> ReplayResult:
    return replay(series, PARAMS, START_MS, BAR_MS)


def test_it_trades_and_declines(result: ReplayResult) -> None:
    outcomes = Counter(decision.outcome for decision in result.decisions)
    assert outcomes[Outcome.INTENT] > 20
    assert outcomes[Outcome.DECLINED] > 20
    assert len(result.run.trades) > 20
    assert {"stop", "target"} <= {trade.exit_reason for trade in result.run.trades}
    assert result.bars_visited < result.bars_seen


def test_every_bar_of_the_range_is_counted_once(result: ReplayResult) -> None:
    firsts = sum(row.first_refusals for row in result.run.funnel)
    intents = sum(decision.outcome is Outcome.INTENT for decision in result.decisions)
    assert firsts + intents == result.bars_seen == 3 * 1400


def test_twice_is_the_same(series: dict[str, SymbolSeries], result: ReplayResult) -> None:
    again = replay(three(), PARAMS, START_MS, BAR_MS)
    assert again.decisions == result.decisions
    assert again.run.trades == result.run.trades
    assert again.fills == result.fills
    assert list(again.run.equity) == list(result.run.equity)


def changed_after(series: SymbolSeries, cut_ms: int) -> SymbolSeries:
    """The same past and another future, from the bar opened at `cut_ms` on."""
    bars = series.bars
    cut = int(np.searchsorted(bars.open_time_ms, cut_ms))
    columns = [c.copy() for c in (bars.open, bars.high, bars.low, bars.close, bars.volume)]
    for column in columns:
        column[cut:] = np.round(column[cut:] * 1.37, 2)
    f = series.forecast
    answers = [c.copy() for c in (f.p_long, f.p_short, f.expected_r_long, f.expected_r_short)]
    for answer in answers:
        answer[cut:] = 0.3
    moved = Bars(bars.symbol, "15m", bars.open_time_ms, *columns)
    return symbol_series(moved, series.instrument, Forecast(*answers, f.model_version), PARAMS)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    volatility=st.sampled_from([0.002, 0.006, 0.015]),
    rate=st.sampled_from([0.01, 0.05, 0.3]),
    gaps=st.lists(st.integers(2600, 3999), max_size=6),
    breaker=st.booleans(),
    thin=st.booleans(),
    failed_stop_r=st.sampled_from([0.3, 2.0]),
)
def test_passing_over_quiet_bars_changes_nothing(
    seed: int, volatility: float, rate: float, gaps: list[int], breaker: bool, thin: bool, failed_stop_r: float
) -> None:
    params = replace(
        PARAMS,
        max_daily_loss_frac=0.006 if breaker else 0.03,
        max_missing_bars=1000,
        failed_stop_r=failed_stop_r,
    )
    made = {}
    for number, symbol in enumerate(EDGES):
        bars = random_bars(symbol, 4000, seed=seed + number, volatility=volatility)
        answers = forecast(bars, seed + 50 + number, rate)
        if thin:
            bars.volume[:] /= 40
        keep = np.ones(4000, dtype=bool)
        keep[[gap for place, gap in enumerate(gaps) if place % 3 == number]] = False
        columns = [getattr(answers, n)[keep] for n in ("p_long", "p_short", "expected_r_long", "expected_r_short")]
        made[symbol] = symbol_series(take(bars, keep), instrument(symbol), Forecast(*columns, "chance"), params)
    quick = replay(made, params, START_MS, BAR_MS)
    every = replay(made, params, START_MS, BAR_MS, ReplaySettings(visit_every_bar=True))
    assert quick.bars_visited <= every.bars_visited
    assert quick.decisions == every.decisions
    assert quick.orders == every.orders
    assert quick.fills == every.fills
    assert quick.run.trades == every.run.trades
    assert quick.breaches == every.breaches
    assert [e.at_ms for e in quick.run.equity] == [e.at_ms for e in every.run.equity]
    np.testing.assert_allclose(
        [e.equity_quote for e in quick.run.equity], [e.equity_quote for e in every.run.equity], rtol=1e-12
    )


@pytest.mark.parametrize("bars_before_end", [1000, 433])
def test_another_future_changes_nothing_of_the_past(
    series: dict[str, SymbolSeries], result: ReplayResult, bars_before_end: int
) -> None:
    cut_ms = BAR_MS - bars_before_end * STEP_MS
    other = replay({s: changed_after(x, cut_ms) for s, x in series.items()}, PARAMS, START_MS, BAR_MS)
    # What is decided when the bar before the change has closed already meets the changed market's open.
    last = BAR - timedelta(minutes=15 * (bars_before_end + 1))
    known = [d for d in result.decisions if d.bar < last]
    assert len(known) > 20
    assert [d for d in other.decisions if d.bar < last] == known
    closed = [t for t in result.run.trades if t.exit_ms < cut_ms]
    assert [t for t in other.run.trades if t.exit_ms < cut_ms] == closed
    assert [e for e in other.run.equity if e.at_ms <= cut_ms] == [e for e in result.run.equity if e.at_ms <= cut_ms]


def test_an_entry_is_filled_at_the_bar_after_its_decision(result: ReplayResult) -> None:
    decided = {d.intent.intent_id: d for d in result.decisions if d.intent is not None}
    for trade in result.run.trades:
        assert trade.entry_ms == trade.bar_ms + STEP_MS
        intent = decided[trade.position_id].intent
        assert intent is not None
        assert trade.entry_price <= float(intent.entry_limit_price)
        assert trade.stop_path[0] == (trade.entry_ms, float(intent.stop_price))


def test_stops_only_rise_and_each_move_is_made_at_an_open(result: ReplayResult) -> None:
    moved = 0
    for trade in result.run.trades:
        prices = [price for _, price in trade.stop_path]
        assert prices == sorted(prices)
        assert all(at % STEP_MS == 0 for at, _ in trade.stop_path)
        moved += len(prices) > 1
    assert moved > 3


def test_money_is_conserved_to_the_last_digit(result: ReplayResult) -> None:
    cash = Decimal(10_000)
    base: dict[str, Decimal] = {}
    for fill in result.fills:
        sign = 1 if fill.is_buy else -1
        cash -= sign * fill.quantity * fill.price
        base[fill.symbol] = base.get(fill.symbol, Decimal(0)) + sign * fill.quantity
        if fill.fee_asset == "USDT":
            cash -= fill.fee
        else:
            base[fill.symbol] -= fill.fee
    won = sum((Decimal(repr(t.net_quote)) for t in result.run.trades), Decimal(0))
    in_trades = {t.position_id for t in result.run.trades}
    open_cash = Decimal(0)
    for order_fill in result.fills:
        owner = next(o.position_id for o in result.orders if o.client_order_id == order_fill.client_order_id)
        if owner not in in_trades:
            sign = 1 if order_fill.is_buy else -1
            open_cash -= sign * order_fill.quantity * order_fill.price
            open_cash -= order_fill.fee if order_fill.fee_asset == "USDT" else 0
    assert abs(cash - 10_000 - won - open_cash) < Decimal("1e-6")
    assert all(quantity >= 0 for quantity in base.values())


def test_the_portfolios_limits_hold_at_every_moment(result: ReplayResult) -> None:
    held: Counter[str] = Counter()
    moments = sorted(
        [(t.entry_ms, 1, t.symbol) for t in result.run.trades] + [(t.exit_ms, -1, t.symbol) for t in result.run.trades]
    )
    for _, change, symbol in moments:
        held[symbol] += change
        assert held[symbol] <= PARAMS.max_positions_per_symbol
        assert held.total() <= PARAMS.max_positions


def test_no_id_is_ever_used_twice_and_each_order_ends(result: ReplayResult) -> None:
    ids = [order.client_order_id for order in result.orders]
    assert len(set(ids)) == len(ids)
    closed = {t.position_id for t in result.run.trades}
    assert {o.state.value for o in result.orders if o.position_id in closed} <= {
        "filled",
        "cancelled",
        "expired",
        "rejected",
    }


def test_each_mask_is_its_filters_verdict(series: dict[str, SymbolSeries]) -> None:
    one = series["A/USDT"]
    masks = prefilter(one, PARAMS)
    seen: Counter[tuple[str, bool]] = Counter()
    for row in [*range(300, 4000, 37), *range(3900, 4000)]:
        bar = BAR - timedelta(minutes=15 * (4000 - row))
        now = bar + timedelta(minutes=15, seconds=5)
        inputs = cycle(
            one.inputs_at(row, timedelta(hours=2)),
            bar=bar,
            now=now,
            model_trained_until=bar,
            permission=cycle().permission,
        )
        (candidate,) = filter_candidates(inputs)
        for verdict in candidate.verdicts:
            if verdict.filter in masks:
                assert masks[verdict.filter][row] == verdict.passed, (row, verdict)
                seen[verdict.filter, verdict.passed] += 1
    assert all(seen[name, True] and seen[name, False] for name in ("completeness", "signal", "trend", "expected_value"))


def test_the_clock_of_the_decisions_is_the_bars_own(result: ReplayResult) -> None:
    assert all(d.bar < NOW for d in result.decisions)
