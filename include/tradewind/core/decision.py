"""The stages of a decision and their composition: inputs in, one Decision a symbol out, taken or declined.

::

    CycleInputs ── predict ──► + predictions ── filter_candidates ──► candidates ── size_candidates ──► decisions

Live tasks, the replay and the backtest call these same functions; nothing here reads a clock, a store or a setting. The
same inputs give the same decisions, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .brackets import decimal_of
from .filters import SYMBOL_FILTERS, check_correlation, check_exposure, check_positions, in_order
from .futures_sizing import check_liquidation
from .gates import (
    SYMBOL_GATES,
    Book,
    Signal,
    choose_signal,
    correlated_risk,
    has_own_risk,
    has_room,
    has_slot,
    room_beside,
    room_for,
)
from .inputs import CycleInputs, SymbolInputs
from .orders import intent_id
from .ports import PredictionModel
from .sizing import SIZE, Sizing, cost_frac, reckon_size, size_entry
from .types import Decision, Exposure, Intent, Outcome, RegimeState, Verdict

__all__ = [
    "RANKED_DIGITS",
    "Candidate",
    "CycleInputs",
    "Judgement",
    "SymbolInputs",
    "decide",
    "filter_candidates",
    "judge",
    "predict",
    "size_candidates",
]

NO_CHAMPION = "model: no champion"
RANKED_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Candidate:
    """One symbol after the filters that look at it alone."""

    inputs: SymbolInputs
    signal: Signal | None
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        return self.signal is not None and all(verdict.passed for verdict in self.verdicts)


# ------------------------------------------------------------------------------------------------------------- predict
def predict(
    inputs: CycleInputs,
    model: PredictionModel | None,
    features: Mapping[str, tuple[datetime, Any]],
    model_problem: str = "",
) -> CycleInputs:
    """The inputs with each symbol's prediction filled in, in one batch.

    `features` maps a symbol to (bar, feature row); a symbol without one keeps what its `missing` says. Symbols in a
    chaotic regime are not asked about. Without a champion every symbol misses it by name, or by what is wrong with it.
    """
    if model is None:
        reason = f"model: {model_problem}" if model_problem else NO_CHAMPION
        symbols = tuple(replace(s, prediction=None, missing=(*s.missing, reason)) for s in inputs.symbols)
        return replace(inputs, symbols=symbols, model_trained_until=None, model_problem=model_problem)
    asked: dict[str, RegimeState] = {
        s.symbol: s.regime
        for s in inputs.symbols
        if s.regime is not None and s.regime.family is not None and s.symbol in features and not s.missing
    }
    found = model.predict({symbol: features[symbol] for symbol in asked}, asked) if asked else {}
    symbols = tuple(replace(s, prediction=found.get(s.symbol)) for s in inputs.symbols)
    return replace(inputs, symbols=symbols, model_trained_until=model.trained_until)


# -------------------------------------------------------------------------------------------------------------- filter
def filter_candidates(inputs: CycleInputs) -> list[Candidate]:
    """Every symbol with the verdicts of all filters that look at it alone, in the inputs' order."""
    return [candidate_of(inputs, symbol) for symbol in inputs.symbols]


def candidate_of(inputs: CycleInputs, symbol: SymbolInputs, verdicts: Sequence[Verdict] | None = None) -> Candidate:
    """One symbol's candidate; `verdicts` are those stored by the filter stage, evaluated here when not given."""
    signal = choose_signal(symbol.prediction, inputs.allowed_sides)
    if verdicts is None:
        verdicts = [check(inputs, symbol, signal) for check in SYMBOL_FILTERS]
    return Candidate(symbol, signal, in_order(verdicts))


