"""What jobs may ask of the outside world. Adapters satisfy these Protocols; `wiring.py` alone chooses the adapters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from .inputs import CycleInputs
from .params import PositionRules, StrategyParams
from .prices import KnownPrice
from .types import (
    Article,
    ArticleScore,
    Balance,
    Bars,
    BookTop,
    ClosedTrade,
    Decision,
    ExchangeOrder,
    FeedState,
    Fill,
    Instrument,
    Intent,
    Latch,
    MarketStatus,
    Order,
    OrderState,
    Payment,
    Position,
    Prediction,
    QualityVerdict,
    RegimeFamily,
    RegimeState,
    ScoredArticle,
    SentimentState,
    StoredVerdict,
    TradingMode,
    Verdict,
)

if TYPE_CHECKING:
    from .ensemble import FamilyModel, LoadedModel
    from .parity import Ledger, ParityReport
    from .study import Trial
    from .transfers import EquityRecord, Reading
    from .validation import Gate


class Clock(Protocol):
    """Wall time, or the paper market's clock in the demo and in tests.

    Two clocks are in use. `Ports.clock` is the market's: which bar is closed, how old a bar is, which UTC day it is,
    when an order was planned or filled. `Ports.wall` is the machine's: heartbeats, time-outs, unprotected seconds, and
    the proof that an order is unknown to the exchange. They agree except where the paper market is stepped.
    """

    def now(self) -> datetime:
        """The present moment, aware, UTC."""
        ...


class Metrics(Protocol):
    def count(self, name: str, value: int = 1, **tags: str) -> None: ...
    def gauge(self, name: str, value: float, **tags: str) -> None: ...
    def timing_ms(self, name: str, value_ms: float, **tags: str) -> None: ...


class Alerts(Protocol):
    def raise_alert(self, severity: str, key: str, title: str, body: str) -> None:
        """Put an alert into the outbox; `severity` is info, warning or critical, `key` deduplicates.

        Never blocks on a channel.
        """
        ...


# --------------------------------------------------------------------------------------------------------- market data
class MarketData(Protocol):
    """An exchange's public side."""

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each of these that the exchange lists; an unlisted one is absent."""
        ...

    def candles(self, symbol: str, timeframe: str, start_ms: int, end_ms: int, *, bulk: bool = False) -> Bars:
        """Bars with start_ms <= open_time < end_ms as the exchange reports them, the unfinished one included.

        Pages until the range is covered. `bulk` calls yield to trading calls under the shared rate limit.
        Raises ExchangeUnreachable or RateLimited (retry), BadCandle never: validation is `core.candles`' work.
        """
        ...

    def first_open_ms(self, symbol: str, timeframe: str) -> int | None:
        """The open time of the first bar the exchange has of a symbol; None where it cannot be asked for it."""
        ...

    def oldest_open_ms(self, timeframe: str) -> int | None:
        """The oldest open time that the exchange still answers for, whatever the symbol; None where it keeps all."""
        ...

    def book_tops(self, symbols: Sequence[str]) -> dict[str, BookTop]:
        """Best bid and ask of each of these that has a price (`core.prices.is_price`) now; others are absent."""
        ...

    def clock_offset_ms(self) -> float:
        """Exchange's time minus ours, over the fastest of a few round trips."""
        ...


