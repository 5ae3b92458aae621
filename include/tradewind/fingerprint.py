"""Which code decided: hashes of the library's own files, stored with every decision and every model."""

from __future__ import annotations

import hashlib
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

_PACKAGE = Path(__file__).resolve().parent
_FORMULAS = ("features", "feature_table", "formulas", "indicators", "resampling", "rolling")
# What a hash is called today that an earlier version of this code computed over the same formulas, imports included.
_WITH_IMPORTS = "3397fd0e1cf6b37d5cfa3eb531a3e1c5b05d31ce6c6692dbbe42724e98c043c5"  # pragma: allowlist secret
_WITHOUT_IMPORTS = "828971726fe88e4dce1ff8d91f7fa07b48691d7eedafe049a8110e517ab61ead"  # pragma: allowlist secret
_RENAMED = {_WITH_IMPORTS: _WITHOUT_IMPORTS}
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
    """SHA-256 over the words of the modules that compute features; imports, comments and spacing left out.

    A model that learned one formula must not be asked with another of the same name. Where a module lies, and what it
    imports from where, is no part of a formula.
    """
    digest = hashlib.sha256()
    for name in _FORMULAS:
        with (_PACKAGE / "core" / f"{name}.py").open("rb") as source:
            for word in _words(source):
                digest.update(word.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def are_our_formulas(sha256: str) -> bool:
    """True if a model with this hash in its manifest learned the formulas that this code computes."""
    return _RENAMED.get(sha256, sha256) == formulas_sha256()


def _words(source: BinaryIO) -> Iterator[str]:
    is_import, at_start = False, True
    for token in tokenize.tokenize(source.readline):
        if at_start and token.type == tokenize.NAME:
            is_import = token.string in ("import", "from")
        if token.type == tokenize.NEWLINE:
            is_import, at_start = False, True
        elif token.type not in _NO_MEANING and token.string:  # a dedent has none, and may stand before an import
            at_start = False
            if not is_import:
                yield token.string
