"""Replay what this account did, over the same bars and models, and compare.

The comparison begins at the first cycle of the period at which nothing was held, so that both sides start from the
same; it ends at the close of the newest decided bar, beyond which the replay knows no price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np

from tradewind.backtest.funding import market_rates
from tradewind.backtest.replay import ReplaySettings, replay
from tradewind.backtest.signals import SymbolSeries, model_forecast, symbol_series
from tradewind.backtest.walk_forward import no_forecast, overlay
from tradewind.core.features import LIVE_WINDOW_BARS, compute_features
from tradewind.core.inputs import BAR, CycleInputs
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.parity import Ledger, compare
from tradewind.core.ports import Ports
from tradewind.core.regime import family_codes, measure_regime, regime_codes
from tradewind.core.resampling import BASE_MS
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import Bars, Instrument, SentimentState
from tradewind.errors import MissingData
from tradewind.fingerprint import code_sha256
from tradewind.jobs.payments import is_margined

_SHOWN = 20
ZERO = Decimal(0)


def check_parity(
    ports: Ports, since: datetime, until: datetime | None = None, *, matching: MatchingSettings | None = None
) -> dict[str, Any]:
    """Compare the account's stored period [since, until) with its replay and store the report; returns its summary.

    `matching` is how the simulated market fills: the paper exchange's own settings for an account that trades there,
    None for the strategy's assumptions. Raises MissingData when no cycle without a position lies in the period.
    """
    until = until or ports.clock.now()
    cycles = _from_flat(ports.parity_store.cycles(since, until))
    first, last = cycles[0].bar, cycles[-1].bar
    live = ports.parity_store.ledger(first, last + BAR)
    other_code = ports.parity_store.last_bar_of_other_code(first, last + BAR, code_sha256())

    replayed = replay_cycles(ports, cycles, matching)
    report = compare(live, replayed, last + BAR, None if other_code is None else other_code + BAR)

    ports.parity_store.insert_report(ports.clock.now(), first, last, len(cycles), report)
    ports.metrics.gauge("tradewind.parity.unexplained", report.unexplained)
    if report.unexplained:
        ports.alerts.raise_alert(
            "warning",
            f"parity-{last:%Y%m%d}",
            f"{report.unexplained} differences between live and replay have no known cause",
            f"Between {first:%Y-%m-%d %H:%M} and {last:%Y-%m-%d %H:%M} UTC; see ./tradewind parity.",
        )
    shown = [d for d in report.differences if not d.cause][:_SHOWN] or report.differences[:_SHOWN]
    return {
        "since": first.isoformat(),
        "until": last.isoformat(),
        "cycles": len(cycles),
        "decisions": report.decisions,
        "orders": report.orders,
        "fills": report.fills,
        "differences": len(report.differences),
        "unexplained": report.unexplained,
        "shown": [
            {
                "kind": d.kind,
                "subject": d.subject,
                "field": d.field,
                "live": d.live,
                "replay": d.replay,
                "cause": d.cause,
            }
            for d in shown
        ],
    }


def _from_flat(cycles: Sequence[CycleInputs]) -> list[CycleInputs]:
    for number, inputs in enumerate(cycles):
        if not inputs.portfolio.exposures and number < len(cycles) - 1:
            return list(cycles[number:])
    raise MissingData(
        f"{len(cycles)} stored cycles in this period, and none but the last without a position: begin earlier"
    )


def replay_cycles(ports: Ports, cycles: Sequence[CycleInputs], matching: MatchingSettings | None) -> Ledger:
    """The account's replay over the bars of these cycles, under their recorded permissions and moments."""
    params, start = cycles[0].params, cycles[0]
    instruments = _instruments(cycles)
    symbols = tuple(sorted(instruments))
    wanted = tuple(dict.fromkeys((*symbols, params.leader_symbol)))
    first_ms, end_ms = start.bar_ms, cycles[-1].bar_ms + BASE_MS
    bars = ports.market_store.read_bars(wanted, params.decision_timeframe, _window_start(first_ms), end_ms)
    news = ports.state_store.sentiment_between(symbols, from_ms(_window_start(first_ms)), from_ms(end_ms))
    series = {
        symbol: _series(ports, bars[symbol], bars[params.leader_symbol], instruments[symbol], cycles, news[symbol])
        for symbol in symbols
    }
    # Commissions are paid from what is free of the bought asset, be it dust of earlier trades or not ours at all.
    baseline, dust = ports.trading_store.baseline() or {}, ports.parity_store.base_flows(start.known_at)
    unmoved = {asset: held for asset, held in baseline.items() if asset not in dust}
    settings = ReplaySettings(
        capital_quote=start.portfolio.equity_quote,
        max_capital_quote=ports.max_capital_quote,
        account=ports.account,
        matching=matching,
        # The newest bar's open is the last price there is; what was decided at its close met a later one.
        recorded={inputs.bar_ms: inputs for inputs in cycles[:-1]},
        recent_trades=start.portfolio.recent_trades,
        # The paper exchange's rates are known of its market; a real one's are not stored.
        funding=market_rates(series) if matching is not None and is_margined(instruments) else None,
        base_held={asset: held + baseline.get(asset, ZERO) for asset, held in dust.items()} | unmoved,
        baseline=baseline,
    )
    result = replay(series, params, first_ms, end_ms, settings)
    return Ledger(result.decisions, result.orders, result.fills)


def _window_start(first_ms: int) -> int:
    """Where a live cycle's window began."""
    return first_ms - (LIVE_WINDOW_BARS - 1) * BASE_MS


def _instruments(cycles: Sequence[CycleInputs]) -> dict[str, Instrument]:
    """Each symbol's rules as its first cycle knew them."""
    found: dict[str, Instrument] = {}
    for inputs in cycles:
        for symbol in inputs.symbols:
            if symbol.instrument is not None:
                found.setdefault(symbol.symbol, symbol.instrument)
    return found


def _series(
    ports: Ports,
    bars: Bars,
    leader: Bars,
    instrument: Instrument,
    cycles: Sequence[CycleInputs],
    news: tuple[SentimentState, ...],
) -> SymbolSeries:
    params = cycles[0].params
    families = family_codes(regime_codes(measure_regime(bars, params), params))
    features = compute_features(bars, leader, params)
    merged = no_forecast(len(bars))
    for version, spans in _deciding(cycles).items():
        answers = model_forecast(ports.model_store.load(version), features, families)
        inside = np.zeros(len(bars), dtype=bool)
        for start_ms, end_ms in spans:
            inside |= (bars.open_time_ms >= start_ms) & (bars.open_time_ms < end_ms)
        merged = overlay(merged, answers, inside)
    return replace(symbol_series(bars, instrument, merged, params), sentiment=news)


def _deciding(cycles: Sequence[CycleInputs]) -> Mapping[str, list[tuple[int, int]]]:
    """For each model version the stretches of bars in which it predicted; a cycle that asked none belongs to none."""
    spans: dict[str, list[tuple[int, int]]] = {}
    version = ""
    for inputs in cycles:
        if inputs.model_trained_until is None:
            version = ""
            continue
        version = next((s.prediction.model_version for s in inputs.symbols if s.prediction is not None), version)
        if version:
            spans.setdefault(version, []).append((to_ms(inputs.bar), to_ms(inputs.bar + BAR)))
    return spans
