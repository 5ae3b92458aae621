"""The exchange's memory: PostgreSQL, written behind one queue, so that many requests share a commit.

`submit` takes a snapshot of what changed; `flushed` returns when everything submitted so far is committed. Answers are
sent after that, so an acknowledged change is never lost. Rows are written by key, so a batch whose outcome is unknown
(the connection died in the commit) is simply written again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg

from tradewind.paper.archive import SCHEMA, Archive, SavedState, read_fill, read_order

__all__ = ["PaperStore", "Rows", "SavedState", "read_fill", "read_order", "to_json"]
log = logging.getLogger(__name__)

_WRITE = """
WITH meta AS (
    INSERT INTO paper_meta SELECT unnest(%s::text[]), unnest(%s::text[])::jsonb
    ON CONFLICT (key) DO UPDATE SET value = excluded.value),
accounts AS (
    INSERT INTO paper_accounts SELECT unnest(%s::text[]), unnest(%s::text[])::jsonb
    ON CONFLICT (account_id) DO UPDATE SET data = excluded.data),
keys AS (
    INSERT INTO paper_keys SELECT unnest(%s::text[]), unnest(%s::text[])::jsonb
    ON CONFLICT (api_key) DO UPDATE SET data = excluded.data),
balances AS (
    INSERT INTO paper_balances SELECT unnest(%s::text[]), unnest(%s::text[]), unnest(%s::numeric[])
    ON CONFLICT (account_id, asset) DO UPDATE SET atoms = excluded.atoms),
orders AS (
    INSERT INTO paper_orders SELECT unnest(%s::bigint[]), unnest(%s::text[])::jsonb
    ON CONFLICT (order_id) DO UPDATE SET data = excluded.data),
lists AS (
    INSERT INTO paper_lists SELECT unnest(%s::bigint[]), unnest(%s::text[])::jsonb
    ON CONFLICT (list_id) DO UPDATE SET data = excluded.data),
futures AS (
    INSERT INTO paper_futures SELECT unnest(%s::text[]), unnest(%s::text[]), unnest(%s::text[])::jsonb
    ON CONFLICT (kind, key) DO UPDATE SET data = excluded.data)
INSERT INTO paper_fills SELECT unnest(%s::text[]), unnest(%s::bigint[]), unnest(%s::text[])::jsonb
ON CONFLICT (symbol, trade_id) DO NOTHING
"""
"""Everything of one commit in one statement, so in one transaction and one round trip."""
_RETRY_S = 30.0
KEPT_CLOSED_ORDERS = 20_000
"""So many closed orders stay in memory; older ones are read from the database when somebody asks."""
_COLUMNS = {
    "meta": 2, "accounts": 2, "keys": 2, "balances": 3, "orders": 2, "lists": 2, "futures": 3, "fills": 3,
}  # fmt: skip
"""Tables in the order of the statement's parts, with their number of columns."""


@dataclass(slots=True)
class Rows:
    """Rows to write, by table: the key columns, then the last column's value."""

    tables: dict[str, dict[tuple[Any, ...], Any]] = field(default_factory=dict)

    def put(self, table: str, key: tuple[Any, ...], value: Any) -> None:
        self.tables.setdefault(table, {})[key] = value

    def merge(self, later: Rows) -> None:
        for table, rows in later.tables.items():
            self.tables.setdefault(table, {}).update(rows)

    def __bool__(self) -> bool:
        return bool(self.tables)


def to_json(value: object) -> str:
    return orjson.dumps(value).decode()


class PaperStore:
    """Writes behind one queue. `on_fatal` is called when the database stays away: nothing may be acknowledged then."""

    def __init__(self, database_url: str, on_fatal: Callable[[], None], kept_orders: int = KEPT_CLOSED_ORDERS) -> None:
        self.kept_orders = kept_orders
        self._url = database_url
        self.archive = Archive(database_url)
        self._on_fatal = on_fatal
        self._pending = Rows()
        self._wakeup = asyncio.Event()
        self._submitted = 0
        self._committed = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def open(self) -> SavedState:
        """Create the tables if needed, read everything, start the writer."""
        self._connection = connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7240)")
            await connection.execute(SCHEMA)
        state = await self.archive.state(self.kept_orders)
        self._task = asyncio.create_task(self._write_forever())
        return state

    def submit(self, rows: Rows) -> None:
        """Queue rows; a later value of the same row replaces an earlier one that is not written yet."""
        if rows:
            self._pending.merge(rows)
            self._submitted += 1
            self._wakeup.set()

    async def flushed(self) -> None:
        """Return when everything submitted before this call is committed."""
        if self._committed >= self._submitted:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._submitted, waiter))
        await waiter

    async def close(self) -> None:
        await self.flushed()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.archive.close()
        if self._connection is not None:
            await self._connection.close()

    async def _write_forever(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            rows, upto = self._pending, self._submitted
            self._pending = Rows()
            await self._write_until_done(rows)
            self._committed = upto
            due = [w for n, w in self._waiters if n <= upto]
            self._waiters = [(n, w) for n, w in self._waiters if n > upto]
            for waiter in due:
                if not waiter.done():
                    waiter.set_result(None)

    async def _write_until_done(self, rows: Rows) -> None:
        deadline = asyncio.get_running_loop().time() + _RETRY_S
        while True:
            try:
                await self._write(rows)
                return
            except psycopg.OperationalError:
                log.exception("the paper exchange cannot write its state")
                if asyncio.get_running_loop().time() > deadline:
                    self._on_fatal()
                    raise
                await asyncio.sleep(0.5)
            except psycopg.Error:
                log.exception("the paper exchange's state was refused by its database")
                self._on_fatal()
                raise

    async def _write(self, rows: Rows) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        values: list[list[Any]] = []
        for table, columns in _COLUMNS.items():
            written = rows.tables.get(table)
            if written:
                values += [*(list(column) for column in zip(*written, strict=True)), list(written.values())]
            else:
                values += [[]] * columns
        await self._connection.execute(_WRITE, values, prepare=True)
