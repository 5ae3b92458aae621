"""Whether a model may trade: windows in time, purged walk-forward folds, and the gates of promotion.

::

    history ──────────────────────────────────────────────────────────────────────────────► now
    warm-up │ fold fits (expanding) ··│ test 1 │ test 2 │ … │ test k │··│ promotion window │
            └──────── the challenger's own fit: fit · stop · calibrate ┘  later than every fit

Every boundary is purged (a label must be settled before the next range begins) and embargoed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np

from .ensemble import EMBARGO_MS, FitSettings
from .types import FloatArray, IntArray

DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class TrainingParams:
    """How a training is run and what a challenger must show; the shipped values, shorter where history is."""

    history_days: int = 3 * 365
    min_history_days: int = 60
    promotion_days: int = 56
    promotion_share: float = 0.2  # never more of the history than this; a shorter window is labelled so
    folds: int = 5
    fold_days: int = 42  # a fold tests at least this long, so that short histories have fewer folds
    min_trades: int = 50
    bootstrap_quantile: float = 0.05
    bootstrap_resamples: int = 2000
    tuning_trials: int = 0
    tuning_timeout_s: float = 1800.0  # aborts the search, and is recorded
    seed: int = 7
    fit: FitSettings = field(default_factory=FitSettings)


@dataclass(frozen=True, slots=True)
class Fold:
    """Train on [start, train_end), test on decisions in [test_start, test_end)."""

    start_ms: int
    train_end_ms: int
    test_start_ms: int
    test_end_ms: int


@dataclass(frozen=True, slots=True)
class Windows:
    """The ranges of one training, epoch ms; `promotion_end_ms` is the end of the data."""

    start_ms: int
    fit_end_ms: int
    promotion_start_ms: int
    promotion_end_ms: int
    shortened: bool  # the promotion window is shorter than the shipped one
    folds: tuple[Fold, ...]

    @property
    def promotion_days(self) -> float:
        return (self.promotion_end_ms - self.promotion_start_ms) / DAY_MS


def plan_windows(start_ms: int, end_ms: int, training: TrainingParams) -> Windows:
    """Cut the history. Raises ValueError when it is shorter than `min_history_days`."""
    span_days = (end_ms - start_ms) / DAY_MS
    if span_days < training.min_history_days:
        raise ValueError(
            f"{span_days:.0f} days of usable history; at least {training.min_history_days} are needed: load more"
        )
    promotion_days = min(float(training.promotion_days), span_days * training.promotion_share)
    promotion_start = end_ms - int(promotion_days * DAY_MS)
    fit_end = promotion_start - EMBARGO_MS
    folds = _plan_folds(start_ms, fit_end, training)
    return Windows(start_ms, fit_end, promotion_start, end_ms, promotion_days < training.promotion_days, folds)


def _plan_folds(start_ms: int, end_ms: int, training: TrainingParams) -> tuple[Fold, ...]:
    """Expanding folds over the later half of the range."""
    middle = start_ms + (end_ms - start_ms) // 2
    count = min(training.folds, int((end_ms - middle) // (training.fold_days * DAY_MS)))
    if count < 1:
        return ()
    edges = np.linspace(middle, end_ms, count + 1).astype(np.int64)
    return tuple(
        Fold(start_ms, int(edge) - EMBARGO_MS, int(edge), int(following)) for edge, following in pairwise(edges)
    )


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of promotion with the numbers it was judged by."""

    name: str
    passed: bool
    numbers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TradeSample:
    """Closed trades of the whole chain: results in R, and the moments they were entered."""

    net_r: FloatArray
    entry_ms: IntArray

    def __len__(self) -> int:
        return len(self.net_r)

    def between(self, start_ms: int, end_ms: int) -> TradeSample:
        """Those entered in [start, end)."""
        inside = (self.entry_ms >= start_ms) & (self.entry_ms < end_ms)
        return TradeSample(self.net_r[inside], self.entry_ms[inside])


@dataclass(frozen=True, slots=True)
class TradeScores:
    """What a set of trades says; NaN where it says nothing."""

    trades: int
    expectancy_r: float
    expectancy_r_low: float  # lower bound of the bootstrap
    profit_factor: float
    win_share: float

    def to_dict(self) -> dict[str, Any]:
        """With None for NaN, which JSON does not know."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def bootstrap_bound(trades: TradeSample, quantile: float, resamples: int, seed: int) -> float:
    """Lower bound of the mean result: days of entry are resampled, because trades of one day move together.

    Percentile bootstrap over clusters; NaN for trades of fewer than two days.
    """
    days, codes = np.unique(trades.entry_ms // DAY_MS, return_inverse=True)
    if len(days) < 2:
        return float("nan")
    sums = np.bincount(codes, weights=trades.net_r)
    counts = np.bincount(codes).astype(np.float64)
    picks = np.random.default_rng(seed).integers(0, len(days), size=(resamples, len(days)))
    return float(np.quantile(sums[picks].sum(axis=1) / counts[picks].sum(axis=1), quantile))


def score_trades(trades: TradeSample, training: TrainingParams) -> TradeScores:
    """Expectancy with its bound, profit factor and share of wins, after costs."""
    r = trades.net_r
    if len(r) == 0:
        nan = float("nan")
        return TradeScores(0, nan, nan, nan, nan)
    lost = -float(r[r < 0].sum())
    return TradeScores(
        len(r),
        float(r.mean()),
        bootstrap_bound(trades, training.bootstrap_quantile, training.bootstrap_resamples, training.seed),
        float(r[r > 0].sum()) / lost if lost > 0 else float("nan"),
        float(np.mean(r > 0)),
    )


def judge(
    log_loss: float,
    base_log_loss: float,
    incumbent_log_loss: float | None,
    trades: TradeScores,
    training: TrainingParams,
    about: dict[str, Any],
) -> list[Gate]:
    """The gates of promotion, all evaluated; `about` (the window) is stored with each.

    Without a champion the incumbent is the base rate.
    """
    incumbent = base_log_loss if incumbent_log_loss is None else incumbent_log_loss
    expectancy = {"expectancy_r": trades.expectancy_r, "bound_r": trades.expectancy_r_low, "above": 0.0}
    return [
        Gate("log_loss_base_rate", log_loss < base_log_loss, {"log_loss": log_loss, "below": base_log_loss, **about}),
        Gate(
            "log_loss_incumbent",
            log_loss < incumbent,
            {
                "log_loss": log_loss,
                "below": incumbent,
                "incumbent": "base rate" if incumbent_log_loss is None else "champion",
                **about,
            },
        ),
        Gate(
            "expectancy",
            bool(trades.expectancy_r_low > 0),
            {name: None if value != value else value for name, value in expectancy.items()} | about,
        ),
        Gate(
            "trades",
            trades.trades >= training.min_trades,
            {"trades": trades.trades, "least": training.min_trades, **about},
        ),
    ]


def passed(gates: Sequence[Gate]) -> bool:
    """Whether every gate passed."""
    return all(gate.passed for gate in gates)
