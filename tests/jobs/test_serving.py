"""A champion that cannot be trusted blocks every entry by its own reason, never by a guess."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.adapters.test_model_store import save, wide
from tests.core.test_ensemble import SETTINGS
from tests.support.model_rig import ModelRig
from tests.support.toy_market import toy_bars
from tests.support.trading import BAR, NOW, cycle, symbol_inputs
from tradewind.core import features
from tradewind.core.decision import decide, predict
from tradewind.core.ensemble import FamilyModel, fit_family
from tradewind.core.filters import check_model
from tradewind.core.types import Outcome, RegimeFamily
from tradewind.jobs.trading_inputs import champion


@pytest.fixture(scope="module")
def families() -> dict[RegimeFamily, FamilyModel]:
    return {family: fit_family(family, wide(), SETTINGS) for family in RegimeFamily}


@pytest.fixture
def rig(postgres_url: str, tmp_path: Path, families: dict[RegimeFamily, FamilyModel]) -> Iterator[ModelRig]:
    rig = ModelRig(postgres_url, tmp_path, {"BTC/USDT": toy_bars("BTC/USDT", 10, seed=1)})
    save(rig.model_store, families, "v1")
    rig.model_store.promote("v1", "test", NOW)
    yield rig
    rig.close()


def reasons(rig: ModelRig) -> tuple[str, str]:
    """What the model's filter and the decision say."""
    model, problem = champion(rig)
    after = predict(cycle(), model, {}, problem)
    (decision,) = decide(after)
    assert decision.outcome is Outcome.UNAVAILABLE
    return check_model(after, after.symbols[0], None).reason, decision.reason


def test_a_champion_is_loaded_once_a_process(rig: ModelRig, tmp_path: Path) -> None:
    first, problem = champion(rig)
    assert (problem, first is not None) == ("", True)
    for path in tmp_path.rglob("*.txt"):
        path.unlink()
    assert champion(rig)[0] is first


@pytest.mark.parametrize(("damage", "words"), [("missing", "cannot be read"), ("corrupt", "differs from its manifest")])
def test_a_missing_or_corrupt_file_is_the_reason(rig: ModelRig, tmp_path: Path, damage: str, words: str) -> None:
    path = tmp_path / "v1" / "ranging" / "catboost.cbm"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    verdict, decision = reasons(rig)
    assert words in verdict
    assert words in decision
    assert "roll back" in verdict
    assert rig.database.row("SELECT 1 FROM alerts WHERE key = 'model-unavailable'") is not None


def test_other_features_than_the_codes_are_the_reason(rig: ModelRig, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = replace(features.FEATURES[0], warmup_bars=features.FEATURES[0].warmup_bars + 1)
    monkeypatch.setattr(features, "FEATURES", (changed, *features.FEATURES[1:]))
    verdict, _ = reasons(rig)
    assert "other features" in verdict


def test_other_formulas_of_the_same_names_are_the_reason(rig: ModelRig) -> None:
    rig.database.execute("""UPDATE models SET manifest = manifest || '{"formulas_sha256": "of another day"}'""")
    verdict, _ = reasons(rig)
    assert "computed otherwise" in verdict


def test_no_champion_at_all_is_the_reason(rig: ModelRig) -> None:
    rig.database.execute("UPDATE models SET state = 'retired'")
    verdict, decision = reasons(rig)
    assert verdict == "there is no champion model"
    assert "no champion" in decision


def test_too_old_and_too_new_are_refused_with_their_age() -> None:
    limit = timedelta(seconds=cycle().params.max_model_age_s)
    symbol = symbol_inputs()
    close = BAR + timedelta(minutes=15)
    assert check_model(cycle(model_trained_until=close - limit), symbol, None).passed
    old = check_model(cycle(model_trained_until=close - limit - timedelta(days=1)), symbol, None)
    assert not old.passed
    assert "31.0 days" in old.reason
    assert not check_model(cycle(model_trained_until=close + timedelta(minutes=15)), symbol, None).passed
