"""Models as files in each library's own format, and back; nothing is ever unpickled.

::

    <version>/trending/lightgbm.txt  xgboost.ubj  catboost.cbm  family.json
              ranging/…
              reference.json        the training distribution of each feature, for drift
              manifest.json         what it is, and the SHA-256 of each file above
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradewind.core.boosters import Booster, CatBoostModel, LightGbm, XgBoost
from tradewind.core.calibration import Calibrator
from tradewind.core.ensemble import FamilyModel
from tradewind.core.types import RegimeFamily
from tradewind.errors import ModelUnavailable

_FILE_NAMES = {"lightgbm": "lightgbm.txt", "xgboost": "xgboost.ubj", "catboost": "catboost.cbm"}


def canonical_json(data: Any) -> bytes:
    """One spelling of JSON, so that equal content has an equal hash. Raises ValueError for NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def family_files(model: FamilyModel) -> dict[str, bytes]:
    """All files of one family, by path under the version."""
    files = {f"{model.family}/{_FILE_NAMES[b.library]}": _booster_bytes(b) for b in model.boosters}
    files[f"{model.family}/family.json"] = canonical_json(
        {
            "boosters": [{"library": b.library, "rounds": b.rounds} for b in model.boosters],
            "calibrator": model.calibrator.to_dict(),
            "base_rates": model.base_rates,
            "mean_net_r_long": model.mean_net_r_long,
            "mean_net_r_short": model.mean_net_r_short,
            "rows": model.rows,
            "failures": dict(model.failures),
        }
    )
    return files


def load_family(family: RegimeFamily, files: Mapping[str, bytes]) -> FamilyModel:
    """A family's model out of its verified files. Raises ModelUnavailable when one cannot be read."""
    try:
        about = json.loads(files[f"{family}/family.json"])
        boosters = tuple(
            _load_booster(entry["library"], files[f"{family}/{_FILE_NAMES[entry['library']]}"], int(entry["rounds"]))
            for entry in about["boosters"]
        )
        return FamilyModel(
            family,
            boosters,
            Calibrator.from_dict(about["calibrator"]),
            _triple(about["base_rates"]),
            _triple(about["mean_net_r_long"]),
            _triple(about["mean_net_r_short"]),
            int(about["rows"]),
            about["failures"],
        )
    # Each library raises its own kind for bytes it cannot read; all mean the same to the caller.
    except Exception as error:
        raise ModelUnavailable(f"the {family} model cannot be read: {type(error).__name__}: {error}") from error


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _booster_bytes(booster: Booster) -> bytes:
    if booster.library == "lightgbm":
        text: str = booster.native.model_to_string(num_iteration=booster.rounds)
        return text.encode()
    if booster.library == "xgboost":
        return bytes(booster.native[: booster.rounds].save_raw(raw_format="ubj"))
    # CatBoost writes its format to a file only.
    with tempfile.TemporaryDirectory(prefix="tradewind-") as directory:
        path = Path(directory) / "model.cbm"
        booster.native.save_model(str(path), format="cbm")
        return path.read_bytes()


def _load_booster(library: str, content: bytes, rounds: int) -> Booster:
    if library == "lightgbm":
        import lightgbm

        return LightGbm(lightgbm.Booster(model_str=content.decode()), rounds)
    if library == "xgboost":
        import xgboost

        native = xgboost.Booster()
        native.load_model(bytearray(content))
        return XgBoost(native, rounds)
    if library == "catboost":
        import catboost

        model = catboost.CatBoost()
        model.load_model(blob=content)
        return CatBoostModel(model, rounds)
    raise ValueError(f"unknown library {library!r}")