@dataclass(frozen=True, slots=True)
class CandleGap:
    """Missing bars of one series: the open times from `start_ms` to `end_ms`, end excluded."""

    symbol: str
    timeframe: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What a write did: bars that were new, and bars that differed from the stored ones and became corrections."""

    new: int
    corrections: int


@dataclass(frozen=True, slots=True)
class HistoryChunk:
    """A part of a history load that is fetched and committed as one: open times in [start_ms, end_ms) of one series."""

    job_id: str
    symbol: str
    timeframe: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Listing:
    """When a symbol began and ceased to trade; None where that is unknown or has not happened."""

    symbol: str
    listed_at: datetime | None
    delisted_at: datetime | None


class MarketStore(Protocol):
    """Candles and what is known of them, in PostgreSQL."""

    def store_candles(self, bars: Sequence[Bars]) -> Stored:
        """Insert with ON CONFLICT DO NOTHING; a differing stored bar is kept, the difference recorded."""
        ...

    def insert_candles(self, bars: Sequence[Bars]) -> int:
        """Insert with ON CONFLICT DO NOTHING; returns how many bars were new. A differing stored bar is kept, the
        difference recorded as a correction."""
        ...

    def read_bars(self, symbols: Sequence[str], timeframe: str, start_ms: int, end_ms: int) -> dict[str, Bars]:
        """Bars in [start_ms, end_ms) for every symbol, one query; a symbol without any has length-0 columns."""
        ...

    def read_last_bars(self, symbols: Sequence[str], timeframe: str, end_ms: int, count: int) -> dict[str, Bars]:
        """The last `count` bars opened before end_ms for every symbol, one query."""
        ...

    def find_gaps(self, wanted: Mapping[tuple[str, str], tuple[int, int]]) -> list[CandleGap]:
        """Missing ranges of every (symbol, timeframe) inside its wanted [start_ms, end_ms), head and tail included."""
        ...

    def last_open_ms(self, symbols: Sequence[str], timeframe: str) -> dict[str, int]: ...

    def first_wanted_ms(self, symbols: Sequence[str], timeframes: Sequence[str]) -> dict[tuple[str, str], int]:
        """From when each series is wanted: its oldest stored bar, or what a history load asked for if that is older."""
        ...

    def stored_series(self) -> dict[tuple[str, str], tuple[int, int]]:
        """The oldest and the newest stored open time of every (symbol, timeframe) that has any bar."""
        ...

    def listings(self, symbols: Sequence[str]) -> dict[str, Listing]: ...
    def save_listings(self, listings: Sequence[Listing]) -> None: ...

    def create_job(self, job_id: str, kind: str, params: Mapping[str, Any], requested_by: str) -> bool: ...
    def move_job(self, job_id: str, state: str, error: str | None = None) -> None: ...

    def job(self, job_id: str) -> dict[str, Any] | None:
        """The job's row with `progress`: expected_bars, done_bars, rows_seen, rows_new, percent, eta_s and series."""
        ...

    def newest_job(self, kind: str) -> str | None:
        """The id of the job of a kind that was made last."""
        ...

    def report_progress(self, job_id: str, series: Mapping[str, Mapping[str, int]]) -> None:
        """What a job without chunks has done of each series: expected_bars, done_bars, rows_seen and rows_new."""
        ...

    def plan_chunks(self, job_id: str, chunks: Sequence[HistoryChunk]) -> int: ...
    def open_chunks(self, job_id: str) -> list[HistoryChunk]: ...

    def finish_chunk(self, chunk: HistoryChunk, bars: Bars) -> Stored:
        """Store a chunk's bars and mark it done in one transaction."""
        ...

    def save_quality(self, bar: datetime, verdicts: Sequence[QualityVerdict]) -> int: ...
    def quality(self, bar: datetime, symbols: Sequence[str]) -> dict[str, QualityVerdict]: ...

    def newest_quality(self, symbols: Sequence[str], bar: datetime) -> dict[str, StoredVerdict]:
        """Each symbol's newest verdict at `bar` or before; a symbol that was never judged is absent."""
        ...


class KnownEmpty(Protocol):
    """Ranges that the exchange answered as empty, with an expiry. Losing them costs requests, never truth."""

    def filter_unknown(self, gaps: Sequence[CandleGap]) -> list[CandleGap]: ...
    def remember(self, gap: CandleGap, ttl_s: float) -> None: ...
    def entries(self) -> list[CandleGap]: ...


class Upkeep(Protocol):
    """Retention and statistics of our own tables."""

    def remove_expired(self, now: datetime) -> dict[str, int]:
        """Delete what has outlived its use at `now`; returns the rows removed by table."""
        ...

    def refresh_statistics(self) -> list[dict[str, Any]]:
        """Let the planner see today's tables; returns name, bytes and estimated rows of the largest."""
        ...


class StateStore(Protocol):
    """Regimes and sentiment: states that the chain reads."""

    def insert_regimes(self, states: Sequence[RegimeState], params_hash: str) -> int: ...
    def last_regimes(self, symbols: Sequence[str], before: datetime, params_hash: str) -> dict[str, RegimeState]: ...
    def sentiment_as_of(self, symbols: Sequence[str], as_of: datetime) -> dict[str, SentimentState]: ...
    def sentiment_between(
        self, symbols: Sequence[str], start: datetime, end: datetime
    ) -> dict[str, tuple[SentimentState, ...]]: ...


