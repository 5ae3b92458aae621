"""Every reason not to enter, each a function from the inputs to a verdict with its numbers, in the order they are read.

All are evaluated and stored, whatever the first one says: "why did it not trade?" has a whole answer. A filter whose
input is missing refuses and names it. Those above the line look at one symbol; those below see the portfolio, which
holds open positions, working entries and the intents already accepted in this cycle (`decision.size_candidates`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from . import gates
from .gates import (
    Book,
    Signal,
    bars_since,
    correlated_risk,
    has_own_risk,
    has_room,
    has_slot,
    pays_more_than_judged,
    required_expected_r,
    sentiment_score,
)
from .inputs import CycleInputs, SymbolInputs
from .params import StrategyParams
from .risk import consecutive_losses, loss_pause_until
from .sizing import Room, least_risk, slot_risk
from .types import Regime, Side, StoredVerdict, Verdict

Numbers = dict[str, float | int | str | bool | None]

FILTER_ORDER: Final = (
    "permission",
    "freshness",
    "completeness",
    "model",
    "regime",
    "signal",
    "trend",
    "sentiment",
    "volatility",
    "volume",
    "cooldown",
    "positions",
    "correlation",
    "exposure",
    "expected_value",
    "size",
)
# Read last, and only where there is margin to lose.
READING_ORDER: Final = (*FILTER_ORDER, "liquidation")


# ------------------------------------------------------------------------------------------------------- for one symbol
def check_permission(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """Breaker, halts, a silent watch, an unclean reconciliation: whatever the safety side says."""
    permission = inputs.permission
    reason = "; ".join(permission.reasons) or ("trading is allowed" if permission.allowed else "trading is not allowed")
    return Verdict("permission", gates.permits(inputs, symbol, signal), reason, {"mode": permission.mode.value})


def check_freshness(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """The bar closed no longer than `max_bar_age_s` ago, and not in the future."""
    age_s = (inputs.now - inputs.known_at).total_seconds()
    passed = gates.is_fresh(inputs, symbol, signal)
    words = "is not closed yet" if age_s < 0 else f"closed {age_s:.1f} s ago"
    return Verdict("freshness", passed, f"the bar {words}", {"age_s": age_s, "limit_s": inputs.params.max_bar_age_s})


def check_completeness(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """Every input is there, the trailing window has no more gaps than allowed, and its bars were found fit."""
    missing = symbol.missing_inputs(inputs.bar_ms)
    gaps = symbol.numbers.missing_bars if symbol.numbers is not None else None
    numbers: Numbers = {"missing_bars": gaps, "limit": inputs.params.max_missing_bars}
    if missing:
        return Verdict("completeness", False, f"missing: {', '.join(missing)}", numbers)
    if symbol.quality is not None:
        numbers |= quality_numbers(symbol.quality)
        if symbol.quality.bar != inputs.bar:
            at = f"{symbol.quality.bar:%Y-%m-%d %H:%M} UTC"
            return Verdict("completeness", False, f"its bars were last judged at {at}, not at this bar", numbers)
        if not symbol.quality.passed:
            findings = ", ".join(symbol.quality.findings)
            return Verdict("completeness", False, f"its bars are not fit to trade on: {findings}", numbers)
    passed = gates.is_complete(inputs, symbol, signal)
    window = inputs.params.completeness_window_bars
    return Verdict("completeness", passed, f"{gaps} of the last {window} bars are missing", numbers)


def quality_numbers(verdict: StoredVerdict) -> Numbers:
    """A verdict on a symbol's bars as flat numbers: its bar, and each broken rule's as `rule.number`."""
    numbers: Numbers = {"judged_at_bar": verdict.bar.isoformat()}
    for rule, found in verdict.findings.items():
        numbers |= {f"{rule}.{name}": value for name, value in found.items()}
    return numbers


def check_model(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """There is a champion, and its data does not end too long ago."""
    if inputs.model_trained_until is None:
        return Verdict("model", False, inputs.model_problem or "there is no champion model")
    age_s = (inputs.known_at - inputs.model_trained_until).total_seconds()
    limit = inputs.params.max_model_age_s
    version = symbol.prediction.model_version if symbol.prediction is not None else None
    numbers: Numbers = {"age_s": age_s, "limit_s": limit, "version": version}
    if age_s < 0:
        return Verdict("model", False, "the model was trained on data later than this bar", numbers)
    passed = gates.has_fresh_model(inputs, symbol, signal)
    return Verdict("model", passed, f"its data ends {age_s / 86_400:.1f} days before the bar", numbers)


def check_regime(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """A known regime that is not chaotic, and the family the prediction was made for."""
    state = symbol.regime
    if state is None:
        return Verdict("regime", False, "the regime is unknown")
    numbers: Numbers = {
        "regime": state.regime.value,
        "adx": state.adx,
        "natr_ratio": state.natr_ratio,
        "natr_quantile": state.natr_quantile,
        "bandwidth_quantile": state.bandwidth_quantile,
    }
    if state.regime is Regime.CHAOTIC or state.family is None:
        return Verdict("regime", False, "a chaotic market opens nothing", numbers)
    if symbol.prediction is not None and symbol.prediction.family is not state.family:
        return Verdict("regime", False, "the prediction was made for another regime family", numbers)
    return Verdict("regime", gates.has_regime(inputs, symbol, signal), state.regime.value, numbers)


def check_signal(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """The side's probability is high enough, and far enough over the opposite side's."""
    if signal is None or symbol.prediction is None:
        return Verdict("signal", False, "no signal")
    params = inputs.params
    least = params.least_probability(symbol.prediction.family)
    edge = signal.probability - signal.opposite
    numbers: Numbers = {
        "side": signal.side.value,
        "probability": signal.probability,
        "least": least,
        "edge": edge,
        "least_edge": params.min_probability_edge,
    }
    passed = gates.is_signalled(inputs, symbol, signal)
    reason = f"{signal.side.value} with probability {signal.probability:.3f}, {edge:+.3f} over the opposite side"
    return Verdict("signal", passed, reason, numbers)


def check_trend(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """The close lies on the signal's side of the 4h trend line."""
    if signal is None or symbol.numbers is None:
        return Verdict("trend", False, "no signal or no bars")
    close, ema = symbol.numbers.close, symbol.numbers.trend_ema
    passed = gates.is_with_trend(inputs, symbol, signal)
    where = "above" if close > ema else "not above"
    return Verdict("trend", passed, f"the close is {where} the 4h trend line", {"close": close, "trend_ema": ema})


