"""What a run is made of: bars from the database and forecasts of stored models, each symbol by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.backtest.test_walk_forward import ENDS, load
from tests.support.trading import PARAMS, random_bars
from tradewind.adapters.database import Database
from tradewind.adapters.market_store import PgMarketStore
from tradewind.adapters.parity_store import PgParityStore
from tradewind.adapters.signal_store import PgSignalStore
from tradewind.backtest.loading import Inputs, inputs_of, spill_folder
from tradewind.backtest.replay import replay
from tradewind.core.timeframes import from_ms
from tradewind.errors import BadInput, ModelUnavailable

SYMBOLS = ("SOL/USDT", "ETH/USDT")


class Stored:
    """The stores of a deployment whose two models are plain functions; counts how often they were opened and closed."""

    def __init__(self, url: str, ends: dict[str, int]) -> None:
        self.database = Database(url)
        self.opened = self.closed = 0
        rows = [{"version": version, "trained_until": from_ms(end)} for version, end in ends.items()]
        self.ports: Any = SimpleNamespace(
            params=PARAMS,
            market_store=PgMarketStore(self.database),
            state_store=PgSignalStore(self.database, max_age_s=PARAMS.sentiment_max_age_s),
            parity_store=PgParityStore(self.database, "test", PARAMS.strategy_version),
            model_store=SimpleNamespace(champion=lambda: load("late"), deciding=lambda end: rows, load=load),
        )

    @contextmanager
    def open(self) -> Iterator[Any]:
        self.opened += 1
        yield self.ports
        self.closed += 1


@pytest.fixture
def stored(postgres_url: str) -> Iterator[Stored]:
    made = Stored(postgres_url, ENDS)
    for seed, symbol in enumerate((*SYMBOLS, "BTC/USDT")):
        made.ports.market_store.insert_candles([random_bars(symbol, 6000, seed=seed, volatility=0.006)])
    yield made
    made.database.close()


def loaded(stored: Stored, folder: Path | None = None, models: str = "walk-forward") -> Inputs:
    return inputs_of("", models, SYMBOLS, None, stored.open, 1 << 42, lambda _words: None, folder)


def test_stored_bars_and_models_make_a_run_and_the_same_when_spilled(stored: Stored, tmp_path: Path) -> None:
    made = loaded(stored)
    assert stored.opened == stored.closed > 0
    assert list(made.series) == list(SYMBOLS)
    assert made.spans is not None
    assert [span.version for span in made.spans] == ["early", "late"]
    assert "read off the prices" in made.labels[1]
    plain = replay(made.series, made.params, 0, 1 << 45)
    assert len(plain.run.trades) > 10
    with spill_folder(tmp_path / "columns") as folder:
        mapped = replay(loaded(stored, folder).series, made.params, 0, 1 << 45)
        assert folder is not None
        assert len(list(folder.iterdir())) == 2 * len(SYMBOLS)
    assert mapped.run.trades == plain.run.trades
    assert list((tmp_path / "columns").iterdir()) == []


def test_the_champion_looks_back_and_says_so(stored: Stored) -> None:
    made = loaded(stored, models="champion")
    assert made.spans is None
    assert made.labels[0].startswith("looks back")
    answered = made.series["SOL/USDT"].forecast.p_long
    np.testing.assert_array_equal(np.unique(answered[np.isfinite(answered)]), [0.7])


def test_what_is_missing_is_named(stored: Stored) -> None:
    with pytest.raises(BadInput, match="no 15m bars of XRP/USDT"):
        inputs_of("ema_cross", "", ("XRP/USDT",), None, stored.open, 1 << 42, lambda _words: None)
    stored.ports.model_store.deciding = lambda end: []
    with pytest.raises(ModelUnavailable, match="no model could decide"):
        loaded(stored)
