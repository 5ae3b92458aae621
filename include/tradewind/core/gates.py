"""Whether an entry may be, filter by filter: the tests alone. `filters` says each of them in words and numbers.

A filter whose input is missing refuses. Those above the line look at one symbol; those below see the portfolio, which
holds open positions, working entries and the intents already accepted in this cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from .brackets import decimal_of
from .inputs import BAR, CycleInputs, SymbolInputs
from .params import StrategyParams
from .risk import loss_pause_until
from .sizing import Number, Room, least_risk, slot_risk
from .types import Exposure, Instrument, Portfolio, Prediction, Regime, SentimentState, Side

ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Signal:
    """The side that an entry would take and what it is expected to win, costs included, in R."""

    side: Side
    probability: float
    opposite: float
    expected_r: float


def choose_signal(prediction: Prediction | None, allowed_sides: Sequence[Side]) -> Signal | None:
    """The allowed side with the higher expected value, long where they are equal; None without a prediction."""
    if prediction is None:
        return None
    may_long, may_short = Side.LONG in allowed_sides, Side.SHORT in allowed_sides
    if may_long and not (may_short and prediction.expected_r_short > prediction.expected_r_long):
        return Signal(Side.LONG, prediction.p_long, prediction.p_short, prediction.expected_r_long)
    if may_short:
        return Signal(Side.SHORT, prediction.p_short, prediction.p_long, prediction.expected_r_short)
    return None


# ------------------------------------------------------------------------------------------------------- for one symbol
def permits(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """The safety side allows entries."""
    return inputs.permission.allowed


def is_fresh(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """The bar closed no longer than `max_bar_age_s` ago, and not in the future."""
    return 0 <= (inputs.now - inputs.known_at).total_seconds() <= inputs.params.max_bar_age_s


def is_complete(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """Every input is there, the trailing window has no more gaps than allowed, and its bars were found fit."""
    if symbol.missing_inputs(inputs.bar_ms) or symbol.numbers is None:
        return False
    if symbol.quality is not None and (symbol.quality.bar != inputs.bar or not symbol.quality.passed):
        return False
    return symbol.numbers.missing_bars <= inputs.params.max_missing_bars


def has_fresh_model(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """There is a champion whose data ends before the bar's close, and not too long before."""
    if inputs.model_trained_until is None:
        return False
    return 0 <= (inputs.known_at - inputs.model_trained_until).total_seconds() <= inputs.params.max_model_age_s


