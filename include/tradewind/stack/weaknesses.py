"""What a start should say of this machine before it holds keys: who else may read them, and what is not mended yet."""

from __future__ import annotations

import os
import re
import subprocess

from tradewind.settings import Settings, exposed_env_file
from tradewind.stack.postgres_files import UNPRIVILEGED_USER, installed_binaries, plain_environment

# The release of 13 August 2026: among much else it closes ways in which a database role, or the author of a dump, may
# run code (CVE-2026-14664, CVE-2026-16239, CVE-2026-18408, CVE-2026-19385).
_MENDED = (16, 15)


def weaknesses(settings: Settings) -> list[str]:
    """Each in a sentence that says what to do; none of them is a secret."""
    found = []
    if problem := exposed_env_file():
        found.append(problem)
    if settings.uses_embedded_database:
        version = bundled_postgres()
        if version < _MENDED:
            here, mended = (".".join(map(str, number)) for number in (version, _MENDED))
            found.append(
                f"the bundled PostgreSQL {here} has not the security fixes of {mended}: only this deployment's own "
                "roles reach it, and of its programs the server alone runs; TRADEWIND_DATABASE_URL names one of yours"
            )
        if os.geteuid() == 0:
            found.append(
                f"root runs the stack, and PostgreSQL as {UNPRIVILEGED_USER}, as whom other services of this machine "
                "may run too: run it as a user of its own"
            )
    return found


def bundled_postgres() -> tuple[int, ...]:
    """The version of the server that the lock installs."""
    done = subprocess.run(
        [installed_binaries() / "postgres", "--version"],
        env=plain_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(int(part) for part in re.findall(r"\d+", done.stdout)[:2])
