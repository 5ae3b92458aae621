from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trading import (
    BAR,
    D,
    cycle,
    numbers,
    portfolio,
    prediction,
    regime,
    symbol_inputs,
)
from tradewind.core.decision import (
    NO_CHAMPION,
    candidate_of,
    decide,
    filter_candidates,
    predict,
    size_candidates,
)
from tradewind.core.filters import FILTER_ORDER
from tradewind.core.inputs import CycleInputs, pair_key
from tradewind.core.types import Exposure, Outcome, Prediction, Regime, RegimeState, Side


def test_a_good_candidate_becomes_an_intent() -> None:
    (decision,) = decide(cycle())
    assert decision.outcome is Outcome.INTENT
    assert decision.reason == ""
    assert [v.filter for v in decision.verdicts] == list(FILTER_ORDER)
    intent = decision.intent
    assert intent is not None
    assert intent.side is Side.LONG
    assert intent.entry_limit_price == D("100.10")
    assert intent.stop_price == D("97.50")
    assert [lot.target_price for lot in intent.lots] == [D("102.50"), D("105.00")]
    assert intent.notional_quote <= D(2500)
    assert intent.expires_at == BAR + timedelta(minutes=15, seconds=180)


def test_a_refusal_names_the_first_filter_and_stores_all() -> None:
    symbol = symbol_inputs(prediction=prediction(p_long=0.15, expected_r_long=0.0), numbers=numbers(volume_ratio=0.1))
    (decision,) = decide(cycle(symbol))
    assert decision.outcome is Outcome.DECLINED
    assert decision.reason.startswith("signal: ")
    assert {v.filter for v in decision.verdicts if not v.passed} == {"signal", "volume", "expected_value"}
    assert len(decision.verdicts) == len(FILTER_ORDER)
    assert decision.intent is None


def test_a_late_bar_is_expired_whatever_else_is_true() -> None:
    late = BAR + timedelta(minutes=15, seconds=180.5)
    (decision,) = decide(cycle(now=late))
    assert (decision.outcome, decision.intent) == (Outcome.EXPIRED, None)
    assert len(decision.verdicts) == len(FILTER_ORDER)
    (missing,) = decide(cycle(symbol_inputs(numbers=None), now=late))
    assert missing.outcome is Outcome.EXPIRED
    assert "bars" in missing.reason


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"numbers": None}, "bars"),
        ({"regime": None, "prediction": None}, "regime"),
        ({"prediction": None}, "prediction"),
        ({"instrument": None}, "instrument"),
        ({"prediction": None, "missing": ("leader BTC/USDT",)}, "leader BTC/USDT"),
    ],
)
def test_a_missing_input_is_unavailable_by_name(changes: dict[str, Any], name: str) -> None:
    (decision,) = decide(cycle(symbol_inputs(**changes)))
    assert decision.outcome is Outcome.UNAVAILABLE
    assert name in decision.reason
    assert len(decision.verdicts) == len(FILTER_ORDER)


def test_a_chaotic_market_is_declined_not_unavailable() -> None:
    chaotic = regime(regime=Regime.CHAOTIC, family=None)
    (decision,) = decide(cycle(symbol_inputs(regime=chaotic, prediction=None)))
    assert decision.outcome is Outcome.DECLINED
    assert decision.reason == "regime: a chaotic market opens nothing"


def many(*expected: float, correlation: float = 0.0, **changes: Any) -> CycleInputs:
    names = [f"{letter}/USDT" for letter in "ABCDEFGH"[: len(expected)]]
    return cycle(
        *(symbol_inputs(n, prediction=prediction(n, expected_r_long=r)) for n, r in zip(names, expected, strict=True)),
        correlations={pair_key(a, b): correlation for a in names for b in names if a < b},
        **changes,
    )


def test_the_best_are_taken_first_and_the_rest_see_them() -> None:
    decisions = {d.symbol: d for d in decide(many(0.2, 0.5, 0.3, 0.4, 0.25, 0.35))}
    taken = {s for s, d in decisions.items() if d.intent is not None}
    # Two at 25 % of equity risk 0.7 % each; the third gets what is left of 2 %, and nothing is left for others.
    assert taken == {"B/USDT", "D/USDT", "F/USDT"}
    risks = {s: d.intent.risk_quote for s, d in decisions.items() if d.intent is not None}
    assert risks["B/USDT"] == risks["D/USDT"] > risks["F/USDT"]
    assert 199 < sum(risks.values()) <= 200
    assert decisions["C/USDT"].reason.startswith("exposure: only 0.")


def test_rounding_noise_does_not_rank_candidates() -> None:
    """A batch of one row and a batch of all round differently: a live cycle and its replay must take the same ones."""
    alike = decide(many(*[0.5] * 6))
    noisy = decide(many(0.5 - 2e-16, 0.5, 0.5 + 1e-16, 0.5 - 3e-16, 0.5 + 2e-16, 0.5))
    assert {d.outcome for d in alike} == {Outcome.INTENT, Outcome.DECLINED}
    assert [(d.symbol, d.outcome) for d in noisy] == [(d.symbol, d.outcome) for d in alike]