# ---------------------------------------------------------------------------------------------------------------- news
class NewsFeeds(Protocol):
    """The news, from wherever it is configured to come."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def fetch(self, name: str, state: FeedState | None, now: datetime) -> tuple[list[Article], FeedState]:
        """What a feed holds now, and what to remember for its next request; nothing when it has not changed.

        Raises NewsUnavailable when it does not answer or answers with something that is no feed.
        """
        ...


class ArticleScorer(Protocol):
    """Reads articles and says what each means for prices."""

    @property
    def name(self) -> str: ...

    def score(self, articles: Sequence[Article]) -> dict[str, float]:
        """Scores in [-1, 1] by article id. An article without a valid score is absent: dropped, never guessed.

        Raises NewsUnavailable when the scorer does not answer at all.
        """
        ...


class NewsStore(Protocol):
    """Articles, their scores, the aggregates made of them, and the state of the feeds, in PostgreSQL."""

    def insert_articles(self, articles: Sequence[Article]) -> int: ...
    def recent_articles(self, since: datetime) -> list[Article]: ...
    def unscored_articles(self, scorer: str, since: datetime, limit: int) -> list[Article]: ...
    def insert_scores(self, scores: Sequence[ArticleScore]) -> int: ...
    def scored_articles(self, scorer: str, since: datetime, as_of: datetime) -> list[ScoredArticle]: ...
    def insert_sentiment(self, states: Sequence[SentimentState]) -> int: ...
    def feed_states(self, feeds: Sequence[str]) -> dict[str, FeedState]: ...
    def save_feed_state(self, state: FeedState) -> None: ...


# ------------------------------------------------------------------------------------------------------------- trading
@dataclass(frozen=True, slots=True)
class BracketLegs:
    """One bracket list to send: entry, then stop and target for what it filled."""

    list_client_id: str
    entry: Order
    stop: Order
    target: Order


@dataclass(frozen=True, slots=True)
class KeyRights:
    """What the exchange says our API key may do; None where it does not tell."""

    can_trade: bool | None
    can_withdraw: bool | None  # or move money out of the account in any other way
    is_ip_restricted: bool | None


class TradingExchange(Protocol):
    """An exchange's private side. Every call names our client order ids; none retries a send by itself.

    `recv_window_s` is how long after its timestamp a request may still be accepted.

    Raises OutcomeUnknown when the exchange may or may not have acted: ask by client order id, never resend blindly.
    Raises OrderRejected with the exchange's reason when it certainly did not.
    """

    @property
    def recv_window_s(self) -> float: ...

    def key_rights(self) -> KeyRights: ...

    def signed_at(self, moment: datetime) -> AbstractContextManager[None]:
        """Within, sends carry this timestamp (wall time) and are refused by the exchange once they leave too late."""
        ...

    def send_bracket(self, legs: BracketLegs, instrument: Instrument) -> list[ExchangeOrder]: ...

    def send_protection(self, stop: Order, target: Order, instrument: Instrument) -> list[ExchangeOrder]:
        """A new OCO of stop and target."""
        ...

    def send_order(self, order: Order, instrument: Instrument) -> ExchangeOrder: ...
    def cancel_list(self, symbol: str, list_client_id: str, known: Sequence[Order] = ()) -> list[ExchangeOrder]:
        """Cancel stop and target together; `known` are their rows in the ledger."""
        ...

    def cancel_order(self, symbol: str, client_order_id: str) -> ExchangeOrder: ...

    def find_order(self, symbol: str, client_order_id: str, known: Order | None = None) -> ExchangeOrder | None:
        """None when the exchange answers that it does not know the id.

        `known` is the order's row in the ledger: some exchanges give stop and target ids of their own.
        """
        ...

    def open_orders(self, symbols: Sequence[str]) -> list[ExchangeOrder]:
        """What works or waits in these markets, ours or not; an unlisted market has nothing."""
        ...

    def fills_since(self, symbol: str, since: datetime) -> list[Fill]: ...
    def payments_since(self, since: datetime) -> list[Payment]:
        """What moved the wallet beside trades and transfers; nothing on spot."""
        ...

    def balances(self) -> dict[str, Balance]: ...

    def book_tops(self, symbols: Sequence[str]) -> dict[str, BookTop]:
        """Best bid and ask of each of these that has a price (`core.prices.is_price`) now; others are absent."""
        ...

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each of these that the exchange lists; an unlisted one is absent.

        Fees are the account's own where the exchange tells them (`fees_are_own`).
        """
        ...

    def market_status(self, symbol: str) -> MarketStatus:
        """What may be done in a market, asked of the exchange at this moment and never kept.

        Where it is not TRADING, what rests there must stay: what is cancelled cannot be placed again.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """What the predict stage left for one symbol and bar: a prediction, or the reason why there is none."""

    symbol: str
    prediction: Prediction | None
    reason: str  # "" when available
    inputs: Mapping[str, Any]  # the features by name, and the numbers that the filters read, as plain JSON values
    code_sha256: str  # of the library that predicted


@dataclass(frozen=True, slots=True)
class Cycle:
    """How one bar's cycle ended: done, failed, missed or expired."""

    bar: datetime
    state: str
    run_id: str
    detail: Mapping[str, Any]
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class ReconciliationRecord:
    """One comparison of exchange and ledger. `at` is wall time."""

    at: datetime
    clean: bool
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Flattening:
    """The work that follows a HALTED latch. Times are wall time; `verified_flat_at` ends it."""

    latch_sequence: int
    started_at: datetime
    last_attempt_at: datetime
    attempts: int
    verified_flat_at: datetime | None
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class UnprotectedSpan:
    """One time a held position had no stop at the exchange. Times are wall time."""

    position_id: str
    cause: str
    started_at: datetime
    ended_at: datetime | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class WriteOff:
    """A holding that a person gave up. `quantity` is negative for a short, `cost_quote` what it was entered for,
    `settled_quote` what the exchange paid for it; `at` is wall time."""

    position_id: str
    account: str
    symbol: str
    quantity: Decimal
    cost_quote: Decimal
    settled_quote: Decimal
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LedgerTotal:
    """All fills and payments of one symbol, summed exactly: base held net of base fees, quote moved net of its fees.

    What was written off is not held any more, and what the exchange paid for it is part of the quote moved.
    """

    symbol: str
    base_quantity: Decimal
    cash_quote: Decimal
    other_fees: Mapping[str, Decimal]  # fees taken in a third asset, by asset
    other_fees_quote: Decimal = Decimal(0)  # those of them that are valued, at the rates of their time

    def with_fee(self, asset: str, fee: Decimal, fee_quote: Decimal) -> LedgerTotal:
        """The same with another fee in a third asset."""
        fees = {**self.other_fees, asset: self.other_fees.get(asset, Decimal(0)) + fee}
        return replace(self, other_fees=fees, other_fees_quote=self.other_fees_quote + fee_quote)


