"""The strategy's values as the wiring gives them: from the user's file, and beside a mistake in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from tradewind import wiring as wiring_module
from tradewind.adapters.database import Database
from tradewind.adapters.migrations import migrate
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.params import StrategyParams
from tradewind.errors import BadInput
from tradewind.settings import Settings, load_settings
from tradewind.wiring import Wiring

MINE = replace(StrategyParams(), version="mine", horizon_bars=48)
NEWER = replace(StrategyParams(), version="newer", horizon_bars=24)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "strategy.toml"
    path.write_text("")
    monkeypatch.setattr(wiring_module, "STRATEGY_FILE", path)
    return path


@pytest.fixture
def settings(postgres_url: str, tmp_path: Path) -> Settings:
    made = load_settings(home_dir=tmp_path, database_url=postgres_url, account_id="mine")
    migrate(postgres_url, made.identity)
    return made


@pytest.fixture
def decided(settings: Settings) -> Iterator[Database]:
    """An account that last decided by its own values, after it had used newer ones; and another account's decision."""
    database = Database(settings.database_url.get_secret_value())
    for account, params, day in (("mine", NEWER, 1), ("mine", MINE, 2), ("another", NEWER, 3)):
        PgTradingStore(database, account, params.strategy_version).remember_strategy(params)
        database.execute(
            "INSERT INTO decisions (account, strategy_version, symbol, bar, outcome, reason, decision) "
            "VALUES (%s, %s, 'BTC/USDT', %s, 'declined', '', '{}')",
            (account, params.strategy_version, datetime(2026, 1, day, tzinfo=UTC)),
        )
    yield database
    database.close()


def test_the_file_is_read(file: Path, settings: Settings) -> None:
    file.write_text("horizon_bars = 48\n")
    wiring = Wiring(settings)
    assert (wiring.params.horizon_bars, wiring.params_error) == (48, "")


def test_beside_a_mistake_the_values_of_the_last_decision_hold(
    file: Path, settings: Settings, decided: Database
) -> None:
    file.write_text("risk_frac = 5\n")
    wiring = Wiring(settings)
    assert wiring.params == MINE
    assert wiring.trading_store.strategy_version == MINE.strategy_version
    assert "line 1: risk_frac = 5 lies outside (0, 0.05]" in wiring.params_error
    with pytest.raises(BadInput, match="risk_frac"):
        wiring.params_in_file()
    wiring.close()


def test_before_the_first_decision_the_shipped_values_hold(file: Path, settings: Settings) -> None:
    file.write_text("risk_frac = \n")
    wiring = Wiring(settings)
    assert wiring.params == StrategyParams()
    assert wiring.params_error
    wiring.close()


def test_stored_values_of_other_code_give_way_to_the_shipped_ones(
    file: Path, settings: Settings, decided: Database
) -> None:
    file.write_text("risk_frac = \n")
    decided.execute("UPDATE strategies SET params = params || %s", (Jsonb({"forgotten": 1}),))
    wiring = Wiring(settings)
    assert wiring.params == StrategyParams()
    wiring.close()


def test_what_runs_keeps_its_values_and_hears_of_a_mistake(file: Path, settings: Settings) -> None:
    file.write_text("horizon_bars = 48\n")
    wiring = Wiring(settings)
    assert wiring.params.horizon_bars == 48
    file.write_text("horizon_bars = 0\n")
    assert wiring.params.horizon_bars == 48
    assert "horizon_bars = 0 lies outside [1, 2000]" in wiring.params_error
