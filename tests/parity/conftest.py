"""A recorded market of five symbols on the paper exchange, stepped bar by bar, with models that answer by the bars."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from tradewind.core.ensemble import LoadedModel
from tradewind.core.features import FEATURE_NAMES
from tradewind.core.params import Geometry, StrategyParams
from tradewind.core.resampling import BASE_MS
from tradewind.core.types import FloatArray, RegimeFamily
from tradewind.stack.postgres import EmbeddedPostgres

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT")
PRICES = (60_000.0, 3_000.0, 150.0, 600.0, 2.0)
DECIMALS = (2, 2, 2, 2, 4)
START_MS = 1_709_596_800_000  # 2024-03-05 00:00 UTC

# Short lives and near stops, so that some two hundred bars hold fills, stop moves, targets, time stops and pauses.
PARAMS = StrategyParams(
    trending=Geometry(stop_atr=0.8, target_r=2.0),
    ranging=Geometry(stop_atr=0.7, target_r=1.5),
    horizon_bars=24,
    trail_atr=0.8,
    min_stop_move_atr=0.1,
    natr_min_frac=0.0,
    natr_max_frac=1.0,
    min_volume_ratio=0.0,
    natr_chaotic_ratio=1e9,
    max_correlation=0.9,
    cooldown_bars=2,
)

_numbers = itertools.count()


@pytest.fixture(scope="module")
def module_database(postgres_server: EmbeddedPostgres, _template: str) -> Iterator[str]:
    """A database with our schema for all tests of one file."""
    name = f"parity_{next(_numbers)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(_template))
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(create)
    yield postgres_server.url(name)
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(drop)


Probabilities = Callable[[FloatArray], FloatArray]


def stepwise(features: FloatArray) -> FloatArray:
    """n × 3 probabilities from thresholds on a few features, as trees would give them."""
    columns = [FEATURE_NAMES.index(name) for name in ("body", "move_4", "volume_rank_96", "leader_move_4")]
    signs = np.array([1.0, -1.0, 1.0, 1.0])
    levels = np.array([0.0, 0.0, 0.5, 0.0])
    votes = (signs * (features[:, columns] > levels)).sum(axis=1)
    p_long = 0.15 + 0.14 * np.maximum(votes, 0)
    return np.column_stack((p_long, np.full(len(votes), 0.1), 0.9 - p_long))


def peeking(features: FloatArray) -> FloatArray:
    """The same, of the bar that comes next: what a whole history lets a careless model see."""
    return stepwise(np.vstack((features[1:], features[-1:])))


@dataclass
class Models:
    """A model store whose only version is a plain function; `replayed` is what a later reading of it answers."""

    trained_until: datetime
    served: Probabilities = stepwise
    replayed: Probabilities = stepwise

    def champion(self) -> LoadedModel:
        return self._model(self.served)

    def load(self, version: str) -> LoadedModel:
        assert version == "steps"
        return self._model(self.replayed)

    def _model(self, function: Probabilities) -> LoadedModel:
        family = SimpleNamespace(
            probabilities=lambda features: function(np.asarray(features, dtype=np.float64)),
            expected_r=lambda p: (p[:, 0] * 2 - 0.6, p[:, 1] * 2 - 0.6),
        )
        families = cast("Mapping[RegimeFamily, Any]", dict.fromkeys(RegimeFamily, family))
        return LoadedModel("steps", self.trained_until, FEATURE_NAMES, families)


def write_market(folder: Path, warm_bars: int, bars: int, seed: int = 11) -> None:
    """A random walk a symbol, partly shared, on the grid of its market; the first bar to trade opens at START_MS."""
    rng = np.random.default_rng(seed)
    count = warm_bars + bars
    common = rng.normal(0, 0.003, count)
    times = START_MS + BASE_MS * np.arange(-warm_bars, bars)
    for symbol, price, decimals in zip(SYMBOLS, PRICES, DECIMALS, strict=True):
        close = price * np.exp(np.cumsum(common * 0.5 + rng.normal(0, 0.004, count)))
        opened = np.concatenate(([price], close[:-1])) * np.exp(rng.normal(0, 0.0006, count))
        reach = np.abs(rng.normal(0, 0.002, (2, count)))
        high, low = np.maximum(opened, close) * (1 + reach[0]), np.minimum(opened, close) * (1 - reach[1])
        table = pa.table(
            {
                "open_time": pa.array(times).cast(pa.timestamp("ms", tz="UTC")),
                **{
                    name: np.round(column, decimals)
                    for name, column in (("open", opened), ("high", high), ("low", low), ("close", close))
                },
                "volume": np.round(2e7 / price * rng.lognormal(0, 0.5, count), 2),
            }
        )
        pq.write_table(table, folder / f"{symbol.replace('/', '_')}-15m.parquet")
