"""From the newest closed bar to brackets at the exchange: the six stages of `run_trade_cycle`.

The life of an intent, as the rows show it::

    decisions row ──► position OPENING + orders PLANNED ──► orders SENT ──► entry FILLED, legs WORKING ──► position OPEN
      (INTENT)             │   (one commit each)               │
                           ├─► refused or expired: EXPIRED     ├─► refused by the exchange: REJECTED ─► position CLOSED
                           └─► found on a second run: EXPIRED  └─► no answer: UNKNOWN ─► asked for by id, never resent

An entry is sent at most once: whoever finds order rows of an intent sends nothing. The states of an order and its
allowed moves are drawn in `core/orders.py`.

Each stage inserts its own rows, keyed by the bar, and returns what it finds when it runs again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from tradewind.core.brackets import plan_entry
from tradewind.core.decision import Candidate, candidate_of, filter_candidates, predict, size_candidates
from tradewind.core.inputs import CycleInputs
from tradewind.core.ports import BracketLegs, Ports, StoredPrediction
from tradewind.core.timeframes import from_ms, last_closed_open_ms, timeframe_ms, to_ms
from tradewind.core.types import (
    BracketSupport,
    Decision,
    Instrument,
    Intent,
    Minimums,
    Order,
    OrderRole,
    OrderState,
    Outcome,
    Position,
    PositionStatus,
    Prediction,
    RegimeFamily,
)
from tradewind.errors import OutcomeUnknown, ProtectionPending, StopError
from tradewind.fingerprint import code_sha256
from tradewind.jobs.leaving import again
from tradewind.jobs.orders import submit, withdraw
from tradewind.jobs.permission import entry_refusal, permission_now
from tradewind.jobs.protection import converge_protection
from tradewind.jobs.rules import version_rules
from tradewind.jobs.settling import Situation, price_of, refresh
from tradewind.jobs.tending import follow_bar
from tradewind.jobs.trading_inputs import champion, explained, read_inputs

ZERO = Decimal(0)


# ------------------------------------------------------------------------------------------------------------- decide
def check_trading_allowed(ports: Ports, bar: datetime | None = None) -> dict[str, Any]:
    """The cycle's bar (the given one, else the newest closed by the market's clock) and whether entries are allowed.

    A verdict, never an exception: a bar on which nothing may be traded is decided and stored as well.
    """
    if bar is None:
        bar = from_ms(last_closed_open_ms(to_ms(ports.clock.now()), ports.params.decision_timeframe))
    permission = permission_now(ports)
    return {
        "bar": bar.isoformat(),
        "allowed": permission.allowed,
        "reasons": list(permission.reasons),
        "mode": permission.mode.value,
    }


def predict_signals(ports: Ports, bar: datetime) -> dict[str, Any]:
    """Let positions follow the closed bar, read every input of it, predict for all symbols in one batch, store both."""
    store = ports.trading_store
    inputs = store.cycle_inputs(bar)
    untended: list[str] = []
    if inputs is None:
        untended = follow_bar(ports)
        read = read_inputs(ports, bar)
        store.remember_strategy(ports.params)
        model, problem = champion(ports)
        predicted = predict(read.inputs, model, read.features, problem)
        store.insert_predictions(
            bar, [_stored_prediction(predicted, number, read.features) for number in range(len(predicted.symbols))]
        )
        for symbol in predicted.symbols:
            signal = "none" if symbol.prediction is None else _signal(symbol.prediction)
            regime = "none" if symbol.regime is None else symbol.regime.regime.value
            ports.metrics.count("tradewind.predictions", symbol=symbol.symbol, regime=regime, signal=signal)
        # Last, because its presence means that the stage is done.
        store.insert_cycle_inputs(predicted)
        inputs = _inputs(ports, bar)
    available = [s.symbol for s in inputs.symbols if s.prediction is not None]
    return {"bar": bar.isoformat(), "predicted": len(available), "symbols": len(inputs.symbols), "untended": untended}


def _signal(prediction: Prediction) -> str:
    """The class that the model holds for the likeliest."""
    chances = {"long": prediction.p_long, "short": prediction.p_short, "neither": prediction.p_neither}
    return max(chances, key=lambda name: chances[name])


def _stored_prediction(inputs: CycleInputs, number: int, features: Any) -> StoredPrediction:
    symbol = inputs.symbols[number]
    row = features[symbol.symbol][1] if symbol.symbol in features else None
    missing = symbol.missing_inputs(inputs.bar_ms)
    chaotic = "the regime asks no model" if symbol.regime is not None and symbol.regime.family is None else ""
    reason = "" if symbol.prediction is not None else (chaotic or f"missing: {', '.join(missing)}")
    return StoredPrediction(symbol.symbol, symbol.prediction, reason, explained(symbol, row), code_sha256())


def _inputs(ports: Ports, bar: datetime) -> CycleInputs:
    inputs = ports.trading_store.cycle_inputs(bar)
    if inputs is None:
        raise StopError(f"predict_signals has stored nothing for {bar.isoformat()}: run that stage first")
    return inputs


def filter_signals(ports: Ports, bar: datetime) -> dict[str, Any]:
    """Evaluate every filter that looks at one symbol alone, and store all verdicts."""
    store = ports.trading_store
    verdicts = store.verdicts(bar)
    if not verdicts:
        candidates = filter_candidates(_inputs(ports, bar))
        store.insert_verdicts(bar, {candidate.inputs.symbol: candidate.verdicts for candidate in candidates})
        verdicts = store.verdicts(bar)
    passed = [symbol for symbol, found in verdicts.items() if all(verdict.passed for verdict in found)]
    return {"bar": bar.isoformat(), "symbols": len(verdicts), "passed": passed}


def size_positions(ports: Ports, bar: datetime) -> list[str]:
    """See each candidate against the portfolio, size it, store one decision a symbol; returns the intents' ids."""
    store = ports.trading_store
    decisions = store.decisions(bar)
    if not decisions:
        decided = size_candidates(inputs := _inputs(ports, bar), _candidates(ports, inputs))
        store.insert_decisions(decided)
        decisions = store.decisions(bar)
        for decision in decisions:
            ports.metrics.count("tradewind.decisions", outcome=decision.outcome.value)
    return [decision.intent.intent_id for decision in decisions if decision.intent is not None]


