"""Whether `.env` keeps its secrets, and who else may change what it says."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path


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
