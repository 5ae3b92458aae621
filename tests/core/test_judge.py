"""`judge`, which the replay asks, and `decide`, which live stores, never come to different ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import combinations

from hypothesis import event, given, settings
from hypothesis import strategies as st

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
from tradewind.core.decision import decide, judge
from tradewind.core.futures import make_brackets
from tradewind.core.inputs import CycleInputs, SymbolInputs, pair_key
from tradewind.core.types import (
    ClosedTrade,
    Exposure,
    MarginRules,
    Permission,
    Regime,
    RegimeFamily,
    Side,
    StoredVerdict,
    TradingMode,
)

NAMES = ("A/USDT", "B/USDT", "C/USDT", "D/USDT")
BRACKETS = make_brackets([("0", "0.01", 50), ("50000", "0.02", 25)])
# True once in five draws.
seldom = st.sampled_from([False, False, False, False, True])


@st.composite
def symbols(draw: st.DrawFn, name: str, on_futures: bool) -> SymbolInputs:
    """A symbol that passes every filter, with a few of its inputs bent: at a limit, beyond it, or missing."""
    made = symbol_inputs(
        name,
        numbers=numbers(
            close=draw(st.sampled_from([95.0, 94.99])) if draw(seldom) else 100.0,
            volume_base=draw(st.sampled_from([0.0, 50.0, 50_000.0])) if draw(seldom) else 50_000.0,
            volume_ratio=draw(st.sampled_from([0.1, 0.5, 0.8, 1.0])) if draw(seldom) else 1.1,
            atr_quote=draw(st.sampled_from([0.01, 0.3, 2.0, 6.0])) if draw(seldom) else 1.0,
            missing_bars=draw(st.sampled_from([1, 3, 50])) if draw(seldom) else 0,
        ),
        prediction=prediction(
            name,
            p_long=draw(st.sampled_from([0.38, 0.3, 0.2])) if draw(seldom) else 0.5,
            p_short=draw(st.sampled_from([0.45, 0.6])) if draw(seldom) else 0.2,
            expected_r_long=draw(st.sampled_from([0.3, 0.3, 0.3, 0.5, 0.15, 0.05])),
            expected_r_short=draw(st.sampled_from([-0.4, -0.4, 0.3, 0.4])),
        ),
        instrument=instrument(
            name, margin=MarginRules(draw(st.sampled_from([1, 3, 30, 50])), BRACKETS) if on_futures else None
        ),
        sentiment=sentiment(name, draw(st.sampled_from([0.0, 0.0, -0.3, -0.6, -1.0, 0.8]))),
    )
    if draw(seldom):
        made = replace(
            made,
            **draw(
                st.sampled_from(
                    [
                        {"numbers": None},
                        {"regime": None, "prediction": None},
                        {"prediction": None},
                        {"instrument": None},
                        {"missing": ("leader BTC/USDT",)},
                        {"regime": regime(name, regime=Regime.CHAOTIC, family=None), "prediction": None},
                        {"regime": regime(name, regime=Regime.RANGING_QUIET, family=RegimeFamily.RANGING)},
                        {"sentiment": None},
                        {"quality": StoredVerdict(BAR, BAR, False, {"stale": {}})},
                        {"quality": StoredVerdict(BAR - timedelta(minutes=15), BAR, True, {})},
                        {"quality": StoredVerdict(BAR, BAR, True, {})},
                    ]
                )
            ),
        )
    return made


@st.composite
def cycles(draw: st.DrawFn) -> CycleInputs:
    on_futures = draw(st.booleans())
    names = NAMES[: draw(st.integers(1, 4))]
    equity = draw(st.sampled_from([D(60), D(900), D(10_000), D(1_000_000)]))
    held = tuple(
        Exposure(
            name,
            draw(st.sampled_from(list(Side))),
            equity * draw(st.sampled_from([D("0.1"), D("0.5")])),
            equity * D("0.004"),
        )
        for name in draw(st.lists(st.sampled_from([*NAMES, "X/USDT", "Y/USDT"]), max_size=3, unique=True))
    )
    lost = [
        ClosedTrade(f"p{minutes}", draw(st.sampled_from(names)), BAR - timedelta(minutes=minutes), -1.0, D(-5))
        for minutes in draw(st.lists(st.sampled_from([20, 200, 300, 3000]), max_size=4))
    ]
    return cycle(
        *(draw(symbols(name, on_futures)) for name in names),
        now=NOW + timedelta(seconds=draw(st.sampled_from([0] * 12 + [171, 173, -30]))),
        permission=Permission(draw(st.integers(0, 14)) > 0, ("halted",), TradingMode.ACTIVE, NOW),
        portfolio=portfolio(
            equity_quote=equity,
            free_quote=equity * draw(st.sampled_from([D(1), D("0.3"), D("0.001")])),
            exposures=held,
            recent_trades=tuple(sorted(lost, key=lambda trade: trade.closed_at)),
        ),
        correlations={
            pair_key(a, b): draw(st.sampled_from([0.0, 0.9, -0.9]))
            for a, b in combinations((*names, "X/USDT"), 2)
            if not draw(seldom)
        },
        model_trained_until=draw(st.sampled_from([BAR - timedelta(days=3)] * 12 + [BAR - timedelta(days=400), None])),
        allowed_sides=(Side.LONG, Side.SHORT) if on_futures else (Side.LONG,),
        params=replace(PARAMS, risk_frac=draw(st.sampled_from([0.002, 0.01]))),
    )


@given(inputs=cycles())
@settings(deadline=None, max_examples=400)
def test_the_replay_decides_what_live_decides(inputs: CycleInputs) -> None:
    told, known = decide(inputs), judge(inputs)
    for decision in told:
        event(decision.outcome.value)
        event(decision.reason.partition(":")[0])
    assert [j.symbol.symbol for j in known] == [d.symbol for d in told]
    assert [(j.outcome, j.intent) for j in known] == [(d.outcome, d.intent) for d in told]


@given(
    expected=st.lists(st.sampled_from([0.05, 0.2, 0.3, 0.4, 0.5]), min_size=2, max_size=6),
    correlation=st.sampled_from([0.0, 0.8, None]),
    equity=st.sampled_from([D(60), D(900), D(10_000)]),
    risk=st.sampled_from([0.002, 0.01, 0.03]),
)
@settings(deadline=None, max_examples=150)
def test_the_next_best_sees_what_the_best_took(
    expected: list[float], correlation: float | None, equity: D, risk: float
) -> None:
    names = [f"{letter}/USDT" for letter in "ABCDEF"[: len(expected)]]
    inputs = cycle(
        *(symbol_inputs(n, prediction=prediction(n, expected_r_long=r)) for n, r in zip(names, expected, strict=True)),
        correlations={pair_key(a, b): correlation for a, b in combinations(names, 2) if correlation is not None},
        portfolio=portfolio(equity_quote=equity, free_quote=equity),
        params=replace(PARAMS, risk_frac=risk),
    )
    assert [(j.outcome, j.intent) for j in judge(inputs)] == [(d.outcome, d.intent) for d in decide(inputs)]
