"""Statistics over trailing windows, compiled: means, deviations, ranks, correlations, quotients with a neutral value.

Row i is made of rows 0..i. Windowed sums restart at least once a window, so that rounding never accumulates over the
history and a short window gives the numbers of a long one. Leading NaN are waited out; NaN before a window is full.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .types import FloatArray


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _rolling_mean_std(x: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    n = len(x)
    mean = np.full(n, np.nan)
    std = np.full(n, np.nan)
    first = 0
    while first < n and math.isnan(x[first]):
        first += 1
    shift = 0.0
    total = 0.0
    squares = 0.0
    for i in range(first + window - 1, n):
        if (i - first - window + 1) % window == 0:
            shift = x[i]
            total = 0.0
            squares = 0.0
            for j in range(i - window + 1, i + 1):
                total += x[j] - shift
                squares += (x[j] - shift) ** 2
        else:
            entering = x[i] - shift
            leaving = x[i - window] - shift
            total += entering - leaving
            squares += entering * entering - leaving * leaving
        centre = total / window
        mean[i] = shift + centre
        std[i] = math.sqrt(max(squares / window - centre * centre, 0.0))
    return mean, std


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _rolling_mean(x: FloatArray, window: int) -> FloatArray:
    n = len(x)
    mean = np.full(n, np.nan)
    first = 0
    while first < n and math.isnan(x[first]):
        first += 1
    shift = 0.0
    total = 0.0
    start = first + window - 1
    while start < n:
        # The sum starts anew here, around another origin.
        shift = x[start]
        total = 0.0
        for j in range(start - window + 1, start + 1):
            total += x[j] - shift
        mean[start] = shift + total / window
        end = min(start + window, n)
        for i in range(start + 1, end):
            total += (x[i] - shift) - (x[i - window] - shift)
            mean[i] = shift + total / window
        start = end
    return mean


# Counts in floats, added in any order, because those run four at a time; small whole numbers stay exact.
@njit(cache=True, fastmath={"reassoc", "nsz"})  # type: ignore[untyped-decorator]  # numba ships no types
def _rolling_rank(x: FloatArray, window: int) -> FloatArray:
    n = len(x)
    rank = np.full(n, np.nan)
    first = 0
    while first < n and math.isnan(x[first]):
        first += 1
    for i in range(first + window - 1, n):
        value = x[i]
        trailing = x[i - window + 1 : i + 1]
        twice_below = 0.0
        for j in range(window):
            twice_below += (1.0 if trailing[j] < value else 0.0) + (1.0 if trailing[j] <= value else 0.0)
        rank[i] = 0.5 * (twice_below - 1.0) / (window - 1)
    return rank


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _rolling_correlation(x: FloatArray, y: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    n = len(x)
    correlation = np.full(n, np.nan)
    slope = np.full(n, np.nan)
    sx = sy = sxx = syy = sxy = 0.0
    missing = 0
    for i in range(n):
        if i % window == 0:
            sx = sy = sxx = syy = sxy = 0.0
            missing = 0
            for j in range(max(i - window + 1, 0), i + 1):
                if math.isnan(x[j]) or math.isnan(y[j]):
                    missing += 1
                else:
                    sx += x[j]
                    sy += y[j]
                    sxx += x[j] * x[j]
                    syy += y[j] * y[j]
                    sxy += x[j] * y[j]
        else:
            if math.isnan(x[i]) or math.isnan(y[i]):
                missing += 1
            else:
                sx += x[i]
                sy += y[i]
                sxx += x[i] * x[i]
                syy += y[i] * y[i]
                sxy += x[i] * y[i]
            if i >= window:
                k = i - window
                if math.isnan(x[k]) or math.isnan(y[k]):
                    missing -= 1
                else:
                    sx -= x[k]
                    sy -= y[k]
                    sxx -= x[k] * x[k]
                    syy -= y[k] * y[k]
                    sxy -= x[k] * y[k]
        if i < window - 1 or missing:
            continue
        vx = sxx - sx * sx / window
        vy = syy - sy * sy / window
        cxy = sxy - sx * sy / window
        # Sums of squared log returns: 1e-12 over a window is a price that does not move.
        correlation[i] = cxy / math.sqrt(vx * vy) if vx > 1e-12 and vy > 1e-12 else 0.0
        slope[i] = cxy / vy if vy > 1e-12 else 0.0
    return correlation, slope


def rolling_mean_std(x: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    """Mean and population standard deviation over the trailing `window` values; NaN before it is full."""
    mean, std = _rolling_mean_std(x, window)
    return mean, std


def rolling_mean(x: FloatArray, window: int) -> FloatArray:
    """Mean over the trailing `window` values; NaN before it is full."""
    mean: FloatArray = _rolling_mean(x, window)
    return mean


def rolling_rank(x: FloatArray, window: int) -> FloatArray:
    """Where the value stands among the trailing `window` values, itself included: 0 lowest, 1 highest, ties halved."""
    rank: FloatArray = _rolling_rank(x, window)
    return rank


def rolling_correlation(x: FloatArray, y: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    """Pearson correlation and slope of x on y over the trailing window; NaN where the window holds a NaN."""
    correlation, slope = _rolling_correlation(x, y, window)
    return correlation, slope


def ratio(numerator: FloatArray, denominator: FloatArray, neutral: float = 0.0) -> FloatArray:
    """Element-wise quotient; `neutral` where the denominator is zero or not known."""
    out = np.full(len(numerator), neutral)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
