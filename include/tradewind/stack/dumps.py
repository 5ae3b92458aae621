"""The rows of a database, table by table: written by COPY, and read into tables that our own code has made.

No statement comes from a dump. Names of tables and columns are compared with those that are there, values are read by
COPY as values: whoever wrote a dump decides what the rows say, and nothing about what is run.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Final

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict, StringConstraints

from tradewind.errors import BadInput, StackFailed, StoreUnavailable

Connection = psycopg.Connection[Any]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
# Written by every start, or by the restore itself: what the database is, and what checks the control token's signature.
OUR_BOOKS: Final = ("schema_migrations", "deployment", "control_key")
# No ledger of ours comes near; beyond, a number might run out, and with it a table that stops trading.
_HIGHEST_NUMBER: Final = 1 << 53
_CHUNK_BYTES: Final = 1 << 20

# The same on both sides, whatever the server, the database or the role are set to.
_FORMS: Final = """
    SET LOCAL client_encoding = 'UTF8'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres';
    SET LOCAL timezone = 'UTC'; SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1;
    SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"""
_COLUMNS: Final = """
    SELECT relname, array_agg(attname::text ORDER BY attnum)
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
      AND attgenerated = '' GROUP BY relname"""
_SEQUENCES: Final = """
    SELECT sequence.relname, owner.relname, attname FROM pg_depend
    JOIN pg_class sequence ON sequence.oid = objid AND sequence.relkind = 'S'
    JOIN pg_class owner ON owner.oid = refobjid AND owner.relnamespace = 'public'::regnamespace
    JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
    WHERE deptype IN ('a', 'i')"""
_REFERENCES: Final = """
    SELECT owner.relname, target.relname FROM pg_constraint
    JOIN pg_class owner ON owner.oid = conrelid JOIN pg_class target ON target.oid = confrelid
    WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND conrelid <> confrelid"""


class Contents(BaseModel):
    """What a dump holds: each table's columns, in the order of its rows' values, and each sequence's next number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tables: dict[Name, list[Name]]
    sequences: dict[Name, int]


@contextmanager
def snapshot(url: str) -> Iterator[Connection]:
    """The database as it is at one moment, to be read; nobody waits for it. Raises StoreUnavailable, StackFailed."""
    with _connected(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute(_FORMS)
        yield connection


@contextmanager
def filling(url: str) -> Iterator[Connection]:
    """A transaction that makes and fills a database: all of it, or nothing. Raises StoreUnavailable, StackFailed."""
    with _connected(url) as connection:
        connection.execute(_FORMS)
        yield connection


def dump(connection: Connection, directory: Path) -> Contents:
    """Write each table's rows into a file of its own, `TABLE.copy.gz`."""
    tables = {name: columns for name, columns in connection.execute(_COLUMNS) if name not in OUR_BOOKS}
    for table, columns in tables.items():
        statement = sql.SQL("COPY {} ({}) TO STDOUT").format(_qualified(table), _list(columns))
        with (
            gzip.open(directory / file_of(table), "wb", compresslevel=6) as packed,
            io.BufferedWriter(packed, _CHUNK_BYTES) as file,
            connection.cursor().copy(statement) as rows,
        ):
            for row in rows:
                file.write(row)
    sequences = {}
    for name, _, _ in connection.execute(_SEQUENCES).fetchall():
        place = sql.SQL("SELECT last_value + is_called::int FROM {}").format(_qualified(name))
        (sequences[name],) = connection.execute(place).fetchone() or (1,)
    return Contents.model_validate({"tables": tables, "sequences": sequences})


def load(connection: Connection, contents: Contents, chunks: Callable[[str], Iterable[bytes]]) -> list[str]:
    """Read rows into the tables that are there, those first to which others refer.

    Parameters
    ----------
    chunks : a table's rows as COPY wrote them, unpacked, by the name of its file.

    Returns the tables of the dump that are not there, whose rows were left out. Raises BadInput for a column that is
    not there, or rows that the tables refuse.
    """
    there = dict(connection.execute(_COLUMNS).fetchall())
    for table in _in_order(connection, there):
        if table not in contents.tables or table in OUR_BOOKS:
            continue
        columns = contents.tables[table]
        if unknown := sorted(set(columns) - set(there[table])):
            raise BadInput(f"the backup holds {table}.{unknown[0]}, which its schema does not have")
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(_qualified(table), _list(columns))
        try:
            with connection.cursor().copy(statement) as rows:
                for chunk in chunks(file_of(table)):
                    rows.write(chunk)
        except psycopg.Error as error:
            raise BadInput(f"the backup's rows of {table} were refused: {_first_line(error)}") from None
    _set_sequences(connection, contents.sequences)
    return sorted(contents.tables.keys() - there.keys())


def file_of(table: str) -> str:
    return f"{table}.copy.gz"


def is_empty(connection: Connection) -> bool:
    """Whether the database holds no table, view or sequence of anybody's."""
    statement = """
        SELECT count(*) = 0 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND relkind IN ('r', 'p', 'v', 'm', 'S')"""
    return connection.execute(statement).fetchone() == (True,)


def _set_sequences(connection: Connection, wanted: Mapping[str, int]) -> None:
    """Let each go on after what was given out: as the dump says, and behind every number in the rows."""
    for sequence, table, column in connection.execute(_SEQUENCES).fetchall():
        highest = sql.SQL("SELECT coalesce(max({}), 0) FROM {}").format(sql.Identifier(column), _qualified(table))
        (number,) = connection.execute(highest).fetchone() or (0,)
        following = max(wanted.get(sequence, 1), number + 1)
        if following > _HIGHEST_NUMBER:
            raise BadInput(f"the backup numbers its rows of {table} up to {following}, which none of ours reaches")
        connection.execute("SELECT setval(to_regclass(%s), %s, false)", (f"public.{sequence}", following))


def _in_order(connection: Connection, tables: Iterable[str]) -> list[str]:
    order: TopologicalSorter[str] = TopologicalSorter({table: [] for table in sorted(tables)})
    for owner, target in connection.execute(_REFERENCES):
        order.add(owner, target)
    return list(order.static_order())


def _qualified(table: str) -> sql.Identifier:
    return sql.Identifier("public", table)


def _list(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    try:
        connection = psycopg.connect(url, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"cannot connect to the database: {str(error).replace(url, '(database URL)')}") from None
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise StackFailed(f"the database refused: {_first_line(error)}") from None


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
