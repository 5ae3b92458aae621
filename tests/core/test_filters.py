from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.trading import (
    BAR,
    NOW,
    PARAMS,
    D,
    cycle,
    instrument,
    numbers,
    portfolio,
    prediction,
    regime,
    sentiment,
    symbol_inputs,
)
from tradewind.core.filters import (
    FILTER_ORDER,
    SYMBOL_FILTERS,
    check_correlation,
    check_exposure,
    check_positions,
    in_order,
)
from tradewind.core.gates import SYMBOL_GATES, Book, choose_signal, room_for
from tradewind.core.inputs import CycleInputs, SymbolInputs, pair_key
from tradewind.core.types import (
    ClosedTrade,
    Exposure,
    Permission,
    Regime,
    Side,
    StoredVerdict,
    TradingMode,
    Verdict,
)


def verdicts(inputs: CycleInputs) -> dict[str, Verdict]:
    symbol = inputs.symbols[0]
    signal = choose_signal(symbol.prediction, inputs.allowed_sides)
    found = {v.filter: v for v in (check(inputs, symbol, signal) for check in SYMBOL_FILTERS)}
    assert {name: gate(inputs, symbol, signal) for name, gate in SYMBOL_GATES} == {
        name: verdict.passed for name, verdict in found.items()
    }
    return found


def refused(symbol: SymbolInputs | None = None, **changes: object) -> set[str]:
    inputs = cycle(symbol or symbol_inputs(), **changes)
    return {name for name, verdict in verdicts(inputs).items() if not verdict.passed}


def test_a_good_candidate_passes_all_of_them() -> None:
    assert refused() == set()


def test_bars_that_were_not_found_fit_are_not_traded_on() -> None:
    judged = StoredVerdict(BAR, NOW, True)
    assert refused(symbol_inputs(quality=judged)) == set()
    bad = replace(judged, passed=False, findings={"zero_volume": {"run_bars": 9}, "incomplete": {"missing_bars": 2}})
    verdict = verdicts(cycle(symbol_inputs(quality=bad)))["completeness"]
    assert not verdict.passed
    assert verdict.reason == "its bars are not fit to trade on: zero_volume, incomplete"
    assert verdict.numbers["zero_volume.run_bars"] == 9
    assert verdict.numbers["incomplete.missing_bars"] == 2
    stale = replace(judged, bar=BAR - timedelta(minutes=15))
    verdict = verdicts(cycle(symbol_inputs(quality=stale)))["completeness"]
    assert not verdict.passed
    assert "last judged at" in verdict.reason
    assert verdict.numbers["judged_at_bar"] == stale.bar.isoformat()


def test_a_verdict_survives_storing_the_inputs() -> None:
    inputs = cycle(
        symbol_inputs(quality=StoredVerdict(BAR, NOW, False, {"jump": {"true_ranges": 31.5, "open_time_ms": 7}}))
    )
    assert CycleInputs.from_json(inputs.to_json()) == inputs


def trade(hours_ago: float, symbol: str = "SOL/USDT", quote: str = "-1") -> ClosedTrade:
    return ClosedTrade(
        f"p{hours_ago}", symbol, BAR + timedelta(minutes=15) - timedelta(hours=hours_ago), -1.0, D(quote)
    )


