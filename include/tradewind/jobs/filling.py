"""Gaps: what is missing and may exist is asked for, what the exchange does not have stays missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from tradewind.core.candles import missing_ranges, requests_for
from tradewind.core.ports import CandleGap, Listing, Ports
from tradewind.core.timeframes import closed_until_ms, count_opens, from_ms, to_ms
from tradewind.errors import RetryError, StopError, TradewindError

from .fetching import clip_to_listing, collected_symbols, fetch_closed, find_listings, in_parallel, with_patience

log = structlog.get_logger(__name__)

TIMEFRAMES = ("15m", "1h")
_PAGE_BARS = 1_000
# The newest bar belongs to its collection, which knows when it is final.
_SETTLING_MS = 60_000
_HOUR_S = 3_600.0
_DAY_S = 86_400.0
_ROUTINE_DAYS = 7


@dataclass(frozen=True, slots=True)
class _Answered:
    """One request's outcome: new bars, the ranges that the answer lacked, or an error."""

    asked: CandleGap
    new: int = 0
    corrections: int = 0
    empty: list[CandleGap] = field(default_factory=list)
    error: TradewindError | None = None


def fill_candle_gaps(ports: Ports, timeframes: Sequence[str] = TIMEFRAMES, *, routine: bool = False) -> dict[str, Any]:
    """Find every gap from each series' first wanted bar to now, fetch what may exist, remember what does not: of the
    configured symbols and of those that are held.

    A `routine` run looks at the last seven days alone, unless none has yet looked at everything on this UTC day of the
    market's clock: years of history do not break every hour, and counting them costs seconds.

    A range becomes known to be empty only by a successful answer that lacked it, bar by bar, and for a while: recent
    ranges are asked again soon, old ones after a week.

    Returns `searched` ("everything" or "7 days"), `found` (gaps), `missing_bars`, `known_empty_bars` (skipped without a
    request), `requests`, `filled_bars`, `empty_bars` (newly known), `corrections` and `failed` (reason by series).

    Raises
    ------
    The exchange's error when it answered no request at all.
    """
    now_ms = to_ms(ports.clock.now())
    first_ms = ports.market_store.first_wanted_ms(collected_symbols(ports), timeframes)
    # What the exchange no longer lists can no longer be asked for.
    listed = ports.market_data.instruments(sorted({symbol for symbol, _ in first_ms}))
    listings = find_listings(ports, list(listed))
    first_ms = {key: ms for key, ms in first_ms.items() if key[0] in listed}
    searched = _Search.due(ports, now_ms) if routine else _Search()
    wanted = wanted_ranges(searched.starts(ports, first_ms, now_ms), listings, now_ms)
    gaps = ports.market_store.find_gaps(wanted)
    unknown = ports.known_empty.filter_unknown(gaps)

    requests = requests_for(unknown, _PAGE_BARS)
    answers = in_parallel(lambda request: _ask(ports, *request), requests)

    for answer in answers:
        for empty in answer.empty:
            ports.known_empty.remember(empty, _ttl_s(empty, now_ms))
    _remember_delisted(ports, answers, wanted, now_ms)
    failed = {f"{answer.asked.symbol} {answer.asked.timeframe}": answer.error for answer in answers if answer.error}
    for series, error in failed.items():
        log.warning("gaps not filled", series=series, reason=str(error))
    filled = sum(answer.new for answer in answers)
    ports.metrics.gauge("tradewind.gaps.missing_bars", _bars(gaps) - filled)
    ports.metrics.count("tradewind.gaps.filled", filled)
    if answers and all(answer.error for answer in answers):
        raise next(error for error in failed.values())
    if not failed:
        searched.finish(ports)
    return {
        "searched": searched.words,
        "found": len(gaps),
        "missing_bars": _bars(gaps),
        "known_empty_bars": _bars(gaps) - _bars(unknown),
        "requests": len(requests),
        "filled_bars": filled,
        "empty_bars": sum(_bars(answer.empty) for answer in answers),
        "corrections": sum(answer.corrections for answer in answers),
        "failed": {series: str(error) for series, error in failed.items()},
    }