def _candidates(ports: Ports, inputs: CycleInputs) -> list[Candidate]:
    verdicts = ports.trading_store.verdicts(inputs.bar)
    missing = [symbol.symbol for symbol in inputs.symbols if symbol.symbol not in verdicts]
    if missing:
        raise StopError(f"filter_signals has stored nothing for {', '.join(missing)}: run that stage first")
    return [candidate_of(inputs, symbol, verdicts[symbol.symbol]) for symbol in inputs.symbols]


# --------------------------------------------------------------------------------------------------------------- send
def place_brackets(ports: Ports, intent_id: str) -> dict[str, Any]:
    """Send one intent's bracket lists, once, and see its fills protected. Returns the outcome in words.

    Latch, heartbeat, reconciliation and freshness are read again before each list. Whatever happens is in the rows: the
    outcome "unknown" is asked for by `manage_positions` and turns the cycle red, it is no exception here.
    """
    store = ports.trading_store
    with store.position_lock(intent_id) as held:
        if not held:
            return {"intent_id": intent_id, "outcome": "busy", "reason": "another task is at work on it"}
        intent = store.intent(intent_id)
        instrument = _instrument(ports, intent.symbol)
        book = price_of(ports, intent.symbol)  # what has no price is not entered
        if store.orders_of(intent_id):
            reason = "order rows were there already: nothing was sent"
        else:
            reason = _enter(ports, intent, store.decision_of(intent_id), instrument)
        # Protection needs no price: where it is gone since, the one of before will do.
        book = ports.exchange.book_tops([intent.symbol]).get(intent.symbol, book)
        situation = refresh(ports, intent_id, instrument, book)
        if situation.position.quantity > 0 and not situation.is_over:
            try:
                situation = converge_protection(ports, situation)
            except ProtectionPending as pending:
                reason, situation = str(pending), again(ports, situation)
    outcome = _outcome(situation)
    ports.metrics.count("tradewind.entries", outcome=outcome)
    return {"intent_id": intent_id, "outcome": outcome, "reason": reason, "position": situation.position.status.value}


def _instrument(ports: Ports, symbol: str) -> Instrument:
    found = ports.exchange.instruments([symbol])
    if symbol not in found:
        raise StopError(f"{symbol} is not listed any more: its intent cannot be sent")
    return found[symbol]


def _enter(ports: Ports, intent: Intent, decision: Decision, instrument: Instrument) -> str:
    """Commit position and orders, then send list after list; returns why it stopped, or ""."""
    store, now = ports.trading_store, ports.clock.now()
    if instrument.bracket is BracketSupport.OPOCO and (store.baseline() or {}).get(instrument.base, ZERO) > 0:
        # OPOCO would take the commission from what was held before, and let the legs sell it for that.
        instrument = replace(instrument, bracket=BracketSupport.OTOCO)
    refusal = entry_refusal(ports, intent, instrument)
    lists = plan_entry(intent, instrument, now)
    native = instrument.bracket is not BracketSupport.EMULATED
    store.open_position(_new_position(intent, decision, instrument), version_rules(ports, intent.strategy_version))
    # Without native brackets only the entry is an order yet; its fill is protected by `converge_protection`.
    planned = [order for legs in lists for order in (_orders(legs) if native else [legs.entry])]
    rows = {row.client_order_id: row for row in store.plan_orders(planned)}
    for number, legs in enumerate(lists):
        refusal = refusal or (entry_refusal(ports, intent, instrument) if number else None)
        mine = [rows[order.client_order_id] for order in (_orders(legs) if native else [legs.entry])]
        if refusal is not None:
            withdraw(ports, mine, OrderState.EXPIRED, refusal, ports.clock.now())
            continue
        sent = submit(ports, mine, lambda legs=legs: _send(ports, legs, instrument, native))  # type: ignore[misc]
        if sent[0].state is not OrderState.FILLED and len(lists) > 1:
            # A lot that was not filled, refused or whose fate is unknown: the next one is not risked.
            refusal = f"the first lot is {sent[0].state.value}"
    return refusal or ""