@pytest.mark.parametrize(
    ("name", "symbol", "changes"),
    [
        ("permission", {}, {"permission": Permission(False, ("the watch is silent",), TradingMode.ACTIVE, NOW)}),
        ("freshness", {}, {"now": BAR + timedelta(minutes=15, seconds=181)}),
        ("freshness", {}, {"now": BAR + timedelta(minutes=14)}),
        ("completeness", {"numbers": numbers(missing_bars=1)}, {}),
        ("completeness", {"instrument": None}, {}),
        ("completeness", {"missing": ("leader BTC/USDT",)}, {}),
        ("model", {}, {"model_trained_until": None}),
        ("model", {}, {"model_trained_until": BAR - timedelta(days=31)}),
        ("model", {}, {"model_trained_until": BAR + timedelta(days=1)}),  # it would have seen the future
        ("signal", {"prediction": prediction(p_long=0.19, p_short=0.1)}, {}),
        ("signal", {"prediction": prediction(p_long=0.45, p_short=0.41)}, {}),
        ("trend", {"numbers": numbers(trend_ema=100.0)}, {}),
        ("volatility", {"numbers": numbers(atr_quote=5.1)}, {}),
        ("volatility", {"numbers": numbers(atr_quote=0.049)}, {}),
        ("volume", {"numbers": numbers(volume_ratio=0.29)}, {}),
        ("sentiment", {"sentiment": sentiment(score=-0.6)}, {}),
        ("cooldown", {}, {"portfolio": portfolio(recent_trades=(trade(0.9),))}),
        ("cooldown", {}, {"portfolio": portfolio(recent_trades=tuple(trade(20 - i, "ETH/USDT") for i in range(5)))}),
        ("expected_value", {"prediction": prediction(expected_r_long=0.0999)}, {}),
        ("expected_value", {"sentiment": sentiment(score=-0.25), "prediction": prediction(expected_r_long=0.19)}, {}),
    ],
)
def test_each_filter_says_no_alone(name: str, symbol: dict[str, object], changes: dict[str, object]) -> None:
    assert refused(symbol_inputs(**symbol), **changes) == {name}


def test_a_chaotic_market_is_refused_by_its_regime_and_nothing_is_missing() -> None:
    chaotic = regime(regime=Regime.CHAOTIC, family=None)
    found = refused(symbol_inputs(regime=chaotic, prediction=None))
    assert "regime" in found
    assert "completeness" not in found
    assert "model" not in found


def test_the_prediction_must_be_of_the_regimes_family() -> None:
    other = regime(regime=Regime.RANGING_QUIET, family=next(f for f in type(prediction().family) if f != "trending"))
    assert refused(symbol_inputs(regime=other)) == {"regime"}


def test_a_trade_of_another_symbol_or_long_ago_cools_nothing() -> None:
    assert refused(portfolio=portfolio(recent_trades=(trade(0.5, "ETH/USDT"), trade(1.0)))) == set()


def test_a_resume_lifts_the_pause_after_losses() -> None:
    losses = portfolio(recent_trades=tuple(trade(20 - i, "ETH/USDT") for i in range(5)))
    assert refused(portfolio=losses, losses_lifted_at=BAR) == set()


@pytest.mark.parametrize(
    "neutral",
    [
        None,
        sentiment(score=-0.9, status="stale"),
        sentiment(score=-0.9, as_of=NOW - timedelta(seconds=7201)),
        sentiment(score=-0.9, as_of=NOW + timedelta(seconds=1)),  # not known yet
    ],
)
def test_news_that_are_old_or_unknown_are_neutral_and_say_so(neutral: object) -> None:
    found = verdicts(cycle(symbol_inputs(sentiment=neutral)))["sentiment"]
    assert found.passed
    assert found.numbers["score"] == 0.0
    assert "neutral" in found.reason


def test_good_news_alone_never_open_anything() -> None:
    weak = symbol_inputs(sentiment=sentiment(score=1.0), prediction=prediction(expected_r_long=0.05, p_long=0.15))
    assert refused(weak) == {"signal", "expected_value"}


def test_the_sides_are_symmetric() -> None:
    assert choose_signal(prediction(), (Side.LONG,)) == choose_signal(prediction(), (Side.LONG, Side.SHORT))
    falling = prediction(p_long=0.2, p_short=0.5, expected_r_long=-0.4, expected_r_short=0.3)
    short = choose_signal(falling, (Side.LONG, Side.SHORT))
    assert short is not None
    assert (short.side, short.probability, short.expected_r) == (Side.SHORT, 0.5, 0.3)
    only_long = choose_signal(falling, (Side.LONG,))
    assert only_long is not None
    assert only_long.side is Side.LONG
    weak = replace(falling, expected_r_short=0.15)
    under = symbol_inputs(prediction=weak, numbers=numbers(trend_ema=105.0), sentiment=sentiment(score=0.59))
    both = {"allowed_sides": (Side.LONG, Side.SHORT)}
    assert refused(under, **both) == {"expected_value"}  # news against a short raise its bar
    assert "sentiment" in refused(replace(under, sentiment=sentiment(score=0.6)), **both)


def test_a_bar_that_is_not_the_cycles_is_missing() -> None:
    late = symbol_inputs(numbers=numbers(bar_ms=numbers().bar_ms - 900_000))
    assert verdicts(cycle(late))["completeness"].reason == "missing: bar"


