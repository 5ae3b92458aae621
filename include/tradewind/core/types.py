"""What crosses the boundaries between rooms: frozen values, no behaviour beyond arithmetic on themselves.

Times are UTC. Inside arrays a moment is epoch milliseconds (int64, `*_ms`); in single values it is an aware datetime.
A bar is named by its open time and known at `open_time + timeframe`. Prices and quantities that reach an exchange are
`Decimal`; features and probabilities are float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


# --------------------------------------------------------------------------------------------------------- market data
@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Closed bars of one series, ascending in time, as columns of equal length n.

    `open_time_ms` is int64 epoch milliseconds UTC and may have gaps: a missing bar is absent, never invented.
    Prices are in quote units, volume in base units; no column holds NaN.
    """

    symbol: str
    timeframe: str
    open_time_ms: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    def __len__(self) -> int:
        return len(self.open_time_ms)

    def slice(self, start: int, stop: int) -> Bars:
        """The rows [start, stop) as views on the same memory."""
        return Bars(
            self.symbol,
            self.timeframe,
            self.open_time_ms[start:stop],
            self.open[start:stop],
            self.high[start:stop],
            self.low[start:stop],
            self.close[start:stop],
            self.volume[start:stop],
        )


class MarketStatus(StrEnum):
    """What an exchange lets be done in one market at this moment."""

    TRADING = "trading"
    CANCEL_ONLY = "cancel_only"  # orders can be cancelled and none can be placed
    HALTED = "halted"  # listed and not traded: a halt, a break, a maintenance, a settlement, a word that is new
    DELISTED = "delisted"  # the exchange does not list it, or does so no more


class BracketSupport(StrEnum):
    """How an exchange can hold entry, stop and target together, best first."""

    OPOCO = "opoco"  # Binance spot: the legs are sized from the proceeds net of commission
    OTOCO = "otoco"  # Binance spot: the legs are sized up front, so the quantity is shaved by the commission
    ATTACHED = "attached"  # bybit, okx: stop and target attached to the entry order
    EMULATED = "emulated"  # entry, confirmed fill, then a protective order with a deadline


@dataclass(frozen=True, slots=True)
class MaintenanceBracket:
    """From `notional_floor` (quote) on, `rate` of the notional less `amount` must stay as margin; at most `leverage`.

    `amount` makes the maintenance margin continuous over the brackets' borders.
    """

    notional_floor: Decimal
    rate: Decimal
    amount: Decimal
    leverage: int = 125


@dataclass(frozen=True, slots=True)
class MarginRules:
    """What makes an instrument a future with isolated margin: the leverage in use, its brackets, lowest first."""

    leverage: int
    brackets: tuple[MaintenanceBracket, ...]


@dataclass(frozen=True, slots=True)
class Instrument:
    """The exchange's rules for one market. All Decimals are exact as published; fees are fractions (0.001 = 0.1 %)."""

    symbol: str
    base: str
    quote: str
    tick_size: Decimal
    step_size: Decimal
    min_quantity: Decimal
    max_quantity: Decimal
    min_notional_quote: Decimal
    maker_fee_frac: Decimal
    taker_fee_frac: Decimal
    bracket: BracketSupport
    active: bool = True  # entries may be sent: it trades, and for longer than a position is held
    listed_at: datetime | None = None
    delisted_at: datetime | None = None
    margin: MarginRules | None = None  # None on spot: only what is paid for in full can be held, and never short
    # False where stop and target cannot rest for the same coins: then the stop rests and the target is watched.
    target_rests: bool = True
    # The most that one market order takes, which a stop becomes when it fires. 0 stands for `max_quantity`.
    max_market_quantity: Decimal = Decimal(0)
    fees_are_own: bool = False  # the account's rates, as the exchange told them; else what it publishes for everybody

    def __post_init__(self) -> None:
        if not 0 < self.max_market_quantity <= self.max_quantity:
            object.__setattr__(self, "max_market_quantity", self.max_quantity)


