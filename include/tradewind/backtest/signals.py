"""What a replay decides on: per bar the probabilities, the regime and the market's numbers, as columns.

A column's row i was known at the close of bar i. Rows without a prediction hold NaN. The regime comes from the same
functions as live; a model-free rule brings its own columns (`rules.py`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from tradewind.core.candles import empty_bars
from tradewind.core.gates import pays_more_than_judged
from tradewind.core.inputs import SymbolInputs
from tradewind.core.market_numbers import MarketColumns, market_columns
from tradewind.core.params import StrategyParams
from tradewind.core.quality import QualityRules, judge_quality, surely_sound
from tradewind.core.regime import (
    FAMILIES,
    REGIMES,
    UNDETERMINED,
    RegimeMeasures,
    family_codes,
    family_of,
    measure_regime,
    regime_codes,
)
from tradewind.core.resampling import BASE_MS
from tradewind.core.sentiment import known_at, known_until
from tradewind.core.types import (
    Bars,
    FloatArray,
    Instrument,
    IntArray,
    Prediction,
    RegimeFamily,
    RegimeState,
    SentimentState,
    StoredVerdict,
)

if TYPE_CHECKING:
    # A rule needs neither, and their packages take most of a second to import.
    from tradewind.core.ensemble import LoadedModel
    from tradewind.core.features import FeatureMatrix

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """A model's (or a rule's) answers for one symbol, aligned with its bars; NaN where there is none."""

    p_long: FloatArray
    p_short: FloatArray
    expected_r_long: FloatArray
    expected_r_short: FloatArray
    model_version: str
    p_neither: FloatArray | None = None  # None: what the other two leave
    versions: tuple[str, ...] = ()  # where several models take turns: `version_of` says which answered each row
    version_of: IntArray | None = None

    def version_at(self, row: int) -> str:
        """Which model answered at a row."""
        return self.model_version if self.version_of is None else self.versions[int(self.version_of[row])]


@dataclass(frozen=True, slots=True)
class ModelSpan:
    """From the bar opened at `start_ms` on, this version decides; its data end at `trained_until_ms`."""

    start_ms: int
    version: str
    trained_until_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class SymbolSeries:
    """One symbol through the whole replay. All arrays have the bars' length."""

    bars: Bars
    instrument: Instrument
    forecast: Forecast
    numbers: MarketColumns
    regimes: IntArray  # index into core.regime.REGIMES, UNDETERMINED where unknown
    measures: RegimeMeasures
    sentiment: tuple[SentimentState, ...] = ()  # ascending by as_of
    quality: QualityRules | None = None  # what live asks of the bars before an entry; None asks nothing
    sound: frozenset[int] = frozenset()  # rows of which it is known that those bars are fit

    def __len__(self) -> int:
        return len(self.bars)

    @property
    def families(self) -> IntArray:
        """Index into core.regime.FAMILIES of each bar, negative for none."""
        return family_codes(self.regimes)

    def regime_at(self, row: int) -> RegimeState | None:
        """The regime as live would have stored it; None inside the warm-up."""
        code = int(self.regimes[row])
        if code == UNDETERMINED:
            return None
        return RegimeState(
            self.bars.symbol,
            moment(int(self.bars.open_time_ms[row])),
            REGIMES[code],
            family_of(REGIMES[code]),
            float(self.measures.adx[row]),
            float(self.measures.natr_ratio[row]),
            float(self.measures.natr_quantile[row]),
            float(self.measures.bandwidth_quantile[row]),
        )

    def prediction_at(self, row: int, family: RegimeFamily | None) -> Prediction | None:
        """The forecast of one bar; None where there is none or the regime asks no model."""
        p_long = float(self.forecast.p_long[row])
        if family is None or math.isnan(p_long):
            return None
        p_short, neither = float(self.forecast.p_short[row]), self.forecast.p_neither
        return Prediction(
            symbol=self.bars.symbol,
            bar=moment(int(self.bars.open_time_ms[row])),
            model_version=self.forecast.version_at(row),
            family=family,
            p_long=p_long,
            p_short=p_short,
            p_neither=1.0 - p_long - p_short if neither is None else float(neither[row]),
            expected_r_long=float(self.forecast.expected_r_long[row]),
            expected_r_short=float(self.forecast.expected_r_short[row]),
            features_sha256="",
        )

    def inputs_at(self, row: int, sentiment_max_age: timedelta) -> SymbolInputs:
        """What a live cycle would have known of this symbol at the close of bar `row`."""
        until = known_until(moment(int(self.bars.open_time_ms[row]) + BASE_MS))
        regime = self.regime_at(row)
        prediction = self.prediction_at(row, regime.family if regime is not None else None)
        return SymbolInputs(
            symbol=self.bars.symbol,
            numbers=self.numbers.at(row),
            regime=regime,
            sentiment=known_at(self.bars.symbol, self.sentiment_at(until), until, sentiment_max_age),
            prediction=prediction,
            instrument=self.instrument,
            quality=self.quality_at(row),
        )

    def quality_at(self, row: int) -> StoredVerdict | None:
        """What live's check says of the bars up to this one. Hours are made of these bars, so they cannot differ."""
        if self.quality is None:
            return None
        open_ms = int(self.bars.open_time_ms[row])
        if row in self.sound:
            return StoredVerdict(moment(open_ms), moment(open_ms + BASE_MS), True, {})
        window = self.bars.slice(max(0, row + 1 - self.quality.window_bars), row + 1)
        found = judge_quality(window, empty_bars(self.bars.symbol, "1h"), open_ms, self.quality)
        return StoredVerdict(moment(open_ms), moment(open_ms + BASE_MS), found.passed, found.findings)

    def sentiment_at(self, now: datetime) -> SentimentState | None:
        """The newest state known at `now`, as it was stored."""
        at = bisect_right(self.sentiment, now, key=lambda state: state.as_of)
        return self.sentiment[at - 1] if at else None


