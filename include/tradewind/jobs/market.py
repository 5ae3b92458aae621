"""Candles: collect the newest, load history, fill gaps, judge quality.

What all of them hold to: only closed and valid bars are stored; a stored bar is never changed; one symbol's failure
neither loses nor delays the others; repeating a job adds nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog

from tradewind.core.ports import Ports
from tradewind.core.quality import QualityRules, judge_quality
from tradewind.core.timeframes import closed_until_ms, from_ms, last_closed_open_ms, timeframe_ms, to_ms

from .collecting import Collection
from .fetching import collected_symbols
from .filling import fill_candle_gaps
from .history import backfill_history

__all__ = ["backfill_history", "check_quality", "collect_candles", "fill_candle_gaps"]

log = structlog.get_logger(__name__)

DECISION_TIMEFRAME = "15m"
_DEADLINE_S = 40.0


def collect_candles(
    ports: Ports, timeframe: str, start: datetime | None, end: datetime | None, *, deadline_s: float = _DEADLINE_S
) -> dict[str, Any]:
    """Store the closed bars of every symbol, configured or held, that open in [start, end); None for either takes the
    last closed interval.

    The newest interval is polled from its close until the exchange has its bars, at most `deadline_s`; each symbol is
    stored as soon as it is there. Whoever still lacks the newest bar while others have it is waited for only some
    seconds more, and a symbol that has had no bar since before the interval, not at all. The same request takes what
    earlier collections of the last day missed of a symbol, so that a failure heals with the next bar. For an older
    interval one answer settles it: what is not in it is an outage.

    Returns
    -------
    `state` ("collected", or "not_closed" with nothing stored when the market's clock has not reached `end`), `start`,
    `end`, `bars` (of the interval by symbol, stored now or before), `new`, `healed` (bars of earlier intervals),
    `corrections`, `refused`, `missing` (symbols whose answer lacked a bar), `failed` (reason by symbol), `newest` (the
    interval is the newest closed one by the market's clock) and `newest_complete` (it is, and every configured symbol
    has its bars).

    Raises
    ------
    The exchange's error when not one configured symbol could be asked.
    """
    step = timeframe_ms(timeframe)
    closed_ms = closed_until_ms(to_ms(ports.clock.now()), timeframe)
    start_ms, end_ms = (closed_ms - step, closed_ms) if start is None or end is None else (to_ms(start), to_ms(end))
    interval = {"timeframe": timeframe, "start": from_ms(start_ms).isoformat(), "end": from_ms(end_ms).isoformat()}
    if end_ms > closed_ms:
        return {"state": "not_closed", **interval, "newest": False, "newest_complete": False}

    is_newest = end_ms == closed_ms
    collection = Collection(ports, timeframe, start_ms, end_ms, is_newest=is_newest)
    collection.run(deadline_s)

    for symbol, error in collection.errors.items():
        log.warning("symbol failed", symbol=symbol, timeframe=timeframe, reason=str(error))
        ports.metrics.count("tradewind.candles.failed", symbol=symbol, timeframe=timeframe)
    ports.metrics.count("tradewind.candles.new", collection.new, timeframe=timeframe)
    ports.metrics.count("tradewind.candles.corrections", collection.corrections, timeframe=timeframe)
    if collection.errors.keys() >= set(ports.symbols):
        raise collection.errors[ports.symbols[0]]
    if is_newest and timeframe == DECISION_TIMEFRAME:
        check_quality(ports, from_ms(end_ms - step))
    return {
        "state": "collected",
        **interval,
        "bars": collection.bars,
        "new": collection.new,
        "healed": collection.healed,
        "corrections": collection.corrections,
        "refused": collection.refused,
        "missing": collection.missing,
        "failed": {symbol: str(error) for symbol, error in collection.errors.items()},
        "newest": is_newest,
        "newest_complete": is_newest and not {*collection.missing, *collection.errors} & set(ports.symbols),
    }


def check_quality(ports: Ports, bar: datetime | None = None, rules: QualityRules | None = None) -> dict[str, Any]:
    """Judge every symbol's recent window at `bar` (None: the newest closed one) and store the verdicts, once a bar.

    Returns `bar`, `passed` (symbols) and `failed` (the broken rules by symbol).
    """
    rules = rules or QualityRules()
    step = timeframe_ms(DECISION_TIMEFRAME)
    bar_ms = last_closed_open_ms(to_ms(ports.clock.now()), DECISION_TIMEFRAME) if bar is None else to_ms(bar)
    start_ms, end_ms = bar_ms + step - rules.window_bars * step, bar_ms + step
    symbols = collected_symbols(ports)
    windows = ports.market_store.read_last_bars(symbols, DECISION_TIMEFRAME, end_ms, rules.window_bars)
    hourly = ports.market_store.read_bars(symbols, "1h", start_ms, end_ms)

    verdicts = [judge_quality(windows[symbol], hourly[symbol], bar_ms, rules) for symbol in symbols]

    ports.market_store.save_quality(from_ms(bar_ms), verdicts)
    failed = {verdict.symbol: sorted(verdict.findings) for verdict in verdicts if not verdict.passed}
    for symbol, findings in failed.items():
        log.warning("data not fit to trade on", symbol=symbol, bar=from_ms(bar_ms).isoformat(), findings=findings)
    ports.metrics.gauge("tradewind.quality.failed_symbols", len(failed))
    return {
        "bar": from_ms(bar_ms).isoformat(),
        "passed": [verdict.symbol for verdict in verdicts if verdict.passed],
        "failed": failed,
    }
