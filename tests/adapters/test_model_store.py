"""The registry: files verified against their manifest, one champion, every change an event."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest

from tests.core.test_ensemble import SETTINGS, sample
from tradewind.adapters import model_store
from tradewind.adapters.database import Database
from tradewind.adapters.model_store import PgModelStore
from tradewind.core.ensemble import FamilyModel, Sample, fit_family
from tradewind.core.features import FEATURE_NAMES, features_hash
from tradewind.core.types import RegimeFamily
from tradewind.core.validation import Gate
from tradewind.errors import BadInput, ModelUnavailable

AT = datetime(2025, 3, 1, tzinfo=UTC)
PASSED = [Gate("trades", True, {"trades": 60})]
FAILED = [Gate("trades", False, {"trades": 10})]


def wide(seed: int = 0) -> Sample:
    """A sample as wide as the real features."""
    narrow = sample(1500, seed=seed)
    rest = np.random.default_rng(seed).standard_normal((1500, len(FEATURE_NAMES) - 6)).astype(np.float32)
    return Sample(
        np.ascontiguousarray(np.hstack([narrow.features, rest])),
        narrow.open_time_ms,
        narrow.t1_ms,
        narrow.labels,
        narrow.uniqueness,
        narrow.net_r_long,
        narrow.net_r_short,
    )


@pytest.fixture(scope="module")
def families() -> dict[RegimeFamily, FamilyModel]:
    return {family: fit_family(family, wide(), SETTINGS) for family in RegimeFamily}


@pytest.fixture
def store(database: Database, tmp_path: Path) -> PgModelStore:
    return PgModelStore(database, tmp_path.as_uri())


def save(
    store: PgModelStore,
    families: dict[RegimeFamily, FamilyModel],
    version: str,
    gates: list[Gate] = PASSED,
    hours: int = 0,
) -> None:
    manifest = {"features_hash": features_hash(), "families": {family.value: {} for family in families}}
    at = AT + timedelta(hours=hours)
    store.save(version, families, {"a": 1}, manifest, gates, trained_from=AT, trained_until=at, at=at)


def test_a_version_comes_back_as_it_was_saved(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel], tmp_path: Path
) -> None:
    save(store, families, "v1")
    assert sorted(path.name for path in (tmp_path / "v1" / "trending").iterdir()) == [
        "catboost.cbm",
        "family.json",
        "lightgbm.txt",
        "xgboost.ubj",
    ]
    loaded = store.load("v1")
    rows = wide(3).features
    for family, model in families.items():
        again = loaded.families[family]
        assert np.abs(again.probabilities(rows) - model.probabilities(rows)).max() < 1e-9
        assert again.mean_net_r_long == model.mean_net_r_long
        assert again.calibrator == model.calibrator
    assert store.reference("v1") == {"a": 1}
    assert store.version("v1")["state"] == "challenger"
    assert store.champion() is None


@pytest.mark.parametrize("name", ["trending/lightgbm.txt", "ranging/catboost.cbm", "ranging/family.json"])
def test_a_changed_or_missing_file_is_refused(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel], tmp_path: Path, name: str
) -> None:
    save(store, families, "v1")
    store.promote("v1", "test", AT)
    path = tmp_path / "v1" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelUnavailable, match="differs from its manifest"):
        store.champion()
    path.unlink()
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        store.champion()


def test_a_model_of_other_features_is_refused(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel], database: Database
) -> None:
    save(store, families, "v1")
    store.promote("v1", "test", AT)
    database.execute("UPDATE models SET manifest = jsonb_set(manifest, '{features_hash}', '\"older\"')")
    with pytest.raises(ModelUnavailable, match="other features"):
        store.champion()


def with_file(store: PgModelStore, database: Database, name: str, content: bytes) -> None:
    """Put other bytes into version v1, with the hash that fits them, as the author of a registry could."""
    row = database.row("SELECT artifact_url FROM models WHERE version = 'v1'")
    assert row is not None
    Path(row["artifact_url"].removeprefix("file://"), name).write_bytes(content)
    database.execute(
        "UPDATE models SET manifest = jsonb_set(manifest, ARRAY['files', %s], to_jsonb(%s::text))",
        (name, hashlib.sha256(content).hexdigest()),
    )


@pytest.mark.parametrize("name", ["trending/lightgbm.txt", "trending/xgboost.ubj", "trending/catboost.cbm"])
@pytest.mark.parametrize(
    "spoil", [lambda c: c[: len(c) // 2], lambda c: bytes(reversed(c)), lambda c: b"\xff" * len(c)]
)
def test_bytes_with_the_right_hash_that_no_library_can_use_become_no_champion(
    store: PgModelStore,
    families: dict[RegimeFamily, FamilyModel],
    database: Database,
    tmp_path: Path,
    name: str,
    spoil: Callable[[bytes], bytes],
) -> None:
    """The library may refuse them or crash: it does so in a process of its own."""
    save(store, families, "v1")
    with_file(store, database, name, spoil((tmp_path / "v1" / name).read_bytes()))
    with pytest.raises(ModelUnavailable, match="cannot be used"):
        store.promote("v1", "test", AT)
    assert store.champion() is None


def test_a_library_that_crashes_ends_its_own_process_alone(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lightgbm.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    save(store, families, "v1")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ['PYTHONPATH']}")
    with pytest.raises(ModelUnavailable, match=r"ends its process \(signal 11\)"):
        store.promote("v1", "test", AT)
    assert store.champion() is None


@pytest.mark.parametrize("name", ["../../v2/family.json", "/etc/passwd", "trending/../../x.txt", "a\0.txt"])
def test_a_file_outside_the_versions_directory_is_refused(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel], database: Database, name: str
) -> None:
    save(store, families, "v1")
    row = store.version("v1") | {"artifact_url": "file:///tmp", "manifest": {"files": {name: "00"}}}
    with pytest.raises(ModelUnavailable, match="names a file"):
        store._files(row)


def test_a_file_of_any_size_is_read_to_its_limit_only(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, families, "v1")
    monkeypatch.setattr(model_store, "_MAX_FILE_BYTES", 1_000)
    with pytest.raises(ModelUnavailable, match="larger than"):
        store.load("v1")


def test_promotion_retires_the_former_champion_and_rollback_brings_it_back(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel], database: Database
) -> None:
    for number in (1, 2, 3):
        save(store, families, f"v{number}", hours=number)
        store.promote(f"v{number}", "test", AT + timedelta(hours=number))
    first = store.champion()
    assert first is not None
    assert first.version == "v3"
    assert store.champion() is first, "kept for the process"
    assert [row["state"] for row in store.versions()] == ["champion", "retired", "retired"]

    assert store.roll_back("operator", AT + timedelta(days=1)) == "v2"
    champion = store.champion()
    assert champion is not None
    assert champion.version == "v2"
    assert [row["state"] for row in store.versions()] == ["retired", "champion", "retired"]
    events = [(event["event"], event["actor"]) for event in store.version("v3")["events"]]
    assert events == [("saved", "training"), ("promoted", "test"), ("retired", "operator")]
    assert store.version("v2")["events"][-1]["event"] == "rolled_back_to"

    # Another process sees the change without being told.
    other = PgModelStore(database, "file:///nowhere")
    loaded = other.champion()
    assert loaded is not None
    assert loaded.version == "v2"


def test_a_version_that_failed_a_gate_or_was_never_judged_does_not_trade(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel]
) -> None:
    save(store, families, "bad", FAILED)
    save(store, families, "unjudged", [])
    for version, words in (("bad", "trades"), ("unjudged", "never judged"), ("unknown", "not known")):
        with pytest.raises(BadInput, match=words):
            store.promote(version, "operator", AT)
    with pytest.raises(BadInput, match="no former champion"):
        store.roll_back("operator", AT)
    assert store.champion() is None


def test_a_saved_version_is_never_rewritten(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel], tmp_path: Path
) -> None:
    save(store, families, "v1")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    save(store, {RegimeFamily.TRENDING: families[RegimeFamily.TRENDING]}, "v1", FAILED)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [gate["passed"] for gate in store.version("v1")["gates"]] == [True]


def test_the_database_itself_allows_one_champion(
    store: PgModelStore, families: dict[RegimeFamily, FamilyModel], database: Database
) -> None:
    save(store, families, "v1")
    save(store, families, "v2")
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute("UPDATE models SET state = 'champion'")
