"""Which code decided: hashes of the library's own files, stored with every decision and every model."""

from __future__ import annotations

import hashlib
import tokenize
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_FORMULAS = ("features", "feature_table", "formulas", "indicators", "resampling", "rolling")
_NO_MEANING = frozenset((tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING, tokenize.INDENT))


@cache
def code_sha256() -> str:
    """SHA-256 over name and content of every Python file of the library, as this process found them first."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def sources_sha256(modules: tuple[str, ...]) -> str:
    """SHA-256 over the files of some modules of the library, as this process found them first."""
    digest = hashlib.sha256()
    for module in modules:
        path = _PACKAGE.parent / (module.replace(".", "/") + ".py")
        digest.update(module.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def formulas_sha256() -> str:
    """SHA-256 over the words of the modules that compute features, comments and spacing left out.

    A model that learned one formula must not be asked with another of the same name.
    """
    digest = hashlib.sha256()
    for name in _FORMULAS:
        with (_PACKAGE / "core" / f"{name}.py").open("rb") as source:
            for token in tokenize.tokenize(source.readline):
                if token.type not in _NO_MEANING:
                    digest.update(token.string.encode())
        digest.update(b"\0")
    return digest.hexdigest()
