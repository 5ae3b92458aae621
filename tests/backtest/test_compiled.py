"""The compiled loop against the replay that the engine and the exact rules live through: trade by trade."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tradewind
from tests.backtest.test_replay import BAR_MS, EDGES, PARAMS, START_MS, forecast
from tests.support.trading import instrument, random_bars
from tradewind.backtest.booking import matching_settings
from tradewind.backtest.compiled import loop
from tradewind.backtest.compiled.columns import is_served
from tradewind.backtest.compiled.run import CompiledRun
from tradewind.backtest.replay import ReplayResult, ReplaySettings, replay
from tradewind.backtest.signals import SymbolSeries, symbol_series
from tradewind.core.candles import take
from tradewind.core.params import StrategyParams
from tradewind.core.types import Bars, BracketSupport, SentimentState

QUICK = ReplaySettings(detailed=False)


def markets(
    seed: int, volatility: float = 0.006, rate: float = 0.05, gaps: tuple[int, ...] = (), thin: float = 1.0
) -> dict[str, SymbolSeries]:
    """Three random markets with random forecasts, one of them on an exchange that sizes legs from the proceeds."""
    made = {}
    for number, symbol in enumerate(EDGES):
        bars = random_bars(symbol, 4000, seed=seed + number, volatility=volatility)
        bars.volume[:] /= thin
        answers = forecast(bars, seed + 50 + number, rate)
        keep = np.ones(4000, dtype=bool)
        # A gap that all share is one of time; one that a single market has is a missing bar.
        keep[[gap for place, gap in enumerate(gaps) if place % 4 in (number, 3)]] = False
        columns = [getattr(answers, n)[keep] for n in ("p_long", "p_short", "expected_r_long", "expected_r_short")]
        market = instrument(symbol, bracket=BracketSupport.OPOCO if number % 2 else BracketSupport.OTOCO)
        made[symbol] = symbol_series(take(bars, keep), market, type(answers)(*columns, "chance"), PARAMS, quality=None)
    return made


def compiled(series: dict[str, SymbolSeries], params: StrategyParams, **changes: Any) -> CompiledRun:
    made = replace(QUICK, **changes)
    run = CompiledRun(series, params, START_MS, BAR_MS, made, matching_settings(params))
    run.go()
    return run


def assert_same(quick: CompiledRun | ReplayResult, exact: ReplayResult) -> None:
    """The same trades (floats to the last digits), equity and breaches."""
    trades = quick.trades if isinstance(quick, CompiledRun) else quick.run.trades
    curve = quick.curve() if isinstance(quick, CompiledRun) else quick.run.equity
    for ours, theirs in zip(map(asdict, trades), map(asdict, exact.run.trades), strict=True):
        floats = {name for name, value in theirs.items() if isinstance(value, float)}
        assert {n: v for n, v in ours.items() if n not in floats} == {
            n: v for n, v in theirs.items() if n not in floats
        }
        assert [ours[n] for n in sorted(floats)] == pytest.approx([theirs[n] for n in sorted(floats)], rel=1e-10)
    assert [e.at_ms for e in curve] == [e.at_ms for e in exact.run.equity]
    np.testing.assert_allclose([e.equity_quote for e in curve], [e.equity_quote for e in exact.run.equity], rtol=1e-11)
    # What a breach is told against was a float between two exact stretches.
    assert [(at, b.kind, b.limit_frac) for at, b in quick.breaches] == [
        (at, b.kind, b.limit_frac) for at, b in exact.breaches
    ]
    assert [float(b.change_frac) for _, b in quick.breaches] == pytest.approx(
        [float(b.change_frac) for _, b in exact.breaches], rel=1e-10
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    volatility=st.sampled_from([0.002, 0.006, 0.015]),
    rate=st.sampled_from([0.01, 0.05, 0.3]),
    gaps=st.lists(st.integers(2600, 3998), max_size=8).map(tuple),
    thin=st.sampled_from([1.0, 40.0, 2000.0]),
    changes=st.fixed_dictionaries(
        {},
        optional={
            "max_daily_loss_frac": st.just(0.006),
            "failed_stop_r": st.sampled_from([0.3, 1.0]),
            "partial_frac": st.sampled_from([0.0, 0.3, 1.0]),
            "break_even_r": st.just(0.4),
            "horizon_bars": st.sampled_from([8, 30]),
            "cooldown_bars": st.sampled_from([0, 20]),
            "max_consecutive_losses": st.sampled_from([2, 3]),
            "max_correlation": st.sampled_from([-1.0, 0.0, 0.02]),
            "max_positions": st.sampled_from([1, 2]),
            "max_bar_volume_frac": st.sampled_from([0.3, 5.0]),
            "min_stop_move_atr": st.just(0.01),
            "max_open_risk_frac": st.sampled_from([0.008, 0.015]),
        },
    ),
    capital=st.sampled_from([Decimal(150), Decimal(10_000), Decimal("1234567.89")]),
)
@example(1, 0.006, 0.05, (), 1.0, {}, Decimal(10_000))
def test_it_says_what_the_exact_replay_says(
    seed: int, volatility: float, rate: float, gaps: tuple[int, ...], thin: float, changes: dict[str, Any],
    capital: Decimal,
) -> None:  # fmt: skip
    params = replace(PARAMS, **{"max_missing_bars": 1000, **changes})
    series = markets(seed, volatility, rate, gaps, thin)
    exact = replay(series, params, START_MS, BAR_MS, ReplaySettings(capital_quote=capital))
    assert_same(compiled(series, params, capital_quote=capital), exact)


def test_it_counts_as_finely_as_each_exchange_needs() -> None:
    """okx's BTC-USDT (a tick times a lot is 1e-9), a lot of 1 with ten decimals of price, and Binance's usual rules."""
    params = replace(PARAMS, fee_frac=0.0015)
    for grids in (("0.1", "0.00000001"), ("0.0000000001", "1")), (("0.00001", "0.000001"), ("0.01", "0.001")):
        series = markets(7)
        for symbol, (tick, step) in zip(series, (*grids, ("0.01", "0.001")), strict=True):
            own, prices = series[symbol], 1e-6 if step == "1" else 1.0
            bars = own.bars if prices == 1.0 else scaled(own.bars, prices)
            rules = instrument(
                symbol, tick_size=Decimal(tick), step_size=Decimal(step), min_quantity=Decimal(step),
                max_quantity=Decimal(9_999_999_999), taker_fee_frac=Decimal("0.0015"), bracket=own.instrument.bracket,
            )  # fmt: skip
            answers = own.forecast
            series[symbol] = symbol_series(bars, rules, answers, params, quality=None)
        assert is_served(series, params, QUICK, matching_settings(PARAMS))
        run = compiled(series, params)
        assert run.decimals in (10, 11)
        assert len({trade.symbol for trade in run.trades}) == 3
        assert_same(run, replay(series, params, START_MS, BAR_MS))


def scaled(bars: Bars, factor: float) -> Bars:
    """The same market in prices of another size, its turnover unchanged."""
    prices = (column * factor for column in (bars.open, bars.high, bars.low, bars.close))
    return Bars(bars.symbol, bars.timeframe, bars.open_time_ms, *prices, bars.volume / factor)


def test_each_market_may_have_its_own_fee() -> None:
    params, series = replace(PARAMS, fee_frac=0.0035), markets(3)
    for symbol, fee in zip(list(series), ("0", "0.001", "0.0035"), strict=True):
        rules = replace(series[symbol].instrument, taker_fee_frac=Decimal(fee), maker_fee_frac=Decimal(fee) / 2)
        series[symbol] = replace(series[symbol], instrument=rules)
    assert is_served(series, params, QUICK, matching_settings(PARAMS))
    run = compiled(series, params)
    assert len({trade.symbol for trade in run.trades}) == 3
    assert_same(run, replay(series, params, START_MS, BAR_MS))


def test_a_market_dearer_than_judged_opens_nothing() -> None:
    series = markets(3)
    dear = next(iter(series))
    rules = replace(series[dear].instrument, taker_fee_frac=Decimal("0.002"))
    series[dear] = replace(series[dear], instrument=rules)
    run = compiled(series, PARAMS)
    assert {trade.symbol for trade in run.trades} == set(series) - {dear}
    assert_same(run, replay(series, PARAMS, START_MS, BAR_MS))


def test_what_is_clean_is_never_handed_back() -> None:
    run = compiled(markets(3), PARAMS)
    assert len(run.trades) > 30
    assert {"stop", "target"} <= {trade.exit_reason for trade in run.trades}
    assert any(len(trade.stop_path) > 1 for trade in run.trades)
    assert sum(run.handed_back.values()) <= 2
    assert run.visited_exactly < run.visited / 4


@pytest.mark.parametrize(
    ("reason", "changes", "thin"),
    [
        ("limit_near", {"max_daily_loss_frac": 0.004}, 1.0),
        ("part_filled", {"max_bar_volume_frac": 50.0}, 3000.0),
        ("stop_failed", {"failed_stop_r": 0.2}, 1.0),
    ],
)
def test_what_it_does_not_know_is_handed_back(reason: str, changes: dict[str, Any], thin: float) -> None:
    params, series = replace(PARAMS, **changes), markets(5, thin=thin)
    run = compiled(series, params)
    assert run.handed_back[reason] > 0
    assert_same(run, replay(series, params, START_MS, BAR_MS))


def test_a_missing_bar_is_handed_back_and_a_gap_of_time_is_not() -> None:
    missing = compiled(markets(8, rate=0.3, gaps=tuple(range(2900, 3900, 60))), replace(PARAMS, max_missing_bars=1000))
    assert missing.handed_back["gap"] > 0
    (symbol, own), *_ = markets(8, rate=0.3).items()
    keep = np.ones(4000, dtype=bool)
    keep[[3000, 3001, 3400]] = False
    f = own.forecast
    columns = [c[keep] for c in (f.p_long, f.p_short, f.expected_r_long, f.expected_r_short)]
    alone = {
        symbol: symbol_series(take(own.bars, keep), own.instrument, type(f)(*columns, "chance"), PARAMS, quality=None)
    }
    params = replace(PARAMS, max_missing_bars=1000)
    run = compiled(alone, params)
    assert run.handed_back["gap"] == 0
    assert_same(run, replay(alone, params, START_MS, BAR_MS))


def test_gates_that_look_at_more_than_columns_are_asked() -> None:
    series = {}
    for symbol, own in markets(11, rate=0.3).items():
        stale = tuple(
            SentimentState(symbol, own.regime_at(row).bar, -0.9 if row % 500 < 200 else 0.3, 5.0, "ok", "lexicon")  # type: ignore[union-attr]
            for row in range(2600, 4000, 4)
        )
        series[symbol] = symbol_series(own.bars, own.instrument, own.forecast, PARAMS, stale)
    assert_same(compiled(series, PARAMS), replay(series, PARAMS, START_MS, BAR_MS))
    assert len(compiled(series, PARAMS).trades) < len(compiled(markets(11, rate=0.3), PARAMS).trades)


def test_replay_takes_it_where_only_trades_are_wanted_and_tells_the_rest_when_asked() -> None:
    series = markets(3)
    quick, exact = replay(series, PARAMS, START_MS, BAR_MS, QUICK), replay(series, PARAMS, START_MS, BAR_MS)
    assert "compiled" in quick.run.notes[0]
    assert_same(quick, exact)
    assert (quick.orders, quick.fills, quick.decisions) == (exact.orders, exact.fills, exact.decisions)
    assert list(quick.run.funnel) == list(exact.run.funnel)
    assert quick.bars_seen == exact.bars_seen


def test_markets_of_which_models_say_the_same_are_ranked_as_live_ranks_them() -> None:
    params, series = replace(PARAMS, max_positions=1), {}
    for number, (symbol, own) in enumerate(markets(3, rate=0.3).items()):
        f = own.forecast
        expected = np.where(f.expected_r_long > 0.1, 0.4 + number * 1e-12, f.expected_r_long)
        series[symbol] = replace(own, forecast=replace(f, expected_r_long=expected))
    assert_same(compiled(series, params), replay(series, params, START_MS, BAR_MS))


def test_what_is_not_spot_alone_is_not_served() -> None:
    series, matching = markets(3), matching_settings(PARAMS)
    assert is_served(series, PARAMS, QUICK, matching)
    assert not is_served(series, replace(PARAMS, max_positions_per_symbol=2), QUICK, matching)
    assert not is_served(series, PARAMS, replace(QUICK, base_held={"A": Decimal(1)}), matching)
    for unlike in ({"target_rests": False}, {"bracket": BracketSupport.EMULATED}, {"taker_fee_frac": Decimal("1e-7")}):
        other = {s: replace(own, instrument=replace(own.instrument, **unlike)) for s, own in series.items()}
        assert not is_served(other, PARAMS, QUICK, matching)


def test_the_same_loop_uncompiled_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    series = markets(3)
    expected = compiled(series, PARAMS)
    monkeypatch.setattr("tradewind.backtest.compiled.run.compiled_run", lambda: loop.run)
    plain = compiled(series, PARAMS)
    assert list(plain.trades) == list(expected.trades)
    assert plain.handed_back == expected.handed_back == Counter(plain.handed_back)


def test_a_changed_rule_of_another_file_is_compiled_anew(tmp_path: Path) -> None:
    """Numba's own cache looks only at the file of the function that is called: it went on with the rule of before."""
    library = Path(tradewind.__file__).parent
    shutil.copytree(library, tmp_path / "tradewind", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import numpy as np\nfrom tradewind.backtest.skipping import first_event\n"
        "quiet, closes = np.full(5, 100), np.array([100.0, 100.0, 100.0, 103.0, 104.0])\n"
        "print(first_event(0, 5, quiet, quiet, closes, 50, 200, 1.0, 100.0, 98.0, 98.0, 100.0, 1.0, 0, 96, 1.0, 2.5,"
        " 0.25, 0.001, 0.0, 0.01))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def first_event() -> int:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=300
        )
        return int(done.stdout)

    assert first_event() == 3  # at the close that is +1R the stop moves
    rule = tmp_path / "tradewind" / "core" / "position_kernels.py"
    text = rule.read_text()
    changed = text.replace("< break_even_r * r", "< 100 * break_even_r * r")
    assert changed != text
    rule.write_text(changed)
    assert first_event() == 5  # now it never does