@dataclass(frozen=True, slots=True)
class BookTop:
    """Best bid and ask of one market at a moment of the market's clock."""

    symbol: str
    bid: Decimal
    ask: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class QualityVerdict:
    """Whether a symbol may be traded on at a bar; `findings` maps each broken rule to its numbers."""

    symbol: str
    passed: bool
    findings: Mapping[str, Mapping[str, float | int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """A stored verdict on a symbol's bars: the bar it was given at, and when (wall time)."""

    bar: datetime
    checked_at: datetime
    passed: bool
    findings: Mapping[str, Mapping[str, float | int]] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------------- signals and states
class Side(StrEnum):
    LONG = "long"
    SHORT = "short"


class Regime(StrEnum):
    TRENDING_STRONG = "trending_strong"
    TRENDING_WEAK = "trending_weak"
    RANGING_VOLATILE = "ranging_volatile"
    RANGING_QUIET = "ranging_quiet"
    RANGING_SQUEEZE = "ranging_squeeze"
    CHAOTIC = "chaotic"


class RegimeFamily(StrEnum):
    TRENDING = "trending"
    RANGING = "ranging"


@dataclass(frozen=True, slots=True)
class RegimeState:
    """The regime of one symbol at one 15m bar, with the measures it was judged by (NaN-free)."""

    symbol: str
    bar: datetime
    regime: Regime
    family: RegimeFamily | None  # None for chaotic: it chooses no model
    adx: float
    natr_ratio: float  # normalised ATR over its trailing mean
    natr_quantile: float  # rank of the normalised ATR in its trailing window, 0..1
    bandwidth_quantile: float  # rank of the Bollinger band width in its trailing window, 0..1


@dataclass(frozen=True, slots=True)
class SentimentState:
    """The decayed news score of one symbol (or of the market, symbol '*') as known at `as_of`."""

    symbol: str
    as_of: datetime
    score: float  # -1..1; 0.0 when neutral
    weight: float  # decayed number of articles behind it
    status: str  # "ok", "stale" or "none"; the last two mean neutral and say so
    scorer: str  # "gemini", "lexicon" or ""


@dataclass(frozen=True, slots=True)
class Article:
    """One news item, its text as a feed gave it: data to be scored, never instruction, never markup to be rendered."""

    article_id: str  # from the normalised title and link: see core/sentiment.py
    feed: str
    title: str
    summary: str
    link: str
    symbols: tuple[str, ...]  # those its text names; none means news about the market as a whole
    published_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class ArticleScore:
    """What a scorer thought of one article: -1 (bad for the price) to 1 (good). Knowable from `scored_at` on."""

    article_id: str
    scorer: str
    score: float
    scored_at: datetime


@dataclass(frozen=True, slots=True)
class ScoredArticle:
    article: Article
    score: ArticleScore


@dataclass(frozen=True, slots=True)
class FeedState:
    """What is remembered of a feed for its next conditional request."""

    feed: str
    etag: str | None = None
    last_modified: str | None = None
    fetched_at: datetime | None = None  # the last success
    last_error: str | None = None  # of the newest attempt; None when that succeeded


@dataclass(frozen=True, slots=True)
class Prediction:
    """Calibrated probabilities of the three label classes for one symbol and bar, and what an entry is worth in R."""

    symbol: str
    bar: datetime
    model_version: str
    family: RegimeFamily
    p_long: float
    p_short: float
    p_neither: float
    expected_r_long: float  # sum of probability x training mean net_r of the class, costs included
    expected_r_short: float
    features_sha256: str


# ----------------------------------------------------------------------------------------------------------- decisions
@dataclass(frozen=True, slots=True)
class Verdict:
    """What one filter said: passed or not, why, and the numbers it looked at."""

    filter: str
    passed: bool
    reason: str
    numbers: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)


class Outcome(StrEnum):
    INTENT = "intent"  # every filter passed and the size is feasible: an order may follow
    DECLINED = "declined"  # at least one filter said no
    EXPIRED = "expired"  # decided too late to act on; stored, never executed
    UNAVAILABLE = "unavailable"  # an input was missing (data, model); the reason names it


@dataclass(frozen=True, slots=True)
class BracketLot:
    """One bracket list: a quantity with its own target. An entry has one lot, or two, the first aimed at +1R."""

    lot: int
    quantity: Decimal
    target_price: Decimal


@dataclass(frozen=True, slots=True)
class Intent:
    """An entry that was decided: committed before anything is sent, sent at most once."""

    intent_id: str
    account: str
    strategy_version: str
    symbol: str
    side: Side
    bar: datetime
    entry_limit_price: Decimal
    stop_price: Decimal
    lots: tuple[BracketLot, ...]
    atr_quote: float
    risk_quote: Decimal  # what is lost when the stop fills as planned, costs included
    notional_quote: Decimal
    expected_r: float
    expires_at: datetime

    @property
    def quantity(self) -> Decimal:
        return sum((lot.quantity for lot in self.lots), Decimal(0))


@dataclass(frozen=True, slots=True)
class Decision:
    """The whole answer for one symbol and bar, taken or declined."""

    account: str
    strategy_version: str
    symbol: str
    bar: datetime
    outcome: Outcome
    reason: str  # "" for an intent; else the first filter that said no and its words
    verdicts: tuple[Verdict, ...]
    prediction: Prediction | None
    regime: RegimeState | None
    sentiment: SentimentState | None
    intent: Intent | None


# ------------------------------------------------------------------------------------------------ orders and positions
class OrderState(StrEnum):
    """The life of an order; the allowed moves are drawn in core/orders.py."""

    PLANNED = "planned"
    SENT = "sent"
    WORKING = "working"
    PARTIAL = "partial"
    FILLED = "filled"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class OrderRole(StrEnum):
    ENTRY = "entry"
    STOP = "stop"
    TARGET = "target"
    EXIT = "exit"  # a market order that reduces: time stop, -2R, flatten


@dataclass(frozen=True, slots=True)
class Order:
    """One order as the ledger knows it. `client_order_id` is derived, never random: see core/orders.py."""

    client_order_id: str
    account: str
    position_id: str  # the intent's id: one entry, one position
    symbol: str
    role: OrderRole
    is_buy: bool
    lot: int
    generation: int
    order_type: str  # LIMIT, MARKET, STOP_LOSS, LIMIT_MAKER ... as the exchange names it
    quantity: Decimal
    price: Decimal | None
    stop_price: Decimal | None
    list_client_id: str | None  # the bracket list it belongs to
    state: OrderState
    exchange_order_id: str | None
    filled_quantity: Decimal
    planned_at: datetime
    sent_at: datetime | None
    updated_at: datetime
    reason: str = ""
    seen_at: datetime | None = None  # when it was last seen among the exchange's open orders, wall time


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution as the exchange reported it."""

    account: str
    symbol: str
    trade_id: str
    client_order_id: str
    is_buy: bool
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str
    is_maker: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Payment:
    """What moved the wallet beside a trade: funding, insurance. Positive: received. `payment_id` is the exchange's."""

    account: str
    payment_id: str
    symbol: str
    kind: str  # "funding_fee", "insurance_clear" ... as the exchange names it, in lower case
    asset: str
    amount: Decimal
    at: datetime


class PositionStatus(StrEnum):
    OPENING = "opening"  # the entry may still fill
    OPEN = "open"
    CLOSING = "closing"  # an exit is on its way
    CLOSED = "closed"
    DUST = "dust"  # what is left was below the exchange's minimum at the entry's price: closed, not chased


@dataclass(frozen=True, slots=True)
class Minimums:
    """The least that the exchange took of a market when a position was opened there: what grows later makes no dust."""

    step_size: Decimal
    min_quantity: Decimal
    min_notional_quote: Decimal

    @classmethod
    def of(cls, instrument: Instrument) -> Minimums:
        """Those of today's rules."""
        return cls(instrument.step_size, instrument.min_quantity, instrument.min_notional_quote)


@dataclass(frozen=True, slots=True)
class Position:
    """One entry's whole life in the ledger; quantities come from fills alone."""

    position_id: str
    account: str
    strategy_version: str
    symbol: str
    side: Side
    family: RegimeFamily
    status: PositionStatus
    bar: datetime  # the bar that was decided on
    opened_at: datetime | None
    closed_at: datetime | None
    quantity: Decimal  # now held, in base units
    entry_quantity: Decimal  # bought (sold short) in all, before fees in base
    entry_price: Decimal | None  # average of the entry's fills
    initial_stop_price: Decimal
    stop_price: Decimal  # where the stop rests now
    target_price: Decimal  # the last lot's target
    atr_quote: float  # ATR(14) of 1h at the decision
    best_close: Decimal | None
    managed_bar: datetime | None  # the last closed bar the rules were applied to
    realised_quote: Decimal  # proceeds minus cost of what was closed, fees included
    fees_quote: Decimal
    exit_reason: str = ""
    minimums: Minimums | None = None  # None: none were kept, and today's are the only ones


@dataclass(frozen=True, slots=True)
class ExchangeOrder:
    """One order as the exchange reports it, in its own status words mapped to ours."""

    client_order_id: str
    exchange_order_id: str
    list_client_id: str | None
    symbol: str
    is_buy: bool
    order_type: str
    state: OrderState
    quantity: Decimal
    filled_quantity: Decimal
    price: Decimal | None
    stop_price: Decimal | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    """One asset in the exchange account."""

    asset: str
    free: Decimal
    locked: Decimal

    @property
    def total(self) -> Decimal:
        return self.free + self.locked


# --------------------------------------------------------------------------------------------------------------- safety
class TradingMode(StrEnum):
    ACTIVE = "active"
    REDUCE_ONLY = "reduce_only"  # a person's halt: no entries, positions stay protected and managed
    HALTED = "halted"  # the breaker: flatten until verified flat


@dataclass(frozen=True, slots=True)
class Latch:
    """The stop, as it lies in PostgreSQL. It opens only by an explicit, audited resume."""

    account: str
    mode: TradingMode
    reason: str
    since: datetime
    sequence: int  # counts every change of the latch


@dataclass(frozen=True, slots=True)
class Permission:
    """May an entry be sent now, and if not, every reason why not."""

    allowed: bool
    reasons: tuple[str, ...]
    mode: TradingMode
    checked_at: datetime
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClosedTrade:
    """A closed position, as cooldown and loss counting see it."""

    position_id: str
    symbol: str
    closed_at: datetime
    net_r: float
    net_quote: Decimal


@dataclass(frozen=True, slots=True)
class Exposure:
    """An open position or a working entry, as the portfolio filters see it."""

    symbol: str
    side: Side
    notional_quote: Decimal
    risk_quote: Decimal  # loss if its stop fills now, never below zero


@dataclass(frozen=True, slots=True)
class Portfolio:
    """The account as sizing and the portfolio filters see it: the ledger's, without baseline holdings."""

    account: str
    equity_quote: Decimal
    free_quote: Decimal
    day_open_equity_quote: Decimal
    peak_equity_quote: Decimal
    exposures: tuple[Exposure, ...]
    recent_trades: tuple[ClosedTrade, ...]  # newest last
    as_of: datetime