@dataclass(frozen=True, slots=True)
class _Search:
    """How far back a run looks, and the job that remembers the day on which everything was looked at."""

    job_id: str = ""
    is_whole: bool = True

    @classmethod
    def due(cls, ports: Ports, now_ms: int) -> _Search:
        """The routine run's: everything, until a run of this day has done so."""
        job_id = f"gap_search__{from_ms(now_ms):%Y-%m-%d}"
        if not ports.market_store.create_job(job_id, "fill_candle_gaps", {}, requested_by="fill_candle_gaps"):
            job = ports.market_store.job(job_id)
            if job is not None and job["state"] == "done":
                return cls(is_whole=False)
        ports.market_store.move_job(job_id, "running")
        return cls(job_id)

    @property
    def words(self) -> str:
        return "everything" if self.is_whole else f"{_ROUTINE_DAYS} days"

    def starts(self, ports: Ports, first_ms: Mapping[tuple[str, str], int], now_ms: int) -> dict[tuple[str, str], int]:
        """From when each series is looked at; never from before what the exchange answers for."""
        least_ms = 0 if self.is_whole else now_ms - round(_ROUTINE_DAYS * _DAY_S * 1000)
        reach_ms = {timeframe: ports.market_data.oldest_open_ms(timeframe) or 0 for _, timeframe in first_ms}
        return {key: max(ms, least_ms, reach_ms[key[1]]) for key, ms in first_ms.items()}

    def finish(self, ports: Ports) -> None:
        if self.job_id:
            ports.market_store.move_job(self.job_id, "done")


def wanted_ranges(
    first_ms: Mapping[tuple[str, str], int], listings: Mapping[str, Listing], now_ms: int
) -> dict[tuple[str, str], tuple[int, int]]:
    """From when to when each series should be complete: from its first wanted bar to now, while its symbol traded."""
    return {
        (symbol, timeframe): clip_to_listing(
            listings.get(symbol), timeframe, start_ms, closed_until_ms(now_ms - _SETTLING_MS, timeframe)
        )
        for (symbol, timeframe), start_ms in first_ms.items()
    }


def _ask(ports: Ports, asked: CandleGap, gaps: Sequence[CandleGap]) -> _Answered:
    """Fetch one request's range, store what came, and say which of its gaps' bars did not come."""
    try:
        bars, refused = with_patience(
            lambda: fetch_closed(ports, asked.symbol, asked.timeframe, asked.start_ms, asked.end_ms, bulk=True),
            what=f"gaps of {asked.symbol} {asked.timeframe}",
        )
    except (RetryError, StopError) as error:
        return _Answered(asked, error=error)
    stored = ports.market_store.store_candles([bars])
    empty = [
        CandleGap(asked.symbol, asked.timeframe, start_ms, end_ms)
        for gap in gaps
        for start_ms, end_ms in missing_ranges(bars.open_time_ms, gap.start_ms, gap.end_ms, gap.timeframe)
    ]
    # A refused row is no absence: the exchange has something there, and may put it right.
    return _Answered(asked, stored.new, stored.corrections, [] if refused else empty)


def _ttl_s(empty: CandleGap, now_ms: int) -> float:
    """How long an empty range is believed: late bars come within hours, a repaired archive within weeks.

    Spread by the range's own start, so that what was learned at once is not asked again at once.
    """
    age_s = (now_ms - empty.end_ms) / 1000
    ttl_s = _HOUR_S / 2 if age_s < _DAY_S else 6 * _HOUR_S if age_s < 7 * _DAY_S else 7 * _DAY_S
    return ttl_s * (1 + (empty.start_ms // 60_000 % 97) / 485)


def _remember_delisted(
    ports: Ports, answers: Sequence[_Answered], wanted: dict[tuple[str, str], tuple[int, int]], now_ms: int
) -> None:
    """A symbol that is closed to trading and without a bar for a day has ceased: its tail is not asked for again."""
    rules = ports.market_data.instruments(sorted({symbol for symbol, _ in wanted})) if answers else {}
    ended: dict[str, int] = {}
    for answer in answers:
        for empty in answer.empty:
            is_tail = empty.end_ms == wanted[empty.symbol, empty.timeframe][1]
            is_closed = empty.symbol in rules and not rules[empty.symbol].active
            if is_tail and is_closed and now_ms - empty.start_ms > _DAY_S * 1000:
                ended[empty.symbol] = max(empty.start_ms, ended.get(empty.symbol, 0))
    if ended:
        known = ports.market_store.listings(list(ended))
        ports.market_store.save_listings(
            [
                Listing(symbol, known[symbol].listed_at if symbol in known else None, from_ms(end_ms))
                for symbol, end_ms in ended.items()
            ]
        )


def _bars(gaps: Sequence[CandleGap]) -> int:
    return sum(count_opens(gap.start_ms, gap.end_ms, gap.timeframe) for gap in gaps)
