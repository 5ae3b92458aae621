"""`./tradewind models …` and `doctor features`: registry, reports, validation on files, leaks on one's own bars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.core.test_features import CANARIES
from tests.support.model_rig import ModelRig
from tests.support.toy_market import toy_bars, without
from tradewind.adapters.migrations import migrate
from tradewind.cli import _register, app
from tradewind.core import feature_table, leak_checks
from tradewind.core.boosters import BoosterSettings
from tradewind.core.ensemble import FitSettings
from tradewind.core.feature_table import Feature
from tradewind.core.timeframes import columns
from tradewind.core.types import Bars
from tradewind.core.validation import TrainingParams
from tradewind.jobs.training import retrain_models
from tradewind.settings import load_settings

BARS = {symbol: toy_bars(symbol, 9000, seed=3, tide=0.25) for symbol in ("BTC/USDT", "ETH/USDT")}
TRAINING = TrainingParams(
    folds=2,
    fold_days=15,
    promotion_share=0.35,
    min_history_days=40,
    fit=FitSettings(boosters=BoosterSettings(max_rounds=20)),
)


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not app.registered_commands:
        _register()


@pytest.fixture
def rig(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelRig]:
    models = tmp_path / "models"
    monkeypatch.setenv("TRADEWIND_DATABASE_URL", postgres_url)
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("TRADEWIND_MODE", "testnet")
    monkeypatch.setenv("TRADEWIND_MODEL_URL", models.as_uri())
    migrate(postgres_url, load_settings().identity)
    rig = ModelRig(postgres_url, models, BARS)
    yield rig
    rig.close()


@pytest.fixture
def candles(tmp_path: Path) -> Path:
    directory = tmp_path / "candles"
    directory.mkdir()
    for symbol, bars in BARS.items():
        holed = without(bars, [7000, 7001, 8200])
        write(holed, directory / f"{symbol.replace('/', '_')}-15m.parquet")
    return directory


def write(bars: Bars, path: Path) -> None:
    names = ("open_time", "open", "high", "low", "close", "volume")
    pd.DataFrame(dict(zip(names, columns(bars), strict=True))).to_parquet(path)


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result.stdout


def test_the_registry_from_the_command_line(rig: ModelRig, tmp_path: Path) -> None:
    assert "no model yet" in run("models", "list")
    first = retrain_models(rig, "first", TRAINING)["version"]
    second = retrain_models(rig, "second", replace(TRAINING, seed=8))["version"]
    listed = json.loads(run("models", "list", "--json"))
    assert {row["version"] for row in listed} == {first, second}
    assert rig.model_store.trials() == 2
    assert rig.model_store.version(second)["manifest"]["selection"]["trials"] == 2

    path = tmp_path / "report" / "model.html"
    shown = run("models", "show", first, "--report", str(path))
    assert "log_loss_base_rate" in shown
    html = path.read_text()
    for part in (
        "Walk-forward, fold by fold",
        "Calibration: Walk-forward",
        "Regimes",
        "What could have been chosen",
        first,
    ):
        assert part in html
    assert html.count("plotly-graph-div") >= 5
    assert "http://" not in html.split("</script>", 1)[1], "the report must ask no other host for anything"

    rig.database.execute("UPDATE model_gates SET passed = true")
    run("models", "promote", first)
    run("models", "promote", second)
    assert first in run("models", "rollback")
    states = {row["version"]: row["state"] for row in json.loads(run("models", "list", "--json"))}
    assert states == {first: "champion", second: "retired"}
    assert "rolled_back_to by operator" in run("models", "show", first)
    run("models", "show", "nothing", status=1)


def test_a_validation_on_files_needs_no_server(candles: Path, tmp_path: Path) -> None:
    path = tmp_path / "validation.html"
    row = json.loads(
        run("models", "validate", "--candles", str(candles), "--folds", "0", "--report", str(path), "--json")
    )
    assert {gate["gate"] for gate in row["gates"]} == {
        "log_loss_base_rate",
        "log_loss_incumbent",
        "expectancy",
        "trades",
    }
    classes = row["manifest"]["metrics"]["promotion"]["pooled"]["classes"]
    assert {len(scores["curve"]) for scores in classes.values()} == {15}
    assert all(scores["resolution_by_chance"] > 0 for scores in classes.values())
    assert "not stored" in path.read_text()
    run("models", "validate", "--candles", str(tmp_path), status=1)


def test_the_doctor_finds_no_leak_in_stored_bars_or_files(rig: ModelRig, candles: Path) -> None:
    stored = json.loads(run("doctor", "features", "--rows", "5", "--days", "60", "--json"))
    assert stored["moments"] == 10
    assert stored["leaks"] == []
    assert "0 leaks" in run("doctor", "features", "--candles", str(candles), "--rows", "4")
    run("doctor", "features", "--days", "3", status=1)


def test_the_doctor_catches_a_canary(candles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = Feature("canary", "price", "15m", 20, 20, CANARIES["tomorrow"])
    table = (feature_table.FEATURES[0], canary)
    examine = leak_checks.examine
    monkeypatch.setattr(leak_checks, "examine", lambda *given: examine(*given, table))
    found = json.loads(run("doctor", "features", "--candles", str(candles), "--rows", "4", "--json", status=1))
    assert {leak["feature"] for leak in found["leaks"]} == {"canary"}
    assert {leak["check"] for leak in found["leaks"]} == {"truncation", "warm-up", "future"}