def test_decisions_come_back_in_the_order_of_the_inputs() -> None:
    assert [d.symbol for d in decide(many(0.2, 0.5, 0.3))] == ["A/USDT", "B/USDT", "C/USDT"]


def test_twins_share_one_slot() -> None:
    decisions = decide(many(0.5, 0.4, correlation=0.95, params=replace(cycle().params, max_symbol_exposure_frac=1.0)))
    assert [d.outcome for d in decisions] == [Outcome.INTENT, Outcome.DECLINED]
    assert decisions[1].reason.startswith(("correlation", "exposure", "size"))


def test_an_open_position_of_the_symbol_refuses() -> None:
    held = portfolio(exposures=(Exposure("SOL/USDT", Side.LONG, D(100), D(1)),))
    (decision,) = decide(cycle(portfolio=held))
    assert decision.reason.startswith("positions: ")


@given(
    expected=st.lists(st.sampled_from([0.05, 0.2, 0.3, 0.4, 0.5]), min_size=1, max_size=8),
    correlation=st.sampled_from([0.0, 0.8]),
    equity=st.decimals("50", "100000", places=2),
    risk=st.sampled_from([0.002, 0.01, 0.03]),
)
@settings(deadline=None, max_examples=60)
def test_no_cycle_ever_exceeds_the_portfolios_limits(
    expected: list[float], correlation: float, equity: D, risk: float
) -> None:
    params = replace(cycle().params, risk_frac=risk)
    inputs = many(
        *expected,
        correlation=correlation,
        params=params,
        portfolio=portfolio(equity_quote=equity, free_quote=equity),
    )
    intents = [d.intent for d in decide(inputs) if d.intent is not None]
    assert len(intents) <= params.max_positions
    total_risk = sum((i.risk_quote for i in intents), D(0))
    assert total_risk <= equity * D("0.02")
    if correlation > params.max_correlation:
        assert total_risk <= equity * D(repr(risk))
    assert sum((i.notional_quote for i in intents), D(0)) <= equity * D("0.8")
    assert all(i.notional_quote <= equity * D("0.25") for i in intents)
    assert sum((i.notional_quote * D("1.001") for i in intents), D(0)) <= equity


def test_stored_inputs_decide_the_same_bit_for_bit() -> None:
    inputs = many(0.2, 0.5, 0.3, 0.05, correlation=0.31)
    again = CycleInputs.from_json(json.loads(json.dumps(inputs.to_json())))
    assert decide(again) == decide(inputs)


def test_the_stages_compose_also_from_stored_verdicts() -> None:
    inputs = many(0.2, 0.5, 0.3)
    stored = [candidate_of(inputs, c.inputs, c.verdicts) for c in filter_candidates(inputs)]
    assert size_candidates(inputs, stored) == decide(inputs)


# ------------------------------------------------------------------------------------------------------------- predict
class Oracle:
    version = "v7"
    trained_until = BAR - timedelta(days=1)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def predict(
        self, rows: Mapping[str, tuple[datetime, Any]], regimes: Mapping[str, RegimeState]
    ) -> dict[str, Prediction]:
        self.asked = sorted(rows)
        return {
            symbol: prediction(symbol, model_version=self.version) for symbol in rows if rows[symbol][1] is not None
        }


def test_predictions_are_filled_in_for_whom_they_can_be_made() -> None:
    chaotic = regime("C/USDT", regime=Regime.CHAOTIC, family=None)
    inputs = cycle(
        symbol_inputs("A/USDT", prediction=None),
        symbol_inputs("B/USDT", prediction=None, missing=("features",)),
        symbol_inputs("C/USDT", prediction=None, regime=chaotic),
        symbol_inputs("D/USDT", prediction=None),
    )
    oracle = Oracle()
    after = predict(inputs, oracle, {s: (BAR, [1.0]) for s in ("A/USDT", "B/USDT", "C/USDT")})
    assert oracle.asked == ["A/USDT"]
    assert [s.prediction is not None for s in after.symbols] == [True, False, False, False]
    assert after.model_trained_until == oracle.trained_until
    outcomes = {d.symbol: d for d in decide(after)}
    assert outcomes["A/USDT"].outcome is Outcome.INTENT
    assert "features" in outcomes["B/USDT"].reason
    assert outcomes["C/USDT"].outcome is Outcome.DECLINED
    assert outcomes["D/USDT"].reason == "missing: prediction"


def test_without_a_champion_nothing_trades_and_it_says_so() -> None:
    after = predict(cycle(), None, {})
    (decision,) = decide(after)
    assert decision.outcome is Outcome.UNAVAILABLE
    assert NO_CHAMPION in decision.reason
