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

from tradewind.core.matching_types import (
    Fill,
    ListKind,
    Order,
    OrderKind,
    OrderList,
    OrderSide,
    OrderStatus,
    TimeInForce,
)

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS paper_meta (key text PRIMARY KEY, value jsonb NOT NULL);
CREATE TABLE IF NOT EXISTS paper_accounts (account_id text PRIMARY KEY, data jsonb NOT NULL);
CREATE TABLE IF NOT EXISTS paper_keys (api_key text PRIMARY KEY, data jsonb NOT NULL);
CREATE TABLE IF NOT EXISTS paper_balances (
    account_id text NOT NULL, asset text NOT NULL, atoms numeric(38) NOT NULL CHECK (atoms >= 0),
    PRIMARY KEY (account_id, asset));
CREATE TABLE IF NOT EXISTS paper_orders (order_id bigint PRIMARY KEY, data jsonb NOT NULL);
CREATE TABLE IF NOT EXISTS paper_lists (list_id bigint PRIMARY KEY, data jsonb NOT NULL);
CREATE TABLE IF NOT EXISTS paper_fills (
    symbol text NOT NULL, trade_id bigint NOT NULL, data jsonb NOT NULL, PRIMARY KEY (symbol, trade_id));
"""
_UPSERTS = {
    "meta": "INSERT INTO paper_meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    "accounts": "INSERT INTO paper_accounts VALUES (%s, %s)"
    " ON CONFLICT (account_id) DO UPDATE SET data = excluded.data",
    "keys": "INSERT INTO paper_keys VALUES (%s, %s) ON CONFLICT (api_key) DO UPDATE SET data = excluded.data",
    "balances": "INSERT INTO paper_balances VALUES (%s, %s, %s)"
    " ON CONFLICT (account_id, asset) DO UPDATE SET atoms = excluded.atoms",
    "orders": "INSERT INTO paper_orders VALUES (%s, %s) ON CONFLICT (order_id) DO UPDATE SET data = excluded.data",
    "lists": "INSERT INTO paper_lists VALUES (%s, %s) ON CONFLICT (list_id) DO UPDATE SET data = excluded.data",
    "fills": "INSERT INTO paper_fills VALUES (%s, %s, %s) ON CONFLICT (symbol, trade_id) DO NOTHING",
}
_RETRY_S = 30.0


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


@dataclass(slots=True)
class SavedState:
    """Everything a restart needs; empty for an exchange that never ran."""

    meta: dict[str, Any] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    balances: dict[tuple[str, str], int] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    lists: list[OrderList] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)


class PaperStore:
    """Writes behind one queue. `on_fatal` is called when the database stays away: nothing may be acknowledged then."""

    def __init__(self, database_url: str, on_fatal: Callable[[], None]) -> None:
        self._url = database_url
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
        self._connection = connection = await psycopg.AsyncConnection.connect(self._url)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7240)")
            await connection.execute(SCHEMA)
        state = SavedState(
            {k: v async for k, v in _rows(connection, "SELECT key, value FROM paper_meta")},
            {k: v async for k, v in _rows(connection, "SELECT account_id, data FROM paper_accounts")},
            {k: v async for k, v in _rows(connection, "SELECT api_key, data FROM paper_keys")},
            {
                (a, b): int(n)
                async for a, b, n in _rows(connection, "SELECT account_id, asset, atoms FROM paper_balances")
            },
            [_order(d) async for (d,) in _rows(connection, "SELECT data FROM paper_orders ORDER BY order_id")],
            [_list(d) async for (d,) in _rows(connection, "SELECT data FROM paper_lists ORDER BY list_id")],
            [_fill(d) async for (d,) in _rows(connection, "SELECT data FROM paper_fills ORDER BY symbol, trade_id")],
        )
        await connection.rollback()
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
            self._connection = await psycopg.AsyncConnection.connect(self._url)
        connection = self._connection
        async with connection.pipeline(), connection.transaction(), connection.cursor() as cursor:
            for table, values in rows.tables.items():
                await cursor.executemany(
                    _UPSERTS[table],
                    [(*key, value) for key, value in sorted(values.items(), key=lambda item: str(item[0]))],
                )


async def _rows(connection: psycopg.AsyncConnection[Any], query: str) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(query)
        async for row in cursor:
            yield row


def _tags(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "tags": tuple((str(k), v) for k, v in data["tags"])}


def _order(data: dict[str, Any]) -> Order:
    fixed = _tags(data)
    fixed.update(
        side=OrderSide(data["side"]),
        kind=OrderKind(data["kind"]),
        time_in_force=TimeInForce(data["time_in_force"]),
        status=OrderStatus(data["status"]),
    )
    return Order(**fixed)


def _list(data: dict[str, Any]) -> OrderList:
    return OrderList(**{**data, "kind": ListKind(data["kind"]), "order_ids": tuple(data["order_ids"])})


def _fill(data: dict[str, Any]) -> Fill:
    return Fill(**{**data, "side": OrderSide(data["side"])})
