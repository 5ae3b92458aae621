"""The two inner loops of the synthetic market, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from tradewind.core.types import FloatArray


@njit(cache=True)  # type: ignore[untyped-decorator]
def minute_returns(
    noise: FloatArray,
    sigma_node: FloatArray,
    drift_node: FloatArray,
    pull_node: FloatArray,
    forget: float,
    node_minutes: int,
) -> FloatArray:
    """Log returns per minute: noise, drift, and the pull back to a trailing mean of the log price.

    The node arrays hold one value for every `node_minutes` minutes; sigma is per minute, drift in σ per minute, pull
    the share of the distance to the mean that is undone in a minute, `forget` the rate at which the mean follows the
    price.
    """
    returns = np.empty_like(noise)
    distance = 0.0
    for i in range(noise.shape[0]):
        node = i // node_minutes
        step = sigma_node[node] * (noise[i] + drift_node[node]) - pull_node[node] * distance
        returns[i] = step
        distance += step - forget * distance
    return returns


@njit(cache=True)  # type: ignore[untyped-decorator]
def bend_ends(returns: FloatArray, sigma_node: FloatArray, start: float, end: float, node_minutes: int) -> FloatArray:
    """Cumulated log price that starts at `start` and ends at `end`.

    The correction is spread in proportion to variance, which is what conditioning a Brownian path on its end does.
    """
    n = returns.shape[0]
    total = 0.0
    variance = 0.0
    for i in range(n):
        total += returns[i]
        variance += sigma_node[i // node_minutes] ** 2
    correction = (end - start - total) / variance
    path = np.empty_like(returns)
    price = start
    for i in range(n):
        price += returns[i] + correction * sigma_node[i // node_minutes] ** 2
        path[i] = price
    path[n - 1] = end
    return path
