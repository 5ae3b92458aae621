"""One collection of one interval: polls every symbol until its bars are final, stores each as soon as it is there.

A symbol that was taken out of the settings is collected until its last position is closed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from tradewind.core.candles import take
from tradewind.core.ports import Ports
from tradewind.core.timeframes import count_opens, timeframe_ms, to_ms
from tradewind.core.types import Bars
from tradewind.errors import RateLimited, RetryError, StopError, TradewindError

from .fetching import as_answered, collected_symbols, keep_valid

log = structlog.get_logger(__name__)

_WORKERS = 8
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 2.0
# Once one symbol's newest bar is there the others' should be: whoever lacks it holds up the rest no longer than this.
_STRAGGLERS_S = 10.0
# How far back a collection of the newest bar also takes what the ones before it missed: a day, in the same request.
_HEALED_BARS = 96
# The exchange may still be adding trades to a bar just closed; past this age its answer is taken as final.
_SETTLED_MS = 2_000
# A bar this old is final whatever the clocks' difference.
_SKEW_MATTERS_MS = 60_000


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one symbol's poll brought: the interval's valid bars and whether they are final, or an error."""

    symbol: str
    bars: Bars | None = None
    is_final: bool = False
    refused: int = 0
    error: TradewindError | None = None


class Collection:
    """The state of one run of `collect_candles` over [start_ms, end_ms), which has closed by the market's clock."""

    def __init__(self, ports: Ports, timeframe: str, start_ms: int, end_ms: int, *, is_newest: bool) -> None:
        self._ports = ports
        self._symbols = collected_symbols(ports)
        self._timeframe = timeframe
        self._start_ms, self._end_ms = start_ms, end_ms
        self._is_newest = is_newest
        self._from_ms = self._asked_from()
        self._halted: set[str] = set()
        self._healed: set[str] = set()
        self._wanted = count_opens(start_ms, end_ms, timeframe)
        self._skew_ms: float | None = None
        self.bars: dict[str, int] = {}
        self.errors: dict[str, TradewindError] = {}
        self.new = self.healed = self.corrections = self.refused = 0

    @property
    def missing(self) -> list[str]:
        """The symbols whose answer lacked a bar."""
        return [s for s in self._symbols if s not in self.errors and self.bars.get(s, 0) < self._wanted]

    def run(self, deadline_s: float) -> None:
        """Poll until every symbol has its bars, nothing more can be expected, or the deadline is reached."""
        deadline = time.monotonic() + deadline_s
        pending = list(self._symbols)
        pause_s = _FIRST_PAUSE_S
        while True:
            for answers in self._poll(pending):
                self._keep(answers)
            pending = [symbol for symbol in pending if self._is_worth_asking_again(symbol)]
            if self._is_newest and len(self.missing) + len(self.errors) < len(self._symbols):
                deadline = min(deadline, time.monotonic() + _STRAGGLERS_S)
            asked_to_wait = [e.retry_after_s for s in pending if isinstance(e := self.errors.get(s), RateLimited)]
            pause_s = max([pause_s, *asked_to_wait])
            if not pending or time.monotonic() + pause_s > deadline:
                return
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _is_worth_asking_again(self, symbol: str) -> bool:
        if symbol in self.errors:
            return isinstance(self.errors[symbol], RetryError)
        # An older interval's answer is the last word; the newest bar may still be on its way, unless the symbol has
        # had none for a while: its trading is halted.
        return self._is_newest and self.bars.get(symbol, 0) < self._wanted and symbol not in self._halted

    def _asked_from(self) -> dict[str, int]:
        """From when each symbol is asked: the newest interval reaches back to the symbol's last stored bar."""
        asked = dict.fromkeys(self._symbols, self._start_ms)
        if not self._is_newest:
            return asked
        step = timeframe_ms(self._timeframe)
        last = self._ports.market_store.last_open_ms(self._symbols, self._timeframe)
        for symbol, open_ms in last.items():
            asked[symbol] = min(self._start_ms, max(open_ms + step, self._start_ms - _HEALED_BARS * step))
        return asked

    def _poll(self, symbols: list[str]) -> Iterator[list[_Answer]]:
        before = self._ports.clock.now()
        for answers in as_answered(self._ask, symbols, workers=_WORKERS):
            after = self._ports.clock.now()
            # A market that is stepped by hand stands still: its closed bars cannot change between two looks.
            still = before == after
            age_ms = to_ms(after) - self._end_ms
            yield [self._judged(answer, still=still, age_ms=age_ms) for answer in answers]

    def _ask(self, symbol: str) -> _Answer:
        step = timeframe_ms(self._timeframe)
        try:
            # One bar more than wanted: where it has begun, the one before it is final.
            bars = self._ports.market_data.candles(symbol, self._timeframe, self._from_ms[symbol], self._end_ms + step)
        except TradewindError as error:
            if not isinstance(error, RetryError | StopError):
                raise
            return _Answer(symbol, error=error)
        return _Answer(symbol, bars=bars)

    def _judged(self, answer: _Answer, *, still: bool, age_ms: int) -> _Answer:
        if answer.bars is None:
            return answer
        has_later = bool((answer.bars.open_time_ms >= self._end_ms).any())
        opens = answer.bars.open_time_ms
        inside = (opens >= self._from_ms[answer.symbol]) & (opens < self._end_ms)
        valid, refused = keep_valid(self._ports, take(answer.bars, inside))
        is_final = has_later or still or age_ms >= _SKEW_MATTERS_MS or age_ms + self._skew() >= _SETTLED_MS
        return _Answer(answer.symbol, valid, is_final, refused)

    def _skew(self) -> float:
        """How far the exchange's clock is behind ours, as a number that is never above zero; measured once."""
        if self._skew_ms is None:
            try:
                self._skew_ms = min(0.0, self._ports.market_data.clock_offset_ms())
            except RetryError as error:
                log.info("the exchange's clock did not answer", reason=str(error))
                return float("-inf")
        return self._skew_ms

    def _keep(self, answers: list[_Answer]) -> None:
        final = {answer.symbol: answer.bars for answer in answers if answer.bars is not None and answer.is_final}
        stored = self._ports.market_store.store_candles(list(final.values()))
        self.new += stored.new
        self.corrections += stored.corrections
        for answer in answers:
            if answer.error is not None:
                self.errors[answer.symbol] = answer.error
                continue
            self.errors.pop(answer.symbol, None)
            if answer.symbol in final:
                opens = final[answer.symbol].open_time_ms
                self.bars[answer.symbol] = int((opens >= self._start_ms).sum())
                self.healed += int((opens < self._start_ms).sum()) if answer.symbol not in self._healed else 0
                self._healed.add(answer.symbol)
                self.refused += answer.refused
                if len(opens) == 0 and self._from_ms[answer.symbol] < self._start_ms:
                    self._halted.add(answer.symbol)