# ----------------------------------------------------------------------------------------------------------- portfolio
def exposure(symbol: str, notional: str = "1000", risk: str = "100", side: Side = Side.LONG) -> Exposure:
    return Exposure(symbol, side, D(notional), D(risk))


def book(*exposures: Exposure, **changes: object) -> Book:
    return Book.of(portfolio(exposures=exposures, **changes))


def test_four_positions_and_one_a_symbol() -> None:
    assert check_positions("SOL/USDT", book(*(exposure(f"{i}/USDT") for i in "ABC")), PARAMS).passed
    assert not check_positions("SOL/USDT", book(*(exposure(f"{i}/USDT") for i in "ABCD")), PARAMS).passed
    assert not check_positions("SOL/USDT", book(exposure("SOL/USDT")), PARAMS).passed


@pytest.mark.parametrize(
    ("correlation", "risk", "passes"),
    [
        (0.9, "100", False),
        (0.9, "60", True),
        (0.9, "0", True),
        (0.7, "100", True),
        (-0.9, "100", True),
        (None, "100", False),
    ],
)
def test_symbols_that_move_together_share_one_slots_risk(correlation: float | None, risk: str, passes: bool) -> None:
    known = {} if correlation is None else {pair_key("SOL/USDT", "ETH/USDT"): correlation}
    inputs = cycle(correlations=known)
    held = book(exposure("ETH/USDT", risk=risk))
    assert check_correlation("SOL/USDT", Side.LONG, held, inputs).passed is passes
    left = room_for("SOL/USDT", Side.LONG, held, inputs).risk_quote
    shares = correlation is None or correlation > 0.7
    assert left == (D(100) - D(risk) if shares else min(D(100), D(200) - D(risk)))


def test_a_long_and_a_short_that_move_against_each_other_share_too() -> None:
    inputs = cycle(correlations={pair_key("SOL/USDT", "ETH/USDT"): -0.9})
    assert not check_correlation("SOL/USDT", Side.SHORT, book(exposure("ETH/USDT")), inputs).passed


def test_the_room_is_what_the_limits_leave() -> None:
    inputs = cycle(correlations={pair_key("SOL/USDT", "ETH/USDT"): 0.1, pair_key("SOL/USDT", "BNB/USDT"): 0.1})
    held = book(exposure("ETH/USDT", "6500", "120"), exposure("BNB/USDT", "700", "30"), free_quote=D(2800))
    room = room_for("SOL/USDT", Side.LONG, held, inputs)
    assert room.exposure_quote == 800  # 80 % in all
    assert room.risk_quote == 50  # 2 % open risk
    assert room_for("SOL/USDT", Side.LONG, book(), inputs).exposure_quote == 2500  # 25 % a symbol
    assert check_exposure(room, held, PARAMS).passed
    full = book(exposure("ETH/USDT", "8000", "10"))
    assert not check_exposure(room_for("SOL/USDT", Side.LONG, full, inputs), full, PARAMS).passed
    risky = book(exposure("ETH/USDT", "10", "200"))
    assert "risk" in check_exposure(room_for("SOL/USDT", Side.LONG, risky, inputs), risky, PARAMS).reason
    broke = book(free_quote=D(0))
    assert "balance" in check_exposure(room_for("SOL/USDT", Side.LONG, broke, inputs), broke, PARAMS).reason


def test_an_accepted_intent_takes_its_money_and_slot() -> None:
    after = book().with_intent(exposure("ETH/USDT", "2500", "100"), D("2502.5"))
    assert after.free_quote == D("7497.5")
    assert after.open_risk_quote == 100
    assert not check_positions("ETH/USDT", after, PARAMS).passed


def test_every_filter_has_its_place_in_the_order() -> None:
    names = [v.filter for v in verdicts(cycle()).values()]
    assert set(names) < set(FILTER_ORDER)
    shuffled = [Verdict(name, True, "") for name in reversed(FILTER_ORDER)]
    assert [v.filter for v in in_order(shuffled)] == list(FILTER_ORDER)


def test_an_instrument_of_another_symbol_changes_nothing_here() -> None:
    assert refused(symbol_inputs(instrument=instrument(tick_size=D("0.1")))) == set()