def _orders(legs: BracketLegs) -> list[Order]:
    return [legs.entry, legs.stop, legs.target]


def _send(ports: Ports, legs: BracketLegs, instrument: Instrument, native: bool) -> list[Any]:
    if native:
        return ports.exchange.send_bracket(legs, instrument)
    return [ports.exchange.send_order(legs.entry, instrument)]


def _new_position(intent: Intent, decision: Decision, instrument: Instrument) -> Position:
    family = decision.prediction.family if decision.prediction is not None else RegimeFamily.TRENDING
    return Position(
        position_id=intent.intent_id,
        account=intent.account,
        strategy_version=intent.strategy_version,
        symbol=intent.symbol,
        side=intent.side,
        family=family,
        status=PositionStatus.OPENING,
        bar=intent.bar,
        opened_at=None,
        closed_at=None,
        quantity=ZERO,
        entry_quantity=ZERO,
        entry_price=None,
        initial_stop_price=intent.stop_price,
        stop_price=intent.stop_price,
        target_price=intent.lots[-1].target_price,
        atr_quote=intent.atr_quote,
        best_close=None,
        managed_bar=None,
        realised_quote=ZERO,
        fees_quote=ZERO,
        minimums=Minimums.of(instrument),
    )


def _outcome(situation: Situation) -> str:
    """How the entry stands: unknown, filled, partly filled, or the state in which it ended."""
    entries = [order.state for order in situation.orders if order.role is OrderRole.ENTRY]
    if any(state in (OrderState.UNKNOWN, OrderState.SENT) for state in entries):
        return OrderState.UNKNOWN.value
    if all(state is OrderState.FILLED for state in entries):
        return OrderState.FILLED.value
    if any(state is OrderState.FILLED for state in entries):
        return OrderState.PARTIAL.value
    return entries[0].value


# ------------------------------------------------------------------------------------------------------------- record
def record_cycle(ports: Ports, bar: datetime, run_id: str) -> dict[str, Any]:
    """Write how the bar's cycle ended, from the rows alone.

    Raises StopError when a stage left no rows, OutcomeUnknown when an entry's fate is not known: the run turns red.
    """
    store = ports.trading_store
    decisions = store.decisions(bar)
    failures = _missing_stages(ports, bar, decisions)
    entries: Counter[str] = Counter()
    unknown: list[str] = []
    for decision in decisions:
        if decision.intent is None:
            continue
        orders = [o for o in store.orders_of(decision.intent.intent_id) if o.role is OrderRole.ENTRY]
        if not orders:
            failures.append(f"place_brackets has no orders of {decision.intent.intent_id}")
        entries.update(order.state.value for order in orders)
        unknown += [o.client_order_id for o in orders if o.state in (OrderState.UNKNOWN, OrderState.SENT)]
    outcomes = Counter(decision.outcome.value for decision in decisions)
    state = "failed" if failures or unknown else "done"
    if state == "done" and decisions and all(d.outcome is Outcome.EXPIRED for d in decisions):
        state = "expired"
    detail = {"outcomes": dict(outcomes), "entries": dict(entries), "failures": failures, "unknown": unknown}
    store.record_cycle(bar, state, run_id, detail)
    ports.metrics.count("tradewind.cycles", state=state)
    ports.metrics.timing_ms("tradewind.cycle.since_close", _since_close_s(ports, bar) * 1000)
    if failures:
        raise StopError(f"the cycle of {bar.isoformat()} failed: {'; '.join(failures)}")
    if unknown:
        raise OutcomeUnknown(f"the cycle of {bar.isoformat()} has an entry whose fate is unknown", unknown[0])
    return {"bar": bar.isoformat(), "state": state, **detail}


def _since_close_s(ports: Ports, bar: datetime) -> float:
    closed_ms = to_ms(bar) + timeframe_ms(ports.params.decision_timeframe)
    return max(0.0, (to_ms(ports.clock.now()) - closed_ms) / 1000)


def _missing_stages(ports: Ports, bar: datetime, decisions: list[Decision]) -> list[str]:
    store = ports.trading_store
    if decisions:
        return []
    if store.cycle_inputs(bar) is None:
        return ["predict_signals left no rows"]
    if not store.verdicts(bar):
        return ["filter_signals left no rows"]
    return ["size_positions left no rows"]
