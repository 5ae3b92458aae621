"""Columns of many symbols at once: they do not depend on each other, and their making leaves Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from .signals import SymbolSeries


def build_all(
    symbols: Iterable[str], build: Callable[[str], SymbolSeries], say: Callable[[str], None] = lambda _symbol: None
) -> dict[str, SymbolSeries]:
    """Each symbol's series, a core for each; `say` hears every symbol as it is done. The first failure is raised."""
    wanted = list(symbols)
    made: dict[str, SymbolSeries] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for symbol, series in zip(wanted, pool.map(build, wanted), strict=True):
            made[symbol] = series
            say(symbol)
    return made
