"""All that one bar's decisions are made of, read once for every symbol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from tradewind.core.features import FEATURE_NAMES, LIVE_WINDOW_BARS, compute_features
from tradewind.core.futures_sizing import allowed_sides
from tradewind.core.inputs import CycleInputs, SymbolInputs, pair_key
from tradewind.core.market_numbers import market_numbers, return_correlation
from tradewind.core.ports import Ports, PredictionModel
from tradewind.core.regime import classify_regimes
from tradewind.core.sentiment import known_until
from tradewind.core.timeframes import from_ms, timeframe_ms, to_ms
from tradewind.core.types import Bars, FloatArray, Instrument, RegimeState, SentimentState
from tradewind.errors import MissingData, ModelUnavailable
from tradewind.jobs.equity import build_portfolio, ensure_baseline
from tradewind.jobs.fetching import market_symbols
from tradewind.jobs.payments import ingest_payments, is_margined
from tradewind.jobs.permission import own_contract, permission_now

BAR: Final = timedelta(minutes=15)
LEADER: Final = "leader"


@dataclass(frozen=True, slots=True)
class Read:
    """One bar's inputs without predictions, and the feature rows that predictions are made of."""

    inputs: CycleInputs
    features: Mapping[str, tuple[datetime, FloatArray]]


def read_inputs(ports: Ports, bar: datetime) -> Read:
    """Bars of all symbols in one query, then numbers, features, regime, sentiment, rules, account and correlations.

    What is missing of one symbol is named with that symbol and never keeps another from being decided.
    """
    params, symbols = ports.params, ports.symbols
    end_ms = to_ms(bar) + timeframe_ms(params.decision_timeframe)
    bars = ports.market_store.read_last_bars(market_symbols(ports), params.decision_timeframe, end_ms, LIVE_WINDOW_BARS)
    regimes = current_regimes(ports, {symbol: bars[symbol] for symbol in symbols}, bar)
    sentiment = ports.state_store.sentiment_as_of(symbols, known_until(from_ms(end_ms)))
    quality = ports.market_store.newest_quality(symbols, bar)
    instruments = ports.exchange.instruments(symbols)
    if is_margined(instruments):
        ensure_baseline(ports)  # what was paid before it lies in it
        ingest_payments(ports)  # a funding of this very close counts
    portfolio = build_portfolio(ports)
    features: dict[str, tuple[datetime, FloatArray]] = {}
    found = []
    for symbol in symbols:
        row, missing = _feature_row(ports, bars[symbol], bars[params.leader_symbol], bar)
        if symbol not in quality:
            missing = (*missing, "data quality")
        if symbol in instruments and (own := own_contract(ports, instruments[symbol])) is not None:
            missing = (*missing, f"a contract that nothing else is in ({own})")
        if row is not None:
            features[symbol] = (bar, row)
        known = _symbol_inputs(ports, bars[symbol], regimes, sentiment, instruments, missing)
        found.append(replace(known, quality=quality.get(symbol)))
    held = {exposure.symbol for exposure in portfolio.exposures}
    inputs = CycleInputs(
        account=ports.account,
        bar=bar,
        now=ports.clock.now(),
        params=params,
        permission=permission_now(ports),
        portfolio=portfolio,
        symbols=tuple(found),
        correlations=correlations(bars, sorted(set(symbols) | (held & set(bars))), end_ms, ports),
        losses_lifted_at=ports.trading_store.resumed_at(),
        allowed_sides=allowed_sides(instruments),
    )
    return Read(inputs, features)


def current_regimes(ports: Ports, bars: Mapping[str, Bars], bar: datetime) -> dict[str, RegimeState]:
    """Each symbol's regime at the bar, walked from the last stored state and stored where it is new.

    `detect_regime` stores the same with the same function: whoever comes first, neither waits for the other.
    """
    params_hash = ports.params.hash
    previous = ports.state_store.last_regimes(tuple(bars), bar, params_hash)
    states: list[RegimeState] = []
    for symbol, series in bars.items():
        before = previous.get(symbol)
        if before is None:
            states += classify_regimes(series, ports.params)
        else:
            states += classify_regimes(series, ports.params, before.regime, to_ms(before.bar + BAR))
    ports.state_store.insert_regimes(states, params_hash)
    return {state.symbol: state for state in states if state.bar == bar}


def _feature_row(ports: Ports, bars: Bars, leader: Bars, bar: datetime) -> tuple[FloatArray | None, tuple[str, ...]]:
    """The bar's feature row, or the names of what keeps it from being computed."""
    if len(bars) == 0 or bars.open_time_ms[-1] != to_ms(bar):
        return None, ("bar",)
    try:
        row = compute_features(bars, leader, ports.params).values[-1]
    except MissingData:
        return None, (f"{LEADER} {ports.params.leader_symbol}",)
    unknown = [name for name, value in zip(FEATURE_NAMES, row, strict=True) if not np.isfinite(value)]
    if unknown:
        return None, (f"features ({len(unknown)} not warm, {unknown[0]} first)",)
    return np.ascontiguousarray(row), ()


def _symbol_inputs(
    ports: Ports,
    bars: Bars,
    regimes: Mapping[str, RegimeState],
    sentiment: Mapping[str, SentimentState],
    instruments: Mapping[str, Instrument],
    missing: tuple[str, ...],
) -> SymbolInputs:
    symbol = bars.symbol
    return SymbolInputs(
        symbol=symbol,
        numbers=market_numbers(bars, ports.params),
        regime=regimes.get(symbol),
        sentiment=sentiment.get(symbol),
        prediction=None,
        instrument=instruments.get(symbol),
        missing=missing,
    )


def correlations(bars: Mapping[str, Bars], symbols: list[str], end_ms: int, ports: Ports) -> dict[str, float]:
    """Correlation of every pair whose bars allow it; an absent pair is unknown and counts as moving along."""
    window = ports.params.correlation_window_bars
    found = {}
    for number, first in enumerate(symbols):
        for second in symbols[number + 1 :]:
            value = return_correlation(bars[first], bars[second], end_ms, window)
            if value is not None:
                found[pair_key(first, second)] = value
    return found


def champion(ports: Ports) -> tuple[PredictionModel | None, str]:
    """The champion, or none and why: one that cannot be trusted counts as none, and an alert says the same."""
    try:
        return ports.model_store.champion(), ""
    except ModelUnavailable as error:
        ports.alerts.raise_alert("critical", "model-unavailable", "The champion model cannot be used", str(error))
        return None, str(error)


def explained(inputs: SymbolInputs, row: FloatArray | None) -> dict[str, Any]:
    """What a symbol was judged by, by name, for its stored row."""
    named: dict[str, Any] = {"missing": inputs.missing, "numbers": inputs.numbers, "regime": inputs.regime}
    if row is not None:
        named["features"] = dict(zip(FEATURE_NAMES, row.tolist(), strict=True))
    return named