def has_regime(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """A known regime that is not chaotic, and the family the prediction was made for."""
    state = symbol.regime
    if state is None or state.regime is Regime.CHAOTIC or state.family is None:
        return False
    return symbol.prediction is None or symbol.prediction.family is state.family


def is_signalled(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """The side's probability is high enough, and far enough over the opposite side's."""
    if signal is None or symbol.prediction is None:
        return False
    params = inputs.params
    least = params.least_probability(symbol.prediction.family)
    return signal.probability >= least and signal.probability - signal.opposite >= params.min_probability_edge


def is_with_trend(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """The close lies on the signal's side of the 4h trend line."""
    if signal is None or symbol.numbers is None:
        return False
    close, ema = symbol.numbers.close, symbol.numbers.trend_ema
    return close > ema if signal.side is Side.LONG else close < ema


def sentiment_score(state: SentimentState | None, inputs: CycleInputs) -> tuple[float, str]:
    """(score, status) as the filters use it: neutral unless it is "ok", known by now and not too old."""
    if state is None:
        return 0.0, "none"
    age_s = (inputs.now - state.as_of).total_seconds()
    if state.status != "ok":
        return 0.0, state.status
    if age_s < 0 or age_s > inputs.params.sentiment_max_age_s:
        return 0.0, "stale"
    return state.score, "ok"


def _leaning(symbol: SymbolInputs, signal: Signal | None, inputs: CycleInputs) -> float:
    """The news as seen from the signal's side: negative when they lean against it."""
    score, _ = sentiment_score(symbol.sentiment, inputs)
    return -score if signal is not None and signal.side is Side.SHORT else score


def is_not_vetoed(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """No news strongly against the side."""
    return _leaning(symbol, signal, inputs) > inputs.params.sentiment_veto


def is_lively(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """The 1h ATR as a fraction of the price is neither asleep nor wild."""
    params = inputs.params
    return symbol.numbers is not None and params.natr_min_frac <= symbol.numbers.natr_frac <= params.natr_max_frac


def is_traded(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """The bar traded at least a share of what bars traded lately."""
    return symbol.numbers is not None and symbol.numbers.volume_ratio >= inputs.params.min_volume_ratio


def bars_since(closed_at: datetime, inputs: CycleInputs) -> float:
    """How many bars have passed at the decision's close."""
    return (inputs.known_at - closed_at) / BAR


def is_cool(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """Some bars have passed since the symbol's last trade, and no pause after losses in a row is running."""
    trades, params, known_at = inputs.portfolio.recent_trades, inputs.params, inputs.known_at
    if params.cooldown_bars > 0:
        last = max((t.closed_at for t in trades if t.symbol == symbol.symbol), default=None)
        if last is not None and bars_since(last, inputs) < params.cooldown_bars:
            return False
    paused_until = loss_pause_until(trades, params, inputs.losses_lifted_at)
    return paused_until is None or known_at >= paused_until


def required_expected_r(symbol: SymbolInputs, signal: Signal | None, inputs: CycleInputs) -> float:
    """The expected value that an entry needs: more when the news lean against its side."""
    params = inputs.params
    leans = _leaning(symbol, signal, inputs) <= params.sentiment_raise
    return params.min_expected_r + (params.sentiment_raise_expected_r if leans else 0.0)


def pays_more_than_judged(instrument: Instrument, params: StrategyParams) -> bool:
    """Does a taker pay more in this market than the strategy was judged with? Then its results do not hold there."""
    return instrument.taker_fee_frac > decimal_of(params.fee_frac)


def is_worth_it(inputs: CycleInputs, symbol: SymbolInputs, signal: Signal | None) -> bool:
    """What an entry is worth after its costs is enough; the model's class results carry them, so they must hold."""
    if signal is None or (symbol.instrument is not None and pays_more_than_judged(symbol.instrument, inputs.params)):
        return False
    return signal.expected_r >= required_expected_r(symbol, signal, inputs)


Gate = Callable[[CycleInputs, SymbolInputs, Signal | None], bool]

SYMBOL_GATES: Final[tuple[tuple[str, Gate], ...]] = (
    ("permission", permits),
    ("freshness", is_fresh),
    ("completeness", is_complete),
    ("model", has_fresh_model),
    ("regime", has_regime),
    ("signal", is_signalled),
    ("trend", is_with_trend),
    ("sentiment", is_not_vetoed),
    ("volatility", is_lively),
    ("volume", is_traded),
    ("cooldown", is_cool),
    ("expected_value", is_worth_it),
)


# ---------------------------------------------------------------------------------------------------- for the portfolio
@dataclass(frozen=True, slots=True)
class Book:
    """The portfolio in the course of one cycle: what it held at first, and the intents accepted so far."""

    portfolio: Portfolio
    exposures: tuple[Exposure, ...]
    free_quote: Decimal

    @classmethod
    def of(cls, portfolio: Portfolio) -> Book:
        return cls(portfolio, portfolio.exposures, portfolio.free_quote)

    def with_intent(self, exposure: Exposure, cost_quote: Decimal) -> Book:
        """The book after one more accepted intent: its money is spoken for."""
        return Book(self.portfolio, (*self.exposures, exposure), self.free_quote - cost_quote)

    @property
    def open_risk_quote(self) -> Decimal:
        return sum((e.risk_quote for e in self.exposures), ZERO)

    def in_symbol(self, symbol: str) -> int:
        """How many of its exposures are in one symbol."""
        return sum(e.symbol == symbol for e in self.exposures)


def has_slot(symbol: str, book: Book, params: StrategyParams) -> bool:
    """There is a free slot, for the account and for the symbol."""
    return len(book.exposures) < params.max_positions and book.in_symbol(symbol) < params.max_positions_per_symbol


def correlated_risk(symbol: str, side: Side, book: Book, inputs: CycleInputs) -> tuple[Decimal, list[str]]:
    """(risk, names) of the exposures that move with an entry; one whose correlation is unknown counts as such."""
    risk, names = ZERO, []
    for exposure in book.exposures:
        correlation = inputs.correlation(symbol, exposure.symbol)
        same = 1.0 if exposure.side is side else -1.0
        if correlation is None or correlation * same > inputs.params.max_correlation:
            risk += exposure.risk_quote
            known = "unknown" if correlation is None else f"{correlation:+.2f}"
            names.append(f"{exposure.symbol} ({known})")
    return risk, names


def has_own_risk(shared_quote: Decimal, book: Book, params: StrategyParams) -> bool:
    """Symbols that move together share one slot's risk: enough of it is left beside `shared_quote`."""
    equity = book.portfolio.equity_quote
    return slot_risk(equity, params) - shared_quote >= least_risk(equity, params)


def room_for(symbol: str, side: Side, book: Book, inputs: CycleInputs) -> Room:
    """What the limits of exposure and risk leave for one more entry, in quote; may be negative."""
    shared, _ = correlated_risk(symbol, side, book, inputs)
    return room_beside(shared, symbol, book, inputs.params)


def room_beside(shared_quote: Decimal, symbol: str, book: Book, params: StrategyParams) -> Room:
    """`room_for` an entry that shares its slot with `shared_quote` of risk."""
    equity = book.portfolio.equity_quote
    held = sum((e.notional_quote for e in book.exposures), ZERO)
    own = sum((e.notional_quote for e in book.exposures if e.symbol == symbol), ZERO)
    symbol_frac, total_frac = decimal_of(params.max_symbol_exposure_frac), decimal_of(params.max_total_exposure_frac)
    open_frac = decimal_of(params.max_open_risk_frac)
    return Room(
        equity_quote=equity,
        free_quote=book.free_quote,
        exposure_quote=exposure_left(equity, own, held, symbol_frac, total_frac),
        risk_quote=risk_left(equity, slot_risk(equity, params), shared_quote, book.open_risk_quote, open_frac),
    )


def exposure_left(equity: Number, own: Number, held: Number, symbol_frac: Number, total_frac: Number) -> Number:
    """Notional left under the symbol's limit, of which `own` is taken, and under the account's, of which `held` is."""
    return min(equity * symbol_frac - own, equity * total_frac - held)


def risk_left(equity: Number, slot: Number, shared: Number, opened: Number, open_frac: Number) -> Number:
    """Risk left in a slot of which `shared` is taken, and under the account's limit, of which `opened` is."""
    return min(slot - shared, equity * open_frac - opened)


def has_room(room: Room, params: StrategyParams) -> bool:
    """Something is left under the limits of exposure and money, and enough under those of risk."""
    if room.exposure_quote <= 0 or room.free_quote <= 0:
        return False
    return room.risk_quote >= least_risk(room.equity_quote, params)