# ---------------------------------------------------------------------------------------------------------------- size
def size_candidates(inputs: CycleInputs, candidates: Sequence[Candidate]) -> list[Decision]:
    """The decisions, in the candidates' order.

    Candidates are taken by descending expected value (then by symbol, so that ties never depend on an order of
    arrival); each sees the portfolio with the intents accepted before it.
    """
    book = Book.of(inputs.portfolio)
    decisions: dict[str, Decision] = {}
    for candidate in sorted(candidates, key=_by_expected_value):
        decision = _decide_one(inputs, candidate, book)
        if decision.intent is not None:
            book = _book_after(book, decision.intent, candidate.inputs)
        decisions[candidate.inputs.symbol] = decision
    return [decisions[candidate.inputs.symbol] for candidate in candidates]


def decide(inputs: CycleInputs) -> list[Decision]:
    """Filter and size: what the cycle decides for every symbol, with the predictions already in the inputs."""
    return size_candidates(inputs, filter_candidates(inputs))


# --------------------------------------------------------------------------------------------------------------- judge
@dataclass(frozen=True, slots=True)
class Judgement:
    """What `decide` comes to for one symbol, without the words."""

    symbol: SymbolInputs
    outcome: Outcome
    intent: Intent | None


def judge(inputs: CycleInputs) -> list[Judgement]:
    """Outcome and intent of every symbol as `decide` finds them, in the inputs' order.

    The same gates, without the verdicts' words and numbers, and without those that come after a refusal: whoever wants
    to know why asks `decide` about the same inputs.
    """
    book = Book.of(inputs.portfolio)
    found: dict[str, Judgement] = {}
    signalled = [(s, choose_signal(s.prediction, inputs.allowed_sides)) for s in inputs.symbols]
    for symbol, signal in sorted(signalled, key=lambda pair: _order_of(*pair)):
        sizing = _size_where_passed(inputs, symbol, signal, book)
        outcome = _outcome(inputs, bool(symbol.missing_inputs(inputs.bar_ms)), sizing is None)
        intent = None
        if outcome is Outcome.INTENT and signal is not None and sizing is not None:
            intent = _intent(inputs, symbol, signal, sizing)
            book = _book_after(book, intent, symbol)
        found[symbol.symbol] = Judgement(symbol, outcome, intent)
    return [found[symbol.symbol] for symbol in inputs.symbols]


def _size_where_passed(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None, book: Book) -> Sizing | None:
    """The size of an entry that every filter passes; None from the first refusal on."""
    params, numbers, instrument = inputs.params, symbol.numbers, symbol.instrument
    if signal is None or numbers is None or instrument is None or symbol.prediction is None:
        return None
    # The cheapest first: a symbol that is held already is asked nothing more.
    if not has_slot(symbol.symbol, book, params):
        return None
    for _, gate in SYMBOL_GATES:
        if not gate(inputs, symbol, signal):
            return None
    shared, _ = correlated_risk(symbol.symbol, signal.side, book, inputs)
    room = room_beside(shared, symbol.symbol, book, params)
    if not has_own_risk(shared, book, params) or not has_room(room, params):
        return None
    sizing = reckon_size(
        signal.side,
        decimal_of(numbers.close),
        numbers.atr_quote,
        numbers.volume_base,
        params.geometry(symbol.prediction.family),
        room,
        instrument,
        params,
    ).sizing
    if instrument.margin is not None and not check_liquidation(signal.side, sizing, instrument, params).passed:
        return None
    return sizing


def _book_after(book: Book, intent: Intent, symbol: SymbolInputs) -> Book:
    assert symbol.instrument is not None  # nothing is sized without its rules
    exposure = Exposure(intent.symbol, intent.side, intent.notional_quote, intent.risk_quote)
    return book.with_intent(exposure, intent.notional_quote * cost_frac(symbol.instrument))


def _outcome(inputs: CycleInputs, is_incomplete: bool, is_refused: bool) -> Outcome:
    """Too late comes before incomplete, that before declined."""
    if inputs.now > inputs.expires_at:
        return Outcome.EXPIRED
    if is_incomplete:
        return Outcome.UNAVAILABLE
    return Outcome.DECLINED if is_refused else Outcome.INTENT


def _by_expected_value(candidate: Candidate) -> tuple[float, str]:
    return _order_of(candidate.inputs, candidate.signal)


