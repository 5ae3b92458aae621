"""Days made up for one thing to happen, each in a market that ticks by a cent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from tests.support.trading import BAR, BAR_MS, PARAMS, STEP_MS, D, instrument
from tradewind.backtest.replay import ReplayResult, ReplaySettings, replay
from tradewind.backtest.signals import Forecast, ModelSpan, SymbolSeries, symbol_series
from tradewind.core.candles import take
from tradewind.core.types import Bars, Outcome, SentimentState

START_MS = BAR_MS - 1400 * STEP_MS


def flat_series(count: int = 4000, **columns: Callable[[np.ndarray], None]) -> SymbolSeries:
    """A market that ticks by a cent around 100, warm for every filter; `columns` edit single prices of it."""
    times = (BAR_MS - STEP_MS * np.arange(count, 0, -1)).astype(np.int64)
    # Ranges large enough for a 1h ATR of about 1 and an upward drift that stays over its trend line.
    opens = np.round(90 + 10 * np.arange(count) / count, 2)
    closes = opens.copy()
    wide = {"open": opens, "high": opens + 0.5, "low": opens - 0.5, "close": closes}
    for name, edit in columns.items():
        edit(wide[name])
    bars = Bars("SOL/USDT", "15m", times, *wide.values(), np.full(count, 50_000.0))
    p = np.full(count, 0.1)
    p[-300] = 0.6
    made = Forecast(p, np.full(count, 0.1), np.where(p > 0.5, 0.5, -1.0), np.full(count, -1.0), "one")
    return symbol_series(bars, instrument(), made, PARAMS)


def run_flat(series: SymbolSeries, **settings: Any) -> ReplayResult:
    return replay({"SOL/USDT": series}, PARAMS, START_MS, BAR_MS, ReplaySettings(**settings))


def test_a_position_that_goes_nowhere_ends_at_its_horizon() -> None:
    result = run_flat(flat_series())
    (trade,) = result.run.trades
    assert trade.exit_reason == "time_stop"
    # Decided at the close of the 96th bar, sold at the open of the next.
    assert trade.exit_ms == trade.bar_ms + 97 * STEP_MS
    assert -0.5 < trade.net_r < 0


def test_a_stop_gapped_over_fills_at_the_open_and_loses_more_than_one_r() -> None:
    def crash(column: np.ndarray) -> None:
        column[-250:] -= 6

    result = run_flat(flat_series(open=crash, high=crash, low=crash, close=crash))
    (trade,) = result.run.trades
    assert trade.exit_reason == "stop"
    assert trade.exit_ms % STEP_MS == 0
    assert trade.exit_price < trade.initial_stop_price - 2
    assert trade.net_r < -2


def test_stop_and_target_inside_one_bar_is_the_stop() -> None:
    def up(column: np.ndarray) -> None:
        column[-250] += 20

    def down(column: np.ndarray) -> None:
        column[-250] -= 20

    (trade,) = run_flat(flat_series(high=up, low=down)).run.trades
    assert trade.exit_reason == "stop"
    assert trade.exit_price == pytest.approx(trade.initial_stop_price, abs=0.2)


def test_an_entry_whose_next_bar_is_missing_is_never_sent() -> None:
    whole = flat_series()
    keep = np.ones(4000, dtype=bool)
    keep[-299] = False
    columns = [getattr(whole.forecast, n)[keep] for n in ("p_long", "p_short", "expected_r_long", "expected_r_short")]
    series = symbol_series(take(whole.bars, keep), whole.instrument, Forecast(*columns, "one"), PARAMS)
    result = run_flat(series)
    assert [d.outcome for d in result.decisions] == [Outcome.INTENT]
    assert result.orders == []


def test_bars_that_live_would_not_trust_open_nothing_in_a_replay_either() -> None:
    series = flat_series()
    volume = series.bars.volume.copy()
    volume[-310:-305] = 0.0
    dead = replace(series.bars, volume=volume)
    result = run_flat(symbol_series(dead, series.instrument, series.forecast, PARAMS))
    assert [d.outcome for d in result.decisions] == [Outcome.DECLINED]
    assert result.decisions[0].reason == "completeness: its bars are not fit to trade on: zero_volume"
    trusting = symbol_series(dead, series.instrument, series.forecast, PARAMS, quality=None)
    assert [d.outcome for d in run_flat(trusting).decisions] == [Outcome.INTENT]


def test_an_open_beyond_the_limit_declines_the_entry() -> None:
    def jump(column: np.ndarray) -> None:
        column[-299:] += 1.0

    result = run_flat(flat_series(open=jump, high=jump, low=jump, close=jump))
    assert result.run.trades == []
    assert {o.state.value for o in result.orders} == {"expired"}
    assert result.run.equity[-1].equity_quote == 10_000


def test_a_bar_too_thin_is_refused_by_size() -> None:
    result = run_flat(flat_series(), capital_quote=D(20))
    assert [d.outcome for d in result.decisions] == [Outcome.DECLINED]
    assert result.decisions[0].reason.startswith("size: ")


def test_a_model_trained_on_later_data_never_trades() -> None:
    result = run_flat(flat_series(), models=(ModelSpan(0, "v1", BAR_MS),))
    assert result.decisions[0].reason.startswith("model: the model was trained on data later")


def test_stored_sentiment_is_used_at_the_first_close_after_it_was_scored() -> None:
    series = flat_series()
    closed = BAR - timedelta(minutes=15 * 299)
    before = SentimentState("SOL/USDT", closed - timedelta(seconds=1), -0.9, 5.0, "ok", "lexicon")
    after = replace(before, as_of=closed)
    vetoed = run_flat(replace(series, sentiment=(before,)))
    assert vetoed.decisions[0].reason.startswith("sentiment: ")
    assert vetoed.sentiment_coverage_frac == 1.0
    unknown = run_flat(replace(series, sentiment=(after,)))
    assert unknown.decisions[0].outcome is Outcome.INTENT
    assert unknown.sentiment_coverage_frac == 0.0


def test_the_breaker_flattens_and_blocks_until_midnight() -> None:
    # The shipped limits with a daily loss so small that one sinking position reaches it above its stop.
    params = replace(PARAMS, max_daily_loss_frac=0.001)
    series = flat_series()
    p = series.forecast.p_long.copy()
    p[-299:-150] = 0.6
    again = Forecast(p, series.forecast.p_short, np.where(p > 0.5, 0.5, -1.0), series.forecast.expected_r_short, "many")
    bars = series.bars
    for column in (bars.open, bars.high, bars.low, bars.close):
        column[-290:-250] -= 0.9
    made = symbol_series(bars, series.instrument, again, params)
    result = replay({"SOL/USDT": made}, params, START_MS, BAR_MS)
    assert result.breaches
    at_ms, breach = result.breaches[0]
    trade = next(t for t in result.run.trades if t.exit_reason == "breaker")
    assert trade.exit_ms == at_ms
    assert breach.change_frac <= Decimal("-0.001")
    midnight = (at_ms // 86_400_000 + 1) * 86_400_000
    blocked = [d for d in result.decisions if at_ms <= d.bar.timestamp() * 1000 + STEP_MS < midnight]
    assert blocked
    assert all(d.reason.startswith("permission: breaker: equity") for d in blocked)
    assert any(t.entry_ms >= midnight for t in result.run.trades)


def test_nothing_to_trade_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no symbol has a 15m bar"):
        replay({"SOL/USDT": flat_series()}, PARAMS, 0, 1)


@pytest.mark.parametrize("visit_every_bar", [False, True])
def test_a_gap_through_a_stop_frees_its_slot_for_the_decision_of_that_moment(visit_every_bar: bool) -> None:
    def crash(column: np.ndarray) -> None:
        column[-250:] -= 6

    def wait(column: np.ndarray) -> None:
        column[:] = 0.1
        column[-251] = 0.6

    calm = flat_series()
    p = calm.forecast.p_long.copy()
    wait(p)
    later = Forecast(p, calm.forecast.p_short, np.where(p > 0.5, 0.5, -1.0), calm.forecast.expected_r_short, "later")
    params = replace(PARAMS, max_positions=1)
    series = {
        "SOL/USDT": flat_series(open=crash, high=crash, low=crash, close=crash),
        "ETH/USDT": symbol_series(replace(calm.bars, symbol="ETH/USDT"), instrument("ETH/USDT"), later, params),
    }
    result = replay(series, params, START_MS, BAR_MS, ReplaySettings(visit_every_bar=visit_every_bar))
    gap_ms = BAR_MS - 250 * STEP_MS
    assert [(t.symbol, t.exit_reason, t.exit_ms) for t in result.run.trades[:1]] == [("SOL/USDT", "stop", gap_ms)]
    assert [t.entry_ms for t in result.run.trades[1:]] == [gap_ms]
