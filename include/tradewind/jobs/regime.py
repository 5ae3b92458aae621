"""The job of `detect_regime`: the regime of every symbol at each bar that has none stored yet."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from tradewind.core.features import LIVE_WINDOW_BARS
from tradewind.core.ports import Ports
from tradewind.core.regime import classify_regimes
from tradewind.core.timeframes import timeframe_ms, to_ms
from tradewind.core.types import RegimeState

BAR: Final = timedelta(minutes=15)


def detect_regime(ports: Ports, until: datetime | None = None) -> dict[str, Any]:
    """Store the regime of all symbols at closed bars up to `until` (by default now), from the last stored state on.

    A symbol without any stored state gets those of the whole window that is read. The trade cycle computes the same
    with the same function; both insert and neither rewrites. Returns counts, and the symbols without enough history.
    """
    until = until or ports.clock.now()
    # A bar is known at its close, so the last one opened a whole bar before `until`.
    end_ms = to_ms(until) - timeframe_ms(ports.params.decision_timeframe) + 1
    params_hash = ports.params.hash
    bars = ports.market_store.read_last_bars(ports.symbols, ports.params.decision_timeframe, end_ms, LIVE_WINDOW_BARS)
    previous = ports.state_store.last_regimes(ports.symbols, until, params_hash)

    states: list[RegimeState] = []
    without: list[str] = []
    for symbol in ports.symbols:
        before = previous.get(symbol)
        if before is None:
            found = classify_regimes(bars[symbol], ports.params)
        else:
            found = classify_regimes(bars[symbol], ports.params, before.regime, to_ms(before.bar + BAR))
        states += found
        if before is None and not found:
            without.append(symbol)

    stored = ports.state_store.insert_regimes(states, params_hash)
    ports.metrics.count("tradewind.regimes.stored", stored)
    return {"stored": stored, "symbols": len(ports.symbols), "without_history": without}
