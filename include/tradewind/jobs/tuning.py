"""The search for the boosters' settings inside a training: the champion's are where it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tradewind.core.boosters import BoosterSettings
from tradewind.core.dataset import SymbolPanel, pool
from tradewind.core.ensemble import FitSettings, NotEnoughRows
from tradewind.core.regime import FAMILIES
from tradewind.core.tuning import tune
from tradewind.core.types import RegimeFamily
from tradewind.core.validation import TrainingParams, Windows


def tune_families(
    panels: Mapping[str, SymbolPanel],
    windows: Windows,
    training: TrainingParams,
    former: Mapping[str, Mapping[str, BoosterSettings]],
) -> tuple[dict[RegimeFamily, FitSettings], dict[str, Any]]:
    """Search each family's settings inside the challenger's own training range; nothing without a budget.

    `former` holds the champion's settings by family and library. Returns the settings by family, and the report. The
    folds keep the shipped settings: what was searched has seen the bars that they test on.
    """
    if training.tuning_trials == 0:
        return {}, {}
    tuned: dict[RegimeFamily, FitSettings] = {}
    report: dict[str, Any] = {}
    for family in FAMILIES:
        sample = pool(panels.values(), family, windows.start_ms, windows.fit_end_ms)
        start = former.get(family.value, {})
        limit_s = training.tuning_timeout_s / len(FAMILIES)
        try:
            found = tune(sample, training.fit, training.tuning_trials, limit_s, start)
        except NotEnoughRows:
            continue  # the fit meets the same and says so
        tuned[family] = replace(training.fit, per_library=found.per_library)
        report[family.value] = dict(found.report)
    return tuned, report
