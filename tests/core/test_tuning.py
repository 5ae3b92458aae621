"""The search: budgeted, pruned, repeatable, cut off by time and saying so."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from tests.core.test_ensemble import sample
from tradewind.core import boosters
from tradewind.core.boosters import LIBRARIES, BoosterSettings, Rows, fit_booster
from tradewind.core.ensemble import FitSettings
from tradewind.core.tuning import tune

SETTINGS = FitSettings(boosters=BoosterSettings(max_rounds=60, min_leaf_rows=60))


def test_hopeless_trials_are_pruned_and_the_best_is_never_below_the_start() -> None:
    found = tune(sample(2000), replace(SETTINGS, libraries=("lightgbm",)), 14, 600, {})
    report = found.report["lightgbm"]
    assert report["trials"] == 14
    assert report["pruned"] >= 2
    assert report["finished"] + report["pruned"] == 14
    assert not report["aborted_by_time"]
    assert report["best"] <= report["first"]
    assert found.per_library["lightgbm"].max_rounds == 60, "what is not searched stays as it was"


def test_the_same_seed_searches_the_same_way() -> None:
    one, two = (tune(sample(1500), SETTINGS, 3, 600, {}) for _ in range(2))
    assert one == two


def test_the_first_trial_is_where_the_champion_stood() -> None:
    champions = BoosterSettings(max_rounds=60, min_leaf_rows=77, depth=3, learning_rate=0.1, l2=3.0)
    found = tune(sample(1500), replace(SETTINGS, libraries=("xgboost",)), 1, 600, {"xgboost": champions})
    assert asdict(found.per_library["xgboost"]) == pytest.approx(asdict(champions))


def test_time_aborts_inside_a_fit_and_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0.0, 10_000.0, 0.5))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    found = tune(sample(1500), replace(SETTINGS, libraries=("lightgbm",)), 50, 40.0, {})
    report = found.report["lightgbm"]
    assert report["aborted_by_time"]
    assert report["trials"] < 50
    assert report["finished"] < report["trials"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_watcher_sees_every_round_and_may_end_the_fit(library: str) -> None:
    rows = sample(1500)
    fit = Rows(rows.features[:1000], rows.labels[:1000], np.ones(1000))
    stop = Rows(rows.features[1000:], rows.labels[1000:], np.ones(500))
    seen: list[tuple[int, float]] = []

    def watch(round_: int, loss: float) -> bool:
        seen.append((round_, loss))
        return len(seen) < 10

    booster = fit_booster(library, fit, stop, SETTINGS.boosters, watch)
    assert [round_ for round_, _ in seen] == list(range(10))
    assert booster.rounds <= 10
    said = booster.predict(stop.features)
    loss = -np.mean(np.log(said[np.arange(500), stop.labels]))
    assert loss == pytest.approx(min(loss for _, loss in seen), abs=1e-6)
    unwatched = boosters.fit_booster(library, fit, stop, replace(SETTINGS.boosters, max_rounds=10))
    assert np.abs(unwatched.predict(stop.features) - said).max() < 1e-9