def check_sentiment(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """News against the side veto an entry; mild ones only raise the bar of `check_expected_value`."""
    score, status = sentiment_score(symbol.sentiment, inputs)
    numbers: Numbers = {"score": score, "status": status, "veto": inputs.params.sentiment_veto}
    words = f"score {score:+.2f}" if status == "ok" else f"neutral: {status}"
    return Verdict("sentiment", gates.is_not_vetoed(inputs, symbol, signal), words, numbers)


def check_volatility(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """The 1h ATR as a fraction of the price is neither asleep nor wild."""
    if symbol.numbers is None:
        return Verdict("volatility", False, "no bars")
    natr, params = symbol.numbers.natr_frac, inputs.params
    numbers: Numbers = {"natr_frac": natr, "least": params.natr_min_frac, "most": params.natr_max_frac}
    return Verdict("volatility", gates.is_lively(inputs, symbol, signal), f"ATR is {natr:.4%}", numbers)


def check_volume(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """The bar traded at least a share of what bars traded lately."""
    if symbol.numbers is None:
        return Verdict("volume", False, "no bars")
    ratio, least = symbol.numbers.volume_ratio, inputs.params.min_volume_ratio
    numbers: Numbers = {"volume_ratio": ratio, "least": least, "volume_base": symbol.numbers.volume_base}
    return Verdict("volume", gates.is_traded(inputs, symbol, signal), f"{ratio:.2f} of the trailing mean", numbers)


def check_cooldown(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """Some bars have passed since the symbol's last trade, and no pause after losses in a row is running."""
    trades, params = inputs.portfolio.recent_trades, inputs.params
    last = max((t.closed_at for t in trades if t.symbol == symbol.symbol), default=None)
    since = bars_since(last, inputs) if last is not None else None
    paused_until = loss_pause_until(trades, params, inputs.losses_lifted_at)
    numbers: Numbers = {
        "bars_since_trade": since,
        "least_bars": params.cooldown_bars,
        "consecutive_losses": consecutive_losses(trades),
        "paused_until": paused_until.isoformat() if paused_until is not None else None,
    }
    if paused_until is not None and inputs.known_at < paused_until:
        return Verdict("cooldown", False, f"paused until {paused_until:%Y-%m-%d %H:%M} UTC after losses", numbers)
    if since is not None and since < params.cooldown_bars:
        return Verdict("cooldown", False, f"only {since:.1f} bars since the last trade", numbers)
    return Verdict("cooldown", gates.is_cool(inputs, symbol, signal), "", numbers)


def check_expected_value(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> Verdict:
    """What an entry is worth after fees, spread and slippage; the model's class results carry those costs."""
    needed = required_expected_r(symbol, signal, inputs)
    if signal is None:
        return Verdict("expected_value", False, "no signal", {"least_r": needed})
    numbers: Numbers = {"expected_r": signal.expected_r, "least_r": needed}
    if symbol.instrument is not None and pays_more_than_judged(symbol.instrument, inputs.params):
        paid, judged = float(symbol.instrument.taker_fee_frac), inputs.params.fee_frac
        whose = "the account pays" if symbol.instrument.fees_are_own else "the exchange publishes"
        reason = (
            f"{whose} a taker fee of {paid:.4%} in {symbol.symbol}, the strategy was judged with {judged:.4%}: "
            "set fee_frac to what is paid and train again"
        )
        return Verdict("expected_value", False, reason, numbers | {"taker_fee_frac": paid, "judged_fee_frac": judged})
    return Verdict("expected_value", gates.is_worth_it(inputs, symbol, signal), f"{signal.expected_r:+.3f} R", numbers)


SymbolFilter = Callable[[CycleInputs, SymbolInputs, Signal | None], Verdict]

SYMBOL_FILTERS: Final[tuple[SymbolFilter, ...]] = (
    check_permission,
    check_freshness,
    check_completeness,
    check_model,
    check_regime,
    check_signal,
    check_trend,
    check_sentiment,
    check_volatility,
    check_volume,
    check_cooldown,
    check_expected_value,
)


# ---------------------------------------------------------------------------------------------------- for the portfolio
def check_positions(symbol: str, book: Book, params: StrategyParams) -> Verdict:
    """There is a free slot, for the account and for the symbol."""
    total, own = len(book.exposures), book.in_symbol(symbol)
    numbers: Numbers = {
        "positions": total,
        "limit": params.max_positions,
        "in_symbol": own,
        "symbol_limit": params.max_positions_per_symbol,
    }
    passed = has_slot(symbol, book, params)
    return Verdict("positions", passed, f"{total} positions, {own} of them in {symbol}", numbers)


def check_correlation(symbol: str, side: Side, book: Book, inputs: CycleInputs) -> Verdict:
    """Symbols that move together share one slot's risk: enough of it is left."""
    risk, names = correlated_risk(symbol, side, book, inputs)
    slot = slot_risk(book.portfolio.equity_quote, inputs.params)
    known = [inputs.correlation(symbol, exposure.symbol) for exposure in book.exposures]
    numbers: Numbers = {
        "highest": max((value for value in known if value is not None), default=None),
        "limit": inputs.params.max_correlation,
        "shared_risk_quote": float(risk),
        "slot_quote": float(slot),
        "with": ", ".join(names),
    }
    reason = f"shares its slot with {', '.join(names)}" if names else "moves on its own"
    return Verdict("correlation", has_own_risk(risk, book, inputs.params), reason, numbers)


def check_exposure(room: Room, book: Book, params: StrategyParams) -> Verdict:
    """Something is left under the limits of exposure and money, and enough under those of risk."""
    numbers: Numbers = {
        "exposure_room_quote": float(room.exposure_quote),
        "risk_room_quote": float(room.risk_quote),
        "free_quote": float(room.free_quote),
        "open_risk_quote": float(book.open_risk_quote),
        "equity_quote": float(room.equity_quote),
    }
    for name, left in (("exposure", room.exposure_quote), ("balance", room.free_quote)):
        if left <= 0:
            return Verdict("exposure", False, f"no {name} left under the limits", numbers)
    if room.risk_quote < least_risk(room.equity_quote, params):
        return Verdict("exposure", False, f"only {room.risk_quote:.2f} of risk left under the limits", numbers)
    return Verdict("exposure", has_room(room, params), f"room for {room.exposure_quote:.2f}", numbers)


def in_order(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts in the order in which they are read."""
    return tuple(sorted(verdicts, key=lambda verdict: READING_ORDER.index(verdict.filter)))
