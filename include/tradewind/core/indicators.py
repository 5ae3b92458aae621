"""Indicator series of one timeframe, computed once each and shared by the features and the regime.

Everything is causal: row i is made of rows 0..i. Smoothed indicators forget their seed geometrically; after the lengths
given by `ema_warmup` and `wilder_warmup` what is left of it is below 1e-9 of its size. Windowed sums restart at least
once a window, so that rounding never accumulates over the history and a short window gives the numbers of a long one.

Degenerate input (a flat price, no volume) yields the neutral value of the feature, never NaN or infinity.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Final

import numpy as np
import talib

from .rolling import ratio, rolling_mean, rolling_mean_std
from .types import Bars, FloatArray

SEED_LEFT: Final = 1e-9
NATR_FLOOR: Final = 1e-5  # a tenth of a basis point: quieter than any tick, so divisions by volatility stay finite


def ema_warmup(span: int) -> int:
    """Bars until an EMA of this span has forgotten its seed, the seed's own window included."""
    return span + math.ceil(math.log(SEED_LEFT) / math.log(1 - 2 / (span + 1)))


def wilder_warmup(period: int) -> int:
    """Bars until a Wilder average of this period has forgotten its seed, the seed's own window included."""
    return period + 1 + math.ceil(math.log(SEED_LEFT) / math.log(1 - 1 / period))


class Series:
    """The bars of one timeframe and the indicators derived from them, each computed on first use.

    All arrays have the bars' length, float64, NaN in the leading rows that an indicator needs before its first value.
    """

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        # TA-Lib reads C doubles; views of a larger array may be strided.
        self.open = np.ascontiguousarray(bars.open, dtype=np.float64)
        self.high = np.ascontiguousarray(bars.high, dtype=np.float64)
        self.low = np.ascontiguousarray(bars.low, dtype=np.float64)
        self.close = np.ascontiguousarray(bars.close, dtype=np.float64)
        self.volume = np.ascontiguousarray(bars.volume, dtype=np.float64)
        self._mean_std: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._extremes: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._emas: dict[int, FloatArray] = {}
        self._moves: dict[int, FloatArray] = {}
        self._ranges: dict[int, FloatArray] = {}
        self._volumes: dict[int, FloatArray] = {}

    def __len__(self) -> int:
        return len(self.bars)

    @cached_property
    def log_close(self) -> FloatArray:
        return np.log(self.close)

    @cached_property
    def log_return(self) -> FloatArray:
        """One-bar log return; NaN in the first row."""
        return self.move(1)

    def move(self, lag: int) -> FloatArray:
        """Log return over `lag` bars."""
        if lag not in self._moves:
            out = np.empty(len(self))
            out[:lag] = np.nan
            np.subtract(self.log_close[lag:], self.log_close[:-lag], out=out[lag:])
            self._moves[lag] = out
        return self._moves[lag]

    @cached_property
    def true_range(self) -> FloatArray:
        out: FloatArray = talib.TRANGE(self.high, self.low, self.close)
        return out

    @cached_property
    def atr(self) -> FloatArray:
        """ATR(14) by Wilder, in quote."""
        out: FloatArray = talib.ATR(self.high, self.low, self.close, 14)
        return out

    @cached_property
    def atr_floored(self) -> FloatArray:
        """ATR(14), never under the floor: the unit in which distances are measured."""
        return np.maximum(self.atr, NATR_FLOOR * self.close)

    @cached_property
    def natr(self) -> FloatArray:
        """ATR(14) as a fraction of the close, never under the floor."""
        return np.maximum(self.atr / self.close, NATR_FLOOR)

    def natr_windowed(self, window: int) -> FloatArray:
        """Mean true range of the trailing window as a fraction of the close, floored: volatility without a seed."""
        if window not in self._ranges:
            self._ranges[window] = np.maximum(rolling_mean(self.true_range, window) / self.close, NATR_FLOOR)
        return self._ranges[window]

    def mean_std(self, window: int) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the close."""
        if window not in self._mean_std:
            self._mean_std[window] = rolling_mean_std(self.close, window)
        return self._mean_std[window]

    def return_std(self, window: int) -> FloatArray:
        """Standard deviation of log returns, floored like volatility."""
        return np.maximum(rolling_mean_std(self.log_return, window)[1], NATR_FLOOR)

    def extremes(self, window: int) -> tuple[FloatArray, FloatArray]:
        """Highest high and lowest low."""
        if window not in self._extremes:
            self._extremes[window] = (talib.MAX(self.high, window), talib.MIN(self.low, window))
        return self._extremes[window]

    def ema(self, span: int) -> FloatArray:
        if span not in self._emas:
            self._emas[span] = talib.EMA(self.close, span)
        return self._emas[span]

    @cached_property
    def adx(self) -> FloatArray:
        out: FloatArray = talib.ADX(self.high, self.low, self.close, 14)
        return out

    def bandwidth(self, window: int = 20) -> FloatArray:
        """Width of the Bollinger bands (two deviations) as a fraction of their middle."""
        mean, std = self.mean_std(window)
        return 4 * std / mean

    def band_position(self, window: int = 20) -> FloatArray:
        """Distance of the close from the bands' middle in deviations."""
        mean, std = self.mean_std(window)
        return (self.close - mean) / np.maximum(std, NATR_FLOOR * self.close)

    def range_position(self, window: int) -> FloatArray:
        """Where the close stands between lowest low (−1) and highest high (+1)."""
        high, low = self.extremes(window)
        return 2 * ratio(self.close - low, high - low, neutral=0.5) - 1

    @cached_property
    def relative_log_volume(self) -> FloatArray:
        """Log of the volume over its mean in the trailing 96 bars, not below a thousandth; 0 where nothing traded."""
        return np.log(np.maximum(self.volume_ratio(96), 1e-3))

    def volume_mean(self, window: int) -> FloatArray:
        """Mean volume of the trailing window."""
        if window not in self._volumes:
            self._volumes[window] = rolling_mean(self.volume, window)
        return self._volumes[window]

    def volume_ratio(self, window: int) -> FloatArray:
        """Volume over its trailing mean; 1 where nothing traded at all."""
        return ratio(self.volume, self.volume_mean(window), neutral=1.0)