@dataclass(frozen=True, slots=True)
class OpenQuantity:
    """What a position's fills leave held: negative for a short; at what average price and from when it was entered."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal | None
    opened_at: datetime


class TradingStore(Protocol):
    """The ledger: decisions, orders, fills, positions, latch, equity. A decision's rows are inserted, never updated."""

    # decisions
    def remember_strategy(self, params: StrategyParams) -> None: ...
    def strategy_params(self, strategy_version: str) -> Mapping[str, Any] | None: ...
    def insert_cycle_inputs(self, inputs: CycleInputs) -> bool: ...
    def cycle_inputs(self, bar: datetime) -> CycleInputs | None: ...
    def insert_predictions(self, bar: datetime, rows: Sequence[StoredPrediction]) -> int: ...
    def predictions(self, bar: datetime) -> dict[str, StoredPrediction]: ...
    def insert_verdicts(self, bar: datetime, rows: Mapping[str, Sequence[Verdict]]) -> int: ...
    def verdicts(self, bar: datetime) -> dict[str, tuple[Verdict, ...]]: ...
    def insert_decisions(self, decisions: Iterable[Decision]) -> int: ...
    def decisions(self, bar: datetime) -> list[Decision]: ...
    def decision_of(self, intent_id: str) -> Decision: ...
    def intent(self, intent_id: str) -> Intent: ...
    def record_cycle(self, bar: datetime, state: str, run_id: str, detail: Mapping[str, Any]) -> None: ...
    def cycle(self, bar: datetime) -> Cycle | None: ...

    # orders and fills
    def plan_orders(self, orders: Sequence[Order]) -> list[Order]:
        """Commit the rows before anything is sent; rows that exist are returned as they are, unchanged.

        Needs the position's lock, whose fence is checked in the same transaction.
        """
        ...

    def move_order(self, client_order_id: str, to: OrderState, *, at: datetime, **detail: Any) -> Order:
        """One allowed step of the order's life, with an event row; a forbidden one raises LedgerMismatch.

        `exchange_order_id`, `quantity`, `filled_quantity`, `sent_at` and `reason` are kept with the order, all of
        `detail` with the event. A step to SENT checks the fence of the position's lock.
        """
        ...

    def mark_seen(self, client_order_ids: Sequence[str], at: datetime) -> None:
        """These orders were seen at the exchange at that moment (wall time)."""
        ...

    def order(self, client_order_id: str) -> Order | None: ...
    def orders_in(self, states: Sequence[OrderState]) -> list[Order]: ...
    def orders_of(self, position_id: str) -> list[Order]: ...
    def orders_by_exchange_id(self, symbol: str, exchange_order_ids: Sequence[str]) -> dict[str, str]: ...
    def order_events(self, client_order_id: str) -> list[Mapping[str, Any]]: ...
    def insert_fills(self, fills: Sequence[Fill]) -> int: ...
    def fills_of(self, position_id: str) -> list[Fill]: ...
    def last_fill_at(self, symbols: Sequence[str]) -> dict[str, datetime]: ...
    def insert_payments(self, payments: Sequence[Payment]) -> int: ...
    def last_payment_at(self) -> datetime | None: ...
    def payments_begin(self) -> datetime | None: ...
    def ledger_totals(self) -> dict[str, LedgerTotal]: ...

    # positions
    def open_position(self, position: Position, rules: PositionRules) -> Position:
        """Insert the position with the rules it follows; one that exists is returned unchanged. Needs its lock."""
        ...

    def position_rules(self, position_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The rules that positions were opened with, as stored; one of before they were kept is absent."""
        ...

    def save_position(self, position: Position, event: str, at: datetime, **detail: Any) -> None:
        """Replace the position's figures and add an event, if the lock's fence is still the newest.

        Raises LockNotAcquired when another task has taken the position over.
        """
        ...

    def position(self, position_id: str) -> Position | None: ...
    def positions_with_fills_since(self, since: datetime) -> list[Position]: ...
    def position_events(self, position_id: str) -> list[Mapping[str, Any]]: ...
    def live_positions(self) -> list[Position]: ...
    def closed_trades(self, since: datetime) -> list[ClosedTrade]: ...
    def position_lock(self, position_id: str) -> AbstractContextManager[bool]:
        """A PostgreSQL advisory lock, held by one task at a time; yields False when someone else holds it."""
        ...

    def start_unprotected(self, position_id: str, cause: str, at: datetime) -> None:
        """Begin a span without protection (wall time); one that is open already goes on."""
        ...

    def end_unprotected(self, position_id: str, at: datetime) -> float | None:
        """End the open span; returns its seconds, or None when none was open."""
        ...

    def unprotected_now(self) -> set[str]:
        """Ids of the positions with an open span."""
        ...

    def unprotected_spans(self, position_id: str | None = None) -> list[UnprotectedSpan]: ...

    # equity and prices
    def snapshot(self) -> AbstractContextManager[None]:
        """Within, everything that is read of this store is as it was at one moment; nothing can be written."""
        ...

    def open_quantities(self) -> list[OpenQuantity]: ...
    def fees_not_valued(self, quote: str) -> list[str]:
        """Third assets that something was paid in whose worth in quote is not kept yet."""
        ...

    def value_fees(self, asset: str, rate_quote: Decimal) -> None: ...
    def estimate_fees(self, asset: str, fee_frac: Decimal) -> None: ...
    def fee_rates(self, position_id: str) -> dict[str, Decimal]:
        """What one unit of each third asset was worth when a position's fees were paid in it, on average."""
        ...

    def last_prices(self, symbols: Collection[str]) -> dict[str, KnownPrice]:
        """What is known of each market that was ever looked at."""
        ...

    def keep_prices(self, prices: Collection[KnownPrice]) -> None: ...

    # what was given up
    def write_off(self, position: Position, given_up: WriteOff, ended: Sequence[str], *, source: str) -> WriteOff:
        """Close the position, keep the write-off, end these orders and audit it, in one transaction and once.

        Returns the write-off that is kept. Needs the position's lock.
        """
        ...

    def write_offs(self) -> list[WriteOff]:
        """Every holding that was given up, oldest first."""
        ...

    # reconciliation
    def take_baseline(self, holdings: Mapping[str, Decimal], at: datetime) -> dict[str, Decimal]:
        """Keep what the account held before us, once; returns what is kept."""
        ...

    def baseline(self) -> dict[str, Decimal] | None:
        """What the account holds that is not ours: what it held before us, what a person explained or gave up since."""
        ...

    def accept_difference(
        self,
        asset: str,
        quantity: Decimal,
        reason: str,
        at: datetime,
        *,
        actor: str,
        accepted: Decimal,
        equity: Reading | None = None,
    ) -> None:
        """Keep a person's explanation, and for the quote currency the reading just before it, in one transaction.

        `accepted` is what was explained of the asset so far; raises LockNotAcquired when that is not so any more.
        """
        ...

    def accepted_differences(self) -> dict[str, Decimal]: ...
    def record_reconciliation(self, at: datetime, clean: bool, report: Mapping[str, Any]) -> None: ...
    def last_reconciliation(self) -> ReconciliationRecord | None: ...

    # safety
    def latch(self) -> Latch: ...
    def set_latch(self, mode: TradingMode, reason: str, at: datetime, *, actor: str) -> Latch:
        """Tighten the latch and write its history row in one transaction. It never loosens: a HALTED latch stays
        HALTED until `open_latch`. Returns the latch as it lies."""
        ...

    def open_latch(
        self,
        reason: str,
        at: datetime,
        *,
        actor: str,
        source: str,
        sequence: int,
        equity: Reading,
        request: str | None = None,
    ) -> Latch:
        """Open the latch as it was looked at (`sequence`): the last step of a resume, after its checks.

        Its history, its audit row and the opening equity, later than every reading so far, come with it or not at all.
        A task must name the signed `request` that it acts on. Raises TradingHalted when the latch was closed anew.
        """
        ...

    def signed_request(self, action: str, request: str) -> Mapping[str, Any] | None:
        """Actor and source of a request that a person made with the control token minutes ago; None without one."""
        ...

    def latch_history(self) -> list[Mapping[str, Any]]: ...
    def start_flattening(self, latch_sequence: int, at: datetime) -> None: ...
    def record_flattening(
        self, latch_sequence: int, at: datetime, report: Mapping[str, Any], *, flat: bool
    ) -> Flattening:
        """Count one attempt to flatten; `flat` marks it verified."""
        ...

    def flattening(self, latch_sequence: int) -> Flattening | None: ...
    def beat(self, name: str, at: datetime) -> None: ...
    def heartbeats(self) -> dict[str, datetime]: ...
    def keep_mark(self, at: datetime, equity_quote: Decimal, *, link: int, is_peak: bool, **detail: Any) -> None:
        """Keep one reading in the place of this minute's earlier ones; a peak stays beside them."""
        ...

    def record_equity(
        self, kind: str, at: datetime, equity_quote: Decimal, *, link: int | None = None, **detail: Any
    ) -> None: ...
    def open_day(self, midnight: datetime, equity_quote: Decimal, *, link: int, **detail: Any) -> None:
        """Keep the opening of a day; one that it has already stays."""
        ...

    def equity_record(self, moment: datetime) -> EquityRecord: ...
    def close_link(self, equity: Reading) -> None:
        """Say what equity is after the link that the reading names, if that was not said before."""
        ...

    def resumed_at(self) -> datetime | None: ...
    def audit(self, actor: str, action: str, outcome: str, detail: Mapping[str, Any], *, source: str) -> None: ...


class ParityStore(Protocol):
    """What an account did over a stretch of time, and the reports of its comparison with a replay."""

    def cycles(self, since: datetime, until: datetime) -> list[CycleInputs]: ...
    def ledger(self, since: datetime, until: datetime) -> Ledger: ...
    def base_flows(self, before: datetime) -> dict[str, Decimal]: ...
    def newest_instruments(self) -> dict[str, Instrument]: ...
    def last_bar_of_other_code(self, since: datetime, until: datetime, code_sha256: str) -> datetime | None: ...
    def insert_report(
        self, at: datetime, since: datetime, until: datetime, cycles: int, report: ParityReport
    ) -> None: ...


class StudyStore(Protocol):
    """Studies of parameters and their finished trials."""

    def start(self, study: str, settings: Mapping[str, Any], at: datetime) -> dict[str, Any]: ...
    def trials(self, study: str) -> list[Trial]: ...
    def insert_trial(self, study: str, trial: Trial, at: datetime) -> None: ...
    def finish(self, study: str, report: Mapping[str, Any], at: datetime) -> None: ...


class PredictionModel(Protocol):
    """A loaded, verified champion: one batch for all symbols."""

    version: str
    trained_until: datetime

    def predict(
        self, rows: Mapping[str, tuple[datetime, Any]], regimes: Mapping[str, RegimeState]
    ) -> dict[str, Prediction]: ...


class ModelStore(Protocol):
    """Immutable model versions: artefacts by URL, states and gates in PostgreSQL."""

    def champion(self) -> PredictionModel | None:
        """The champion, verified against its manifest and kept for the process. None when there is none.

        Raises ModelUnavailable when it is corrupt or was trained on other features than the code's.
        """
        ...

    def load(self, version: str) -> LoadedModel:
        """Any version, verified as the champion is."""
        ...

    def deciding(self, end: datetime) -> list[dict[str, Any]]:
        """Versions that could decide before `end` without knowing what comes, oldest data first."""
        ...

    def has_version(self, version: str) -> bool: ...
    def trials(self) -> int:
        """How many settings were tried by all versions stored so far, each version itself counting one."""
        ...

    def save(
        self,
        version: str,
        families: Mapping[RegimeFamily, FamilyModel],
        reference: Mapping[str, Any],
        manifest: Mapping[str, Any],
        gates: Sequence[Gate],
        *,
        trained_from: datetime,
        trained_until: datetime,
        at: datetime,
    ) -> dict[str, Any]:
        """Store a new version as a challenger with its gates; returns the manifest as stored. A known one stays."""
        ...

    def promote(self, version: str, actor: str, at: datetime, **detail: Any) -> None:
        """Make it the champion and retire the former one in one transaction; refused when a gate failed."""
        ...

    def version(self, version: str) -> dict[str, Any]: ...
    def reference(self, version: str) -> dict[str, Any]: ...
    def start_training(self, run_id: str, reason: str, at: datetime) -> None: ...
    def finish_training(self, run_id: str, state: str, report: Mapping[str, Any], at: datetime) -> None: ...
    def insert_drift(self, at: datetime, version: str, alarmed: bool, report: Mapping[str, Any]) -> None: ...


class Ports(Protocol):
    """Everything a job may reach, built lazily by `wiring.Wiring`: a job touches only what it names.

    Each attribute is made on first use and lives as long as the process's wiring.
    """

    @property
    def account(self) -> str: ...
    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def params(self) -> StrategyParams: ...
    @property
    def params_error(self) -> str:
        """Why the file of the strategy's values cannot be used, in one line; "" when it can."""
        ...

    @property
    def max_capital_quote(self) -> Decimal | None:
        """The most equity that trading may use; None where no real money is at stake."""
        ...

    @property
    def clock(self) -> Clock: ...
    @property
    def wall(self) -> Clock: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def alerts(self) -> Alerts: ...
    @property
    def market_data(self) -> MarketData: ...
    @property
    def market_store(self) -> MarketStore: ...
    @property
    def known_empty(self) -> KnownEmpty: ...
    @property
    def upkeep(self) -> Upkeep: ...
    @property
    def state_store(self) -> StateStore: ...
    @property
    def news_store(self) -> NewsStore: ...
    @property
    def news_feeds(self) -> NewsFeeds: ...
    @property
    def article_scorer(self) -> ArticleScorer: ...
    @property
    def exchange(self) -> TradingExchange: ...
    @property
    def trading_store(self) -> TradingStore: ...
    @property
    def model_store(self) -> ModelStore: ...
    @property
    def parity_store(self) -> ParityStore: ...
