"""`./tradewind import` and `gaps` on a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
from typer.testing import CliRunner

from tests.support.bars import random_bars
from tradewind.adapters.cache import RedisKnownEmpty
from tradewind.adapters.candle_files import COLUMNS
from tradewind.adapters.database import Database
from tradewind.adapters.market_store import PgMarketStore
from tradewind.adapters.migrations import migrate
from tradewind.cli import _register, app
from tradewind.core.candles import take
from tradewind.core.ports import CandleGap
from tradewind.core.timeframes import columns, timeframe_ms, to_ms
from tradewind.core.types import Bars
from tradewind.errors import BadInput
from tradewind.settings import load_settings

HOUR = timeframe_ms("1h")
START = to_ms(datetime(2024, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not app.registered_commands:
        _register()


@pytest.fixture
def deployment(
    postgres_url: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[redis.Redis]:
    monkeypatch.setenv("TRADEWIND_DATABASE_URL", postgres_url)
    monkeypatch.setenv("TRADEWIND_CACHE_URL", valkey_url)
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("TRADEWIND_MODE", "testnet")
    migrate(postgres_url, load_settings().identity)
    with redis.Redis.from_url(valkey_url) as cache:
        yield cache


def write(bars: Bars, path: Path) -> Path:
    pd.DataFrame(dict(zip(COLUMNS, columns(bars), strict=True))).to_parquet(path)
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def stored_job(job_id: str | None = None) -> dict[str, Any]:
    """The row of an import: of the newest without an id."""
    database = Database(load_settings().database_url.get_secret_value())
    try:
        store = PgMarketStore(database)
        job = store.job(job_id or str(store.newest_job("import_candles")))
    finally:
        database.close()
    assert job is not None
    return job


def test_import_then_gaps(deployment: redis.Redis, tmp_path: Path) -> None:
    bars = random_bars(400, timeframe="1h", start_ms=START)
    keep = np.ones(400, bool)
    keep[[10, 11, 12, 200]] = False
    file = write(take(bars, keep), tmp_path / "a.parquet")
    outcome = json.loads(run("import", str(file), "--symbol", "BTC/USDT", "--timeframe", "1h", "--json"))
    assert outcome["files"] == [
        {
            "file": str(file), "symbol": "BTC/USDT", "timeframe": "1h",
            "rows": 396, "new": 396, "corrections": 0, "unfinished": 0, "refused": 0,
        }
    ]  # fmt: skip
    job = stored_job(outcome["job_id"])
    assert (job["kind"], job["state"]) == ("import_candles", "done")
    assert job["progress"]["percent"] == 100.0
    assert job["progress"]["series"]["BTC/USDT 1h"]["rows_new"] == 396
    again = run("import", str(file), "--symbol", "BTC/USDT", "--timeframe", "1h")
    assert "0 new, 396 stored before, 0 differing, 0 refused" in again

    found = json.loads(run("gaps", "--json"))
    assert found["missing_bars"] == 4
    assert [(gap["from"], gap["to"], gap["bars"], gap["known_empty"]) for gap in found["gaps"]] == [
        ("2024-01-01T10:00:00+00:00", "2024-01-01T13:00:00+00:00", 3, False),
        ("2024-01-09T08:00:00+00:00", "2024-01-09T09:00:00+00:00", 1, False),
    ]
    assert {(gap["symbol"], gap["timeframe"]) for gap in found["gaps"]} == {("BTC/USDT", "1h")}
    assert "2 gaps" in run("gaps", "--symbol", "BTC/USDT")
    assert "No bar is missing" in run("gaps", "--symbol", "ETH/USDT")


def test_a_folder_is_imported_by_the_names_of_its_files(deployment: redis.Redis, tmp_path: Path) -> None:
    for name in ("BTC_USDT-1h.parquet", "ETHUSDT-1h-2024-01.parquet"):
        write(random_bars(50, timeframe="1h", start_ms=START), tmp_path / name)
    (tmp_path / "README.md").write_text("not candles")
    outcome = json.loads(run("import", str(tmp_path), "--json"))
    assert [(row["symbol"], row["timeframe"], row["new"]) for row in outcome["files"]] == [
        ("BTC/USDT", "1h", 50),
        ("ETH/USDT", "1h", 50),
    ]
    job = stored_job(outcome["job_id"])
    assert {name: counts["rows_new"] for name, counts in job["progress"]["series"].items()} == {
        "BTC/USDT 1h": 50,
        "ETH/USDT 1h": 50,
    }


def test_a_name_that_tells_nothing_stops_before_anything_is_stored(deployment: redis.Redis, tmp_path: Path) -> None:
    for name in ("BTC_USDT-1h.parquet", "mine.parquet"):
        write(random_bars(50, timeframe="1h", start_ms=START), tmp_path / name)
    with pytest.raises(BadInput, match=r"mine.parquet: its name does not tell"):
        run("import", str(tmp_path))
    assert "No bar is missing" in run("gaps", "--to-now")


def test_what_is_known_to_be_empty_is_told_apart(deployment: redis.Redis, tmp_path: Path) -> None:
    keep = np.ones(100, bool)
    keep[20:30] = False
    file = write(take(random_bars(100, timeframe="1h", start_ms=START), keep), tmp_path / "a.parquet")
    run("import", str(file), "--symbol", "BTC/USDT", "--timeframe", "1h")
    known = RedisKnownEmpty(deployment, namespace=load_settings().account_id)
    known.remember(CandleGap("BTC/USDT", "1h", START + 20 * HOUR, START + 26 * HOUR), 60)
    gaps = json.loads(run("gaps", "--json"))["gaps"]
    assert [(gap["bars"], gap["known_empty"]) for gap in gaps] == [(6, True), (4, False)]


def test_the_tail_is_a_gap_when_asked_for(deployment: redis.Redis, tmp_path: Path) -> None:
    file = write(random_bars(10, timeframe="1h", start_ms=START), tmp_path / "a.parquet")
    run("import", str(file), "--symbol", "BTC/USDT", "--timeframe", "1h")
    assert json.loads(run("gaps", "--json"))["gaps"] == []
    (tail,) = json.loads(run("gaps", "--to-now", "--json"))["gaps"]
    assert tail["from"] == "2024-01-01T10:00:00+00:00"


def test_an_impossible_row_is_refused_and_the_rest_kept(deployment: redis.Redis, tmp_path: Path) -> None:
    bars = random_bars(50, timeframe="1h", start_ms=START)
    bars.volume[7] = -1.0
    file = write(bars, tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="1 rows cannot be true"):
        run("import", str(file), "--symbol", "BTC/USDT", "--timeframe", "1h")
    assert json.loads(run("gaps", "--json"))["missing_bars"] == 1
    job = stored_job()
    assert (job["state"], job["error"][:19]) == ("failed", "1 rows cannot be tr")


def test_an_unfinished_bar_is_not_stored(deployment: redis.Redis, tmp_path: Path) -> None:
    now_ms = to_ms(datetime.now(UTC))
    file = write(random_bars(10, timeframe="1h", start_ms=now_ms // HOUR * HOUR - 9 * HOUR), tmp_path / "a.parquet")
    outcome = json.loads(run("import", str(file), "--symbol", "BTC/USDT", "--timeframe", "1h", "--json"))
    assert (outcome["files"][0]["new"], outcome["files"][0]["unfinished"]) == (9, 1)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--symbol", "BTCUSDT", "--timeframe", "1h"], "write it as BTC/USDT"),
        (["--symbol", "BTC/USDT", "--timeframe", "1w"], "--timeframe 1w"),
        (["--symbol", "BTC/USDT", "--timeframe", "1h"], "is no file"),
        ([], "is no file"),
    ],
)
def test_wrong_arguments_say_what_is_right(deployment: redis.Redis, arguments: list[str], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        run("import", "none.csv", *arguments)