def _order_of(symbol: SymbolInputs, signal: Signal | None) -> tuple[float, str]:
    """By expected value, without its last digits: whether rows were predicted together or alone must not rank them."""
    return (-round(signal.expected_r, RANKED_DIGITS) if signal is not None else float("inf"), symbol.symbol)


def _decide_one(inputs: CycleInputs, candidate: Candidate, book: Book) -> Decision:
    symbol = candidate.inputs
    sizing, portfolio_verdicts = _size_one(inputs, candidate, book)
    verdicts = in_order([*candidate.verdicts, *portfolio_verdicts])
    refusal = next((verdict for verdict in verdicts if not verdict.passed), None)
    missing = symbol.missing_inputs(inputs.bar_ms)
    is_refused = refusal is not None or sizing is None or candidate.signal is None
    outcome = _outcome(inputs, bool(missing), is_refused)
    intent, reason = None, ""
    if outcome is Outcome.EXPIRED:
        late_s = (inputs.now - inputs.expires_at).total_seconds()
        reason = f"decided {late_s:.0f} s after an entry could be sent"
        if missing:
            reason += f"; missing: {', '.join(missing)}"
    elif outcome is Outcome.UNAVAILABLE:
        reason = f"missing: {', '.join(missing)}"
    elif outcome is Outcome.DECLINED:
        reason = f"{refusal.filter}: {refusal.reason}" if refusal is not None else "no signal"
    elif sizing is not None and candidate.signal is not None:
        intent = _intent(inputs, symbol, candidate.signal, sizing)
    return Decision(
        account=inputs.account,
        strategy_version=inputs.params.strategy_version,
        symbol=symbol.symbol,
        bar=inputs.bar,
        outcome=outcome,
        reason=reason,
        verdicts=verdicts,
        prediction=symbol.prediction,
        regime=symbol.regime,
        sentiment=symbol.sentiment,
        intent=intent,
    )


def _size_one(inputs: CycleInputs, candidate: Candidate, book: Book) -> tuple[Sizing | None, list[Verdict]]:
    """The portfolio's verdicts and the size; all of them, also for a candidate that was refused before."""
    symbol, signal, params = candidate.inputs, candidate.signal, inputs.params
    positions = check_positions(symbol.symbol, book, params)
    if signal is None or symbol.numbers is None or symbol.instrument is None or symbol.prediction is None:
        unknown = [Verdict(name, False, "nothing to size: no signal") for name in ("correlation", "exposure", SIZE)]
        return None, [positions, *unknown]
    room = room_for(symbol.symbol, signal.side, book, inputs)
    sizing, verdict = size_entry(
        signal.side,
        decimal_of(symbol.numbers.close),
        symbol.numbers.atr_quote,
        symbol.numbers.volume_base,
        params.geometry(symbol.prediction.family),
        room,
        symbol.instrument,
        params,
    )
    correlation = check_correlation(symbol.symbol, signal.side, book, inputs)
    verdicts = [positions, correlation, check_exposure(room, book, params), verdict]
    if symbol.instrument.margin is not None:
        verdicts.append(check_liquidation(signal.side, sizing, symbol.instrument, params))
    return sizing, verdicts


def _intent(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal, sizing: Sizing) -> Intent:
    assert symbol.numbers is not None
    version = inputs.params.strategy_version
    return Intent(
        intent_id=intent_id(inputs.account, version, symbol.symbol, inputs.bar),
        account=inputs.account,
        strategy_version=version,
        symbol=symbol.symbol,
        side=signal.side,
        bar=inputs.bar,
        entry_limit_price=sizing.entry_limit_price,
        stop_price=sizing.stop_price,
        lots=sizing.lots,
        atr_quote=symbol.numbers.atr_quote,
        risk_quote=sizing.risk_quote,
        notional_quote=sizing.notional_quote,
        expected_r=signal.expected_r,
        expires_at=inputs.expires_at,
    )
