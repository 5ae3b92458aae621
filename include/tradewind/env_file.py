"""What `.env` says and where that cannot be read; whether it keeps its secrets, and who else may change it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream


def env_file_values(path: Path) -> dict[str, str]:
    """The values of the lines that can be read, by name; a name without a value has an empty one."""
    lines = parse_stream(StringIO(_text(path)))
    readable = "".join(line.original.string for line in lines if not line.error)
    return {name: value or "" for name, value in dotenv_values(stream=StringIO(readable)).items()}


def env_file_faults(path: Path, prefix: str) -> list[str]:
    """What cannot be read, in words: the whole file, or a line that would set a variable of this prefix."""
    text = _text(path)
    faults = ["is no text in UTF-8"] if "\ufffd" in text else []
    return faults + [
        f"line {line.original.line} gives no value"
        for line in parse_stream(StringIO(text))
        if prefix in line.original.string and (line.error or (line.key and line.value is None))
    ]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def env_file_problem(path: Path, secrets: Collection[str]) -> str:
    """Why others may read or change what the file says, and what to do; empty when they may not.

    Parameters
    ----------
    secrets : names of the secrets that it holds; a file without any may be read.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    if found.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user (number {found.st_uid}), who may change what it says: make it yours"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other users may change what {path} says: run chmod 600 '{path}'"
    if secrets and found.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"other users may read {path}, which holds {', '.join(sorted(secrets))}: run chmod 600 '{path}'"
    return ""
