"""How a training is judged on labelled rows: what each family said against what happened, and scores of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tradewind.core.dataset import SymbolPanel, pool
from tradewind.core.ensemble import FamilyModel, FitSettings, NotEnoughRows, Sample, fit_family
from tradewind.core.labels import CLASS_NAMES
from tradewind.core.overfitting import by_period
from tradewind.core.regime import FAMILIES
from tradewind.core.scoring import auc, log_loss, score_probabilities
from tradewind.core.types import FloatArray, RegimeFamily
from tradewind.core.validation import DAY_MS

Panels = Mapping[str, SymbolPanel]
Families = Mapping[RegimeFamily, FamilyModel]
_EVERY_HOUR: Final = 4  # neighbouring labels overlap: an hour's first tells what the other three would
#: Least expected R of the candidates that could have been chosen in the place of the shipped one.
CANDIDATE_EXPECTED_R: Final = (0.0, 0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one family said of labelled rows that it never saw, and what the base rate and each member said."""

    sample: Sample
    said: FloatArray
    base: FloatArray
    members: Mapping[str, FloatArray]  # calibrated, by library
    worth: Mapping[str, FloatArray]  # expected R of a long entry, by library and of the "ensemble"


def fit_families(
    panels: Panels,
    start_ms: int,
    end_ms: int,
    settings: FitSettings,
    tuned: Mapping[RegimeFamily, FitSettings] | None = None,
) -> tuple[Families, dict[str, str]]:
    """Both families on labels that live inside [start, end); one that cannot be fitted is named with its reason.

    `tuned` holds a family's own settings where they were searched for.
    """
    tuned = tuned or {}
    models: dict[RegimeFamily, FamilyModel] = {}
    skipped: dict[str, str] = {}
    for family in FAMILIES:
        try:
            sample = pool(panels.values(), family, start_ms, end_ms)
            models[family] = fit_family(family, sample, tuned.get(family, settings))
        except NotEnoughRows as error:
            skipped[family.value] = str(error)
    return models, skipped


def ask_families(models: Families, panels: Panels, start_ms: int, end_ms: int) -> dict[RegimeFamily, Answers]:
    """Each family's answers on the labels that live inside [start, end); a family without a label there is absent."""
    answers: dict[RegimeFamily, Answers] = {}
    for family, model in models.items():
        sample = pool(panels.values(), family, start_ms, end_ms)
        if len(sample) == 0:
            continue
        raw = model.members(sample.features)
        said = model.calibrator.apply(np.mean(list(raw.values()), axis=0))
        members = {library: model.calibrator.apply(p) for library, p in raw.items()}
        worth = {name: model.expected_r(p)[0] for name, p in (*members.items(), ("ensemble", said))}
        answers[family] = Answers(sample, said, np.tile(model.base_rates, (len(sample), 1)), members, worth)
    return answers


def score_answers(answers: Mapping[RegimeFamily, Answers]) -> dict[str, Any]:
    """Scores of each family and of both together, and each library's log-loss alone. JSON-able."""
    report: dict[str, Any] = {family.value: score_pooled([given]) for family, given in answers.items()}
    if answers:
        report["pooled"] = score_pooled(list(answers.values()))
    return report


def score_pooled(parts: Iterable[Answers]) -> dict[str, Any]:
    """Scores of several answers as one set of rows."""
    parts = list(parts)
    said, base = (np.concatenate([getattr(part, name) for part in parts]) for name in ("said", "base"))
    labels = np.concatenate([part.sample.labels for part in parts])
    independent = float(sum(part.sample.uniqueness.sum() for part in parts))
    scores = score_probabilities(said, labels, base, CLASS_NAMES, independent)
    libraries = sorted(set.intersection(*(set(part.members) for part in parts)))
    scores["members"] = {
        library: log_loss(np.concatenate([part.members[library] for part in parts]), labels) for library in libraries
    }
    return scores


def incumbent_log_loss(incumbent: Families, answers: Mapping[RegimeFamily, Answers]) -> float:
    """A champion's log-loss on the same rows; a family it lacks answers with the base rates."""
    said = [
        incumbent[family].probabilities(given.sample.features) if family in incumbent else given.base
        for family, given in answers.items()
    ]
    return log_loss(np.concatenate(said), np.concatenate([given.sample.labels for given in answers.values()]))


def candidate_results(
    answers: Iterable[Mapping[RegimeFamily, Answers]], start_ms: int, end_ms: int
) -> tuple[tuple[str, ...], FloatArray]:
    """Daily results of the choices that could have been made instead: each library or all, each least expected R.

    Every row worth the least is taken as a long entry and counts its net R times its uniqueness, so that overlapping
    entries count once. Returns the candidates' names and a matrix of days × candidates.
    """
    given = [part for fold in answers for part in fold.values()]
    columns: dict[str, FloatArray] = {}
    for member in sorted({name for part in given for name in part.worth}):
        for least in CANDIDATE_EXPECTED_R:
            total = np.zeros(0)
            for part in given:
                if member not in part.worth:
                    continue
                taken = part.worth[member] >= least
                results = (part.sample.net_r_long * part.sample.uniqueness)[taken]
                days = by_period(results, part.sample.open_time_ms[taken], start_ms, end_ms, DAY_MS)
                total = days if len(total) == 0 else total + days
            columns[f"{member} from {least:g} R"] = total
    return tuple(columns), np.column_stack(list(columns.values())) if columns else np.empty((0, 0))


def best_single_features(panels: Panels, start_ms: int, end_ms: int) -> dict[str, Any]:
    """For each family and winning side the feature that alone separates it best, with its AUC (≥ 0.5)."""
    report: dict[str, Any] = {}
    names = next(iter(panels.values())).names
    for family in FAMILIES:
        sample = pool(panels.values(), family, start_ms, end_ms).take(slice(None, None, _EVERY_HOUR))
        if len(sample) == 0:
            continue
        best = {}
        for side, name in enumerate(CLASS_NAMES[:2]):
            happened = (sample.labels == side).astype(np.float64)
            areas = np.array([auc(sample.features[:, j].astype(np.float64), happened) for j in range(len(names))])
            areas = np.maximum(areas, 1 - areas)
            at = int(np.argmax(areas))
            best[name] = {"feature": names[at], "auc": float(areas[at])}
        report[family.value] = best
    return report
