"""Who decides when: at each bar the newest model whose data ended before it.

A version decides from the first bar after the end of its data, until a newer one takes over. So no model ever answers
about a bar that it, or its promotion, has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tradewind.core.ensemble import LoadedModel
from tradewind.core.features import compute_features
from tradewind.core.params import StrategyParams
from tradewind.core.regime import family_codes, measure_regime, regime_codes
from tradewind.core.types import Bars, Instrument, SentimentState

from .signals import Forecast, ModelSpan, SymbolSeries, model_forecast, symbol_series

Rows = NDArray[np.bool_]


def spans_of(ends_ms: Mapping[str, int]) -> tuple[ModelSpan, ...]:
    """One span a version, from the end of its data on, ascending; of two that end together the later named decides."""
    by_end = {end_ms: version for version, end_ms in ends_ms.items()}
    return tuple(ModelSpan(end_ms, version, end_ms) for end_ms, version in sorted(by_end.items()))


def no_forecast(length: int) -> Forecast:
    """A forecast in which nobody has answered yet."""
    empty = np.full(length, np.nan)
    return Forecast(empty, empty, empty, empty, "", empty, ("",), np.zeros(length, dtype=np.int64))


def overlay(base: Forecast, answers: Forecast, inside: Rows) -> Forecast:
    """`base` with another model's answers on the rows that a mask marks."""
    assert base.p_neither is not None
    assert answers.p_neither is not None
    assert base.version_of is not None
    return Forecast(
        np.where(inside, answers.p_long, base.p_long),
        np.where(inside, answers.p_short, base.p_short),
        np.where(inside, answers.expected_r_long, base.expected_r_long),
        np.where(inside, answers.expected_r_short, base.expected_r_short),
        "",
        np.where(inside, answers.p_neither, base.p_neither),
        (*base.versions, answers.model_version),
        np.where(inside, len(base.versions), base.version_of),
    )


def walk_forward_series(
    bars: Bars,
    leader: Bars,
    instrument: Instrument,
    spans: Sequence[ModelSpan],
    load: Callable[[str], LoadedModel],
    params: StrategyParams,
    sentiment: tuple[SentimentState, ...] = (),
) -> SymbolSeries:
    """One symbol whose models take turns. Each model is asked about its own stretch alone."""
    measures = measure_regime(bars, params)
    families = family_codes(regime_codes(measures, params))
    features = compute_features(bars, leader, params)
    forecast = no_forecast(len(bars))
    edges = [*(span.start_ms for span in spans[1:]), int(bars.open_time_ms[-1]) + 1 if len(bars) else 0]
    for span, end_ms in zip(spans, edges, strict=False):
        inside = (bars.open_time_ms >= span.start_ms) & (bars.open_time_ms < end_ms)
        if inside.any():
            asked = np.where(inside, families, -1)
            forecast = overlay(forecast, model_forecast(load(span.version), features, asked), inside)
    return symbol_series(bars, instrument, forecast, params, sentiment, measures)