Series = TypeVar("Series", bound=SymbolSeries)


def judged_at_once(series: Series, rows: IntArray) -> Series:
    """The series with the bars of many rows judged together: what is surely fit need not be asked one by one."""
    if series.quality is None or len(rows) == 0:
        return series
    return replace(series, sound=frozenset(rows[surely_sound(series.bars, rows, series.quality)].tolist()))


def symbol_series(
    bars_15m: Bars,
    instrument: Instrument,
    forecast: Forecast,
    params: StrategyParams,
    sentiment: tuple[SentimentState, ...] = (),
    measures: RegimeMeasures | None = None,
    quality: QualityRules | None = QualityRules(),  # noqa: B008 - a frozen value
) -> SymbolSeries:
    """All columns of one symbol, by the functions that live uses. Raises ValueError for arrays of another length."""
    for name in ("p_long", "p_short", "expected_r_long", "expected_r_short"):
        if len(getattr(forecast, name)) != len(bars_15m):
            raise ValueError(f"{bars_15m.symbol}: {name} has another length than the bars")
    if measures is None:
        measures = measure_regime(bars_15m, params)
    return SymbolSeries(
        bars=bars_15m,
        instrument=instrument,
        forecast=forecast,
        numbers=market_columns(bars_15m, params),
        regimes=regime_codes(measures, params),
        measures=measures,
        sentiment=sentiment,
        quality=quality,
    )


def model_forecast(model: LoadedModel, features: FeatureMatrix, families: IntArray) -> Forecast:
    """The champion's answers at every bar, in one batch a family: what `LoadedModel.predict` says bar by bar.

    `families` indexes core.regime.FAMILIES; a bar without a family or with a NaN feature gets no forecast.
    """
    n = len(features.values)
    columns = np.full((5, n), np.nan)
    complete = ~np.isnan(features.values).any(axis=1)
    for family, fitted in model.families.items():
        rows = np.flatnonzero(complete & (families == FAMILIES.index(family)))
        if len(rows) == 0:
            continue
        p = fitted.probabilities(np.ascontiguousarray(features.values[rows], dtype=np.float32))
        expected_long, expected_short = fitted.expected_r(p)
        columns[:, rows] = p[:, 0], p[:, 1], expected_long, expected_short, p[:, 2]
    return Forecast(columns[0], columns[1], columns[2], columns[3], model.version, columns[4])


def model_series(
    bars_15m: Bars,
    leader_15m: Bars,
    instrument: Instrument,
    model: LoadedModel,
    params: StrategyParams,
    sentiment: tuple[SentimentState, ...] = (),
) -> SymbolSeries:
    """One symbol with a model's forecasts, in one vectorised pass. Raises MissingData when the leader lacks its bar."""
    from tradewind.core.features import compute_features

    measures = measure_regime(bars_15m, params)
    families = family_codes(regime_codes(measures, params))
    forecast = model_forecast(model, compute_features(bars_15m, leader_15m, params), families)
    return symbol_series(bars_15m, instrument, forecast, params, sentiment, measures)


def prefilter(
    series: SymbolSeries, params: StrategyParams, *, may_short: bool = False, rows: IntArray | None = None
) -> dict[str, BoolArray]:
    """For each bar what the filters that look at columns alone would say of an entry, in their order.

    The side is the one that `filters.choose_signal` takes: long, or where shorts are allowed the one worth more.

    Only bars that pass all of these are decided in full; the others are counted. A test holds each mask equal to its
    filter's verdict. With `rows` only those are looked at, and the masks are as long.
    """
    chosen = slice(None) if rows is None else rows
    numbers, regimes = series.numbers, series.regimes[chosen]
    volume_ratio, atr_quote = numbers.volume_ratio[chosen], numbers.atr_quote[chosen]
    close, trend_ema = numbers.close[chosen], numbers.trend_ema[chosen]
    p_long, p_short = series.forecast.p_long[chosen], series.forecast.p_short[chosen]
    expected_long, expected_short = series.forecast.expected_r_long[chosen], series.forecast.expected_r_short[chosen]
    families = family_codes(regimes)
    known = np.isfinite(volume_ratio) & np.isfinite(atr_quote) & np.isfinite(trend_ema)
    predicted = np.isfinite(p_long)
    chaotic = (regimes != UNDETERMINED) & (families < 0)
    least = np.array([params.least_probability(family) for family in FAMILIES])[np.maximum(families, 0)]
    complete = known & (regimes != UNDETERMINED) & (predicted | chaotic)
    fees_hold = not pays_more_than_judged(series.instrument, params)
    with np.errstate(invalid="ignore"):
        natr = atr_quote / close
        short = (expected_short > expected_long) & may_short
        own = np.where(short, p_short, p_long)
        opposite = np.where(short, p_long, p_short)
        expected = np.where(short, expected_short, expected_long)
        with_trend = np.where(short, close < trend_ema, close > trend_ema)
        return {
            "completeness": complete & (numbers.missing_bars[chosen] <= params.max_missing_bars),
            "regime": families >= 0,
            "signal": predicted & (families >= 0) & (own >= least) & (own - opposite >= params.min_probability_edge),
            "trend": predicted & (families >= 0) & known & with_trend,
            "volatility": known & (natr >= params.natr_min_frac) & (natr <= params.natr_max_frac),
            "volume": known & (volume_ratio >= params.min_volume_ratio),
            "expected_value": predicted & (families >= 0) & (expected >= params.min_expected_r) & fees_hold,
        }


def moment(at_ms: int) -> datetime:
    """Epoch milliseconds as an aware datetime."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)
