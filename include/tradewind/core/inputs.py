"""All that a cycle's decisions are made of, as one value: stored as JSON, it replays to the same decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from .codec import decode, encode
from .params import StrategyParams
from .types import Instrument, Permission, Portfolio, Prediction, RegimeState, SentimentState, Side, StoredVerdict

BAR = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class MarketNumbers:
    """One symbol's numbers at the close of its newest bar; all finite. Prices in quote, volume in base units."""

    bar_ms: int
    close: float
    volume_base: float
    volume_ratio: float  # volume over its mean in the trailing window
    atr_quote: float  # ATR of 1h, as known at the close
    trend_ema: float  # EMA of 4h closes, as known at the close
    missing_bars: int  # absent in the trailing completeness window

    @property
    def natr_frac(self) -> float:
        """ATR as a fraction of the close."""
        return self.atr_quote / self.close


@dataclass(frozen=True, slots=True)
class SymbolInputs:
    """What is known of one symbol at the close of the cycle's bar.

    `missing` names each input that should be here and is not ("bar", "numbers", "leader BTC/USDT", "features",
    "regime", "model: no champion", "instrument", "data quality"); the decision is then UNAVAILABLE and says so.
    `quality` is the newest stored verdict on its bars; None where nobody asks, as under a model-free rule.
    """

    symbol: str
    numbers: MarketNumbers | None
    regime: RegimeState | None
    sentiment: SentimentState | None
    prediction: Prediction | None
    instrument: Instrument | None
    missing: tuple[str, ...] = ()
    quality: StoredVerdict | None = None

    def missing_inputs(self, bar_ms: int) -> tuple[str, ...]:
        """The names in `missing`, and what is absent without having been named."""
        found = list(self.missing)
        if self.numbers is None:
            found.append("bars")
        elif self.numbers.bar_ms != bar_ms:
            found.append("bar")
        found += [
            name
            for name, value in (("regime", self.regime), ("instrument", self.instrument))
            if value is None and name not in self.missing
        ]
        # A chaotic market chooses no model, so nothing is predicted there and nothing is missing.
        if self.prediction is None and not self.missing and (self.regime is None or self.regime.family is not None):
            found.append("prediction")
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class CycleInputs:
    """One bar of one account: all that `decision.decide` looks at. `bar` is the bar's open; `now` the market's clock.

    `correlations` maps `pair_key(a, b)` to the correlation of returns; an absent pair is unknown.
    `model_trained_until` is the end of the data behind the champion, None without one; `model_problem` says why a
    champion cannot be used.
    """

    account: str
    bar: datetime
    now: datetime
    params: StrategyParams
    permission: Permission
    portfolio: Portfolio
    symbols: tuple[SymbolInputs, ...]
    correlations: Mapping[str, float] = field(default_factory=dict)
    model_trained_until: datetime | None = None
    losses_lifted_at: datetime | None = None  # a resume forgives the losses before it
    allowed_sides: tuple[Side, ...] = (Side.LONG,)
    model_problem: str = ""

    @property
    def bar_ms(self) -> int:
        return round(self.bar.timestamp() * 1000)

    @property
    def known_at(self) -> datetime:
        """When the bar was closed and its values known."""
        return self.bar + BAR

    @property
    def expires_at(self) -> datetime:
        """The last moment at which an entry of this bar may be sent."""
        return self.known_at + timedelta(seconds=self.params.max_bar_age_s)

    def correlation(self, a: str, b: str) -> float | None:
        """Correlation of two symbols' returns; None when it is unknown."""
        return 1.0 if a == b else self.correlations.get(pair_key(a, b))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict that `from_json` reads back to an equal value."""
        encoded: dict[str, Any] = encode(self)
        return encoded

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CycleInputs:
        """Raises ValueError or TypeError when the data was stored by a version with other fields."""
        return decode(cls, data)


def pair_key(a: str, b: str) -> str:
    """The name of an unordered pair of symbols."""
    return "|".join(sorted((a, b)))
