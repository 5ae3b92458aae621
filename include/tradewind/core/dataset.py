"""From bars to what a model is fitted on: features, regimes and labels of each symbol, pooled by family."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .boosters import Matrix
from .ensemble import Sample
from .features import FeatureMatrix, compute_features
from .labels import NO_LABEL, Labels, average_uniqueness, label_bars
from .params import StrategyParams
from .regime import FAMILIES, family_codes, measure_regime, regime_codes
from .types import Bars, FloatArray, IntArray, RegimeFamily


@dataclass(frozen=True, slots=True, eq=False)
class SymbolPanel:
    """One symbol's bars with everything known and labelled at each; all columns have the bars' length n.

    `features` is float32 (what the boosters read), NaN inside warm-ups; `uniqueness` is NaN where there is no label.
    """

    bars: Bars
    names: tuple[str, ...]
    features: Matrix
    families: IntArray  # index into regime.FAMILIES, negative for none
    labels: Labels
    uniqueness: FloatArray
    complete: NDArray[np.bool_]  # rows whose features are all known

    @property
    def matrix(self) -> FeatureMatrix:
        """The features as `compute_features` names them, in the boosters' precision."""
        return FeatureMatrix(self.bars.symbol, self.names, self.bars.open_time_ms, self.features)  # type: ignore[arg-type]


def build_panel(bars: Bars, leader: Bars, params: StrategyParams) -> SymbolPanel:
    """Everything of one symbol, up to the last bar that the leader has too: later ones could not be decided.

    Raises MissingData when the leader shares no bar with the symbol.
    """
    shared = np.flatnonzero(np.isin(bars.open_time_ms, leader.open_time_ms))
    if len(shared):
        bars = bars.slice(0, int(shared[-1]) + 1)
    matrix = compute_features(bars, leader, params)
    families = family_codes(regime_codes(measure_regime(bars, params), params))
    labels = label_bars(bars, families, params)
    uniqueness = np.full(len(bars), np.nan)
    for code in range(len(FAMILIES)):
        rows = (families == code) & (labels.label != NO_LABEL)
        # Each family has a model of its own, so only labels of the same family crowd one another.
        uniqueness[rows] = average_uniqueness(labels.open_time_ms[rows], labels.t1_ms[rows])
    features = np.ascontiguousarray(matrix.values, dtype=np.float32)
    complete = np.asarray(~np.isnan(matrix.values).any(axis=1))
    return SymbolPanel(bars, matrix.names, features, families, labels, uniqueness, complete)


def pool(panels: Iterable[SymbolPanel], family: RegimeFamily, start_ms: int, end_ms: int) -> Sample:
    """Labelled rows of one family over all symbols, ascending in time, decided and settled inside [start, end)."""
    code = FAMILIES.index(family)
    parts = []
    for panel in panels:
        labels = panel.labels
        rows = (panel.families == code) & (labels.label != NO_LABEL) & panel.complete
        rows &= (labels.open_time_ms >= start_ms) & (labels.t1_ms < end_ms)
        parts.append(
            Sample(
                panel.features[rows],
                labels.open_time_ms[rows],
                labels.t1_ms[rows],
                labels.label[rows],
                panel.uniqueness[rows],
                labels.net_r_long[rows],
                labels.net_r_short[rows],
            )
        )
    times = np.concatenate([part.open_time_ms for part in parts])
    # Stable, so that symbols keep their order inside a bar and the same data gives the same rows.
    order = np.argsort(times, kind="stable")
    return Sample(
        np.concatenate([part.features for part in parts])[order],
        times[order],
        np.concatenate([part.t1_ms for part in parts])[order],
        np.concatenate([part.labels for part in parts])[order],
        np.concatenate([part.uniqueness for part in parts])[order],
        np.concatenate([part.net_r_long for part in parts])[order],
        np.concatenate([part.net_r_short for part in parts])[order],
    )


def first_complete_ms(panels: Iterable[SymbolPanel]) -> int | None:
    """The first bar of any symbol with all features known; None when there is none."""
    firsts = []
    for panel in panels:
        rows = np.flatnonzero(panel.complete)
        if len(rows):
            firsts.append(int(panel.bars.open_time_ms[rows[0]]))
    return min(firsts, default=None)


def bars_sha256(bars: Mapping[str, Bars]) -> str:
    """Hash of the bars themselves: the same data, the same name."""
    digest = hashlib.sha256()
    for symbol in sorted(bars):
        digest.update(symbol.encode())
        series = bars[symbol]
        for column in (series.open_time_ms, series.open, series.high, series.low, series.close, series.volume):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
