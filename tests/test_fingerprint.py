"""The hash of the formulas follows what they compute, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tradewind import fingerprint


@pytest.fixture
def formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One of the modules that count, in a copy of the library that may be edited."""
    original = fingerprint._PACKAGE
    copy = tmp_path / "tradewind"
    shutil.copytree(original / "core", copy / "core", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "_PACKAGE", copy)
    yield next(path for path in sorted((copy / "core").rglob("formulas.py")))
    fingerprint.formulas_sha256.cache_clear()


def hashed() -> str:
    fingerprint.formulas_sha256.cache_clear()
    return fingerprint.formulas_sha256()


@pytest.mark.parametrize(
    "line",
    [
        "import math\n",
        "from elsewhere import (\n    a,\n    b,\n)\n",
        "# a comment\n",
        "\n\n",
        "from . import c; import d\n",
    ],
)
def test_imports_comments_and_spacing_do_not_count(formulas: Path, line: str) -> None:
    before = hashed()
    text = formulas.read_text()
    place = text.index("\ndef ")
    formulas.write_text(f"{text[:place]}\n{line}{text[place:]}")
    assert hashed() == before


@pytest.mark.parametrize("line", ["X = 1\n", "important = 1\n", "importlib.import_module('x')\n"])
def test_anything_else_counts(formulas: Path, line: str) -> None:
    before = hashed()
    formulas.write_text(formulas.read_text() + line)
    assert hashed() != before
    assert not fingerprint.are_our_formulas(fingerprint._WITH_IMPORTS)


def test_a_champion_of_before_is_one_of_these_formulas() -> None:
    assert fingerprint.are_our_formulas(fingerprint._WITH_IMPORTS)
    assert fingerprint.are_our_formulas(fingerprint.formulas_sha256())
    assert not fingerprint.are_our_formulas("00" * 32)
