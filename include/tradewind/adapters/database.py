"""One PostgreSQL database, reached through a small pool that survives a restart of the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from tradewind.errors import StoreUnavailable

Connection = psycopg.Connection[DictRow]


class Database:
    """Connections whose rows are dicts and whose times are UTC; made on first use, so forking before is harmless."""

    def __init__(self, dsn: str, *, max_connections: int = 4, lock_timeout_s: float = 30.0) -> None:
        self._dsn = dsn
        self._max_connections = max_connections
        self._own = threading.local()  # the connection of a snapshot that this thread reads
        # A session of ours that hangs in a transaction ends, and frees what it locked; what waits for a lock says so in
        # the end. The longest that may idle is the one that holds a position's lock while the exchange is asked.
        self._options = (
            f"-c timezone=UTC -c lock_timeout={lock_timeout_s:g}s -c idle_in_transaction_session_timeout=300s"
        )

    @cached_property
    def _pool(self) -> ConnectionPool[Connection]:
        return ConnectionPool(
            self._dsn,
            min_size=0,
            max_size=self._max_connections,
            open=True,
            timeout=15,
            max_idle=60,
            check=ConnectionPool.check_connection,
            kwargs={"row_factory": dict_row, "options": self._options, "application_name": "tradewind"},
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in one transaction: committed at the end, rolled back on any exception.

        Raises StoreUnavailable when the server refuses or drops the connection: whether a commit that was under way
        took place is then unknown, so callers repeat only what is idempotent.
        """
        snapshot: Connection | None = getattr(self._own, "snapshot", None)
        if snapshot is not None:
            yield snapshot
            return
        try:
            with self._pool.connection() as connection:
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreUnavailable(f"PostgreSQL does not answer: {words}") from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within, all that this thread reads is the database at one moment; a write is refused. One within another is
        the outer one."""
        if getattr(self._own, "snapshot", None) is not None:
            yield
            return
        with self.transaction() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._own.snapshot = connection
            try:
                yield
            finally:
                del self._own.snapshot

    def rows(self, sql: str, params: Any = None) -> list[dict[str, Any]]:
        """All rows of one bound query."""
        with self.transaction() as connection:
            return connection.execute(sql, params).fetchall()

    def row(self, sql: str, params: Any = None) -> dict[str, Any] | None:
        """The first row of one bound query, or None."""
        with self.transaction() as connection:
            return connection.execute(sql, params).fetchone()

    def execute(self, sql: str, params: Any = None) -> int:
        """Run one bound statement in its own transaction; returns the number of rows it touched."""
        with self.transaction() as connection:
            return connection.execute(sql, params).rowcount

    def close(self) -> None:
        if "_pool" in self.__dict__:
            self._pool.close()
            del self.__dict__["_pool"]
