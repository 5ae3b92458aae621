"""The exchange's database read back: the state at start, and what was closed too long ago to stay in memory.

Orders, lists and trades are stored whole as JSON; the columns beside it are made by the database for look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tradewind.core.matching_types import (
    NO_LIST,
    Amendment,
    Fill,
    ListKind,
    Order,
    OrderKind,
    OrderList,
    OrderSide,
    OrderStatus,
    TimeInForce,
)

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
CREATE TABLE IF NOT EXISTS paper_futures (
    kind text NOT NULL, key text NOT NULL, data jsonb NOT NULL, PRIMARY KEY (kind, key));
ALTER TABLE paper_orders ADD COLUMN IF NOT EXISTS account_id text GENERATED ALWAYS AS (data->>'account_id') STORED;
ALTER TABLE paper_orders ADD COLUMN IF NOT EXISTS client_id text GENERATED ALWAYS AS (data->>'client_id') STORED;
ALTER TABLE paper_lists ADD COLUMN IF NOT EXISTS account_id text GENERATED ALWAYS AS (data->>'account_id') STORED;
ALTER TABLE paper_fills ADD COLUMN IF NOT EXISTS account_id text GENERATED ALWAYS AS (data->>'account_id') STORED;
ALTER TABLE paper_fills ADD COLUMN IF NOT EXISTS order_id bigint
    GENERATED ALWAYS AS ((data->>'order_id')::bigint) STORED;
CREATE INDEX IF NOT EXISTS paper_orders_of_account ON paper_orders (account_id, order_id);
CREATE INDEX IF NOT EXISTS paper_orders_client_id ON paper_orders (client_id);
CREATE INDEX IF NOT EXISTS paper_lists_of_account ON paper_lists (account_id, list_id);
CREATE INDEX IF NOT EXISTS paper_fills_of_account ON paper_fills (account_id, symbol, trade_id);
CREATE INDEX IF NOT EXISTS paper_fills_of_order ON paper_fills (order_id);
"""
"""Columns beside `data` are made from it by the database: parts that never change, for look-ups."""

_SELECT_META = "SELECT key, value FROM paper_meta"
_SELECT_ACCOUNTS = "SELECT account_id, data FROM paper_accounts"
_SELECT_KEYS = "SELECT api_key, data FROM paper_keys"
_SELECT_BALANCES = "SELECT account_id, asset, atoms FROM paper_balances"
_SELECT_FUTURES = "SELECT kind, key, data FROM paper_futures"
_SELECT_RECENT_ORDERS = """
SELECT data FROM paper_orders
WHERE data->>'status' IN ('PENDING_NEW', 'NEW', 'PARTIALLY_FILLED')
   OR order_id > (SELECT max(order_id) FROM paper_orders) - %s
ORDER BY order_id
"""
_SELECT_ORDERS_BY_ID = "SELECT data FROM paper_orders WHERE order_id = ANY(%s) ORDER BY order_id"
_SELECT_LISTS_BY_ID = "SELECT data FROM paper_lists WHERE list_id = ANY(%s) ORDER BY list_id"
_SELECT_FILLS_OF_ORDERS = "SELECT data FROM paper_fills WHERE order_id = ANY(%s) ORDER BY symbol, trade_id"
_SELECT_LAST_TRADES = "SELECT symbol, max(trade_id) FROM paper_fills GROUP BY symbol"
_SELECT_LAST_IDS = "SELECT (SELECT max(order_id) FROM paper_orders), (SELECT max(list_id) FROM paper_lists)"
_SELECT_NEWEST_WITH_CLIENT_ID = """
SELECT data FROM paper_orders WHERE account_id = %s AND client_id = %s ORDER BY order_id DESC LIMIT 1
"""
_SELECT_NEWEST_LIST_WITH_CLIENT_ID = """
SELECT data FROM paper_lists WHERE account_id = %s AND data->>'client_id' = %s ORDER BY list_id DESC LIMIT 1
"""
_SELECT_ORDERS = """
SELECT data FROM paper_orders
WHERE account_id = %s AND data->>'symbol' = %s AND order_id >= %s
  AND (data->>'created_ms')::bigint BETWEEN %s AND %s
ORDER BY order_id {direction} LIMIT %s
"""
_SELECT_LISTS = """
SELECT data FROM paper_lists
WHERE account_id = %s AND list_id >= %s AND (data->>'updated_ms')::bigint BETWEEN %s AND %s
ORDER BY list_id {direction} LIMIT %s
"""
_SELECT_FILLS = """
SELECT data FROM paper_fills
WHERE account_id = %s AND symbol = %s AND trade_id >= %s AND (data->>'time_ms')::bigint BETWEEN %s AND %s
  AND (%s::bigint IS NULL OR order_id = %s)
ORDER BY trade_id {direction} LIMIT %s
"""
_EVERYTHING = 1 << 31


@dataclass(slots=True)
class SavedState:
    """What a restart needs; empty for an exchange that never ran."""

    meta: dict[str, Any] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    balances: dict[tuple[str, str], int] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    lists: list[OrderList] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    futures: dict[tuple[str, str], Any] = field(default_factory=dict)
    last_trade_ids: dict[str, int] = field(default_factory=dict)
    last_order_id: int = 0
    last_list_id: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Which rows: ids from `first_id` on, times in [start_ms, end_ms], the oldest `limit` of them or the newest."""

    first_id: int = 0
    start_ms: int = 0
    end_ms: int = 1 << 62
    limit: int = _EVERYTHING
    oldest: bool = True

    @property
    def direction(self) -> str:
        return "ASC" if self.oldest else "DESC"


class Archive:
    """Reads of everything that was ever committed, on a connection of its own."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def state(self, kept_orders: int) -> SavedState:
        """The state without what is long over: open orders, the newest `kept_orders`, and what belongs to them."""
        state = SavedState(
            dict(await self._rows(_SELECT_META)),
            dict(await self._rows(_SELECT_ACCOUNTS)),
            dict(await self._rows(_SELECT_KEYS)),
            {(account, asset): int(atoms) for account, asset, atoms in await self._rows(_SELECT_BALANCES)},
            [read_order(d) for (d,) in await self._rows(_SELECT_RECENT_ORDERS, kept_orders)],
        )
        wanted = sorted({o.list_id for o in state.orders if o.list_id != NO_LIST})
        state.lists = [read_list(d) for (d,) in await self._rows(_SELECT_LISTS_BY_ID, wanted)]
        missing = {i for x in state.lists for i in x.order_ids} - {o.order_id for o in state.orders}
        state.orders += await self.orders_by_id(missing)
        state.fills = await self.fills_of_orders(o.order_id for o in state.orders)
        state.futures = {(kind, key): data for kind, key, data in await self._rows(_SELECT_FUTURES)}
        state.last_trade_ids = dict(await self._rows(_SELECT_LAST_TRADES))
        ((last_order, last_list),) = await self._rows(_SELECT_LAST_IDS)
        state.last_order_id, state.last_list_id = last_order or 0, last_list or 0
        return state

    async def orders_by_id(self, order_ids: Iterable[int]) -> list[Order]:
        return [read_order(d) for (d,) in await self._rows(_SELECT_ORDERS_BY_ID, sorted(order_ids))]

    async def lists_by_id(self, list_ids: Iterable[int]) -> list[OrderList]:
        return [read_list(d) for (d,) in await self._rows(_SELECT_LISTS_BY_ID, sorted(list_ids))]

    async def fills_of_orders(self, order_ids: Iterable[int]) -> list[Fill]:
        """Trades of these orders, by symbol and trade id."""
        return [read_fill(d) for (d,) in await self._rows(_SELECT_FILLS_OF_ORDERS, list(order_ids))]

    async def order_with_client_id(self, account_id: str, client_id: str) -> list[Order]:
        """The newest order of the account with that client id, or nothing."""
        return [read_order(d) for (d,) in await self._rows(_SELECT_NEWEST_WITH_CLIENT_ID, account_id, client_id)]

    async def list_with_client_id(self, account_id: str, client_id: str) -> list[OrderList]:
        """The newest list of the account with that client id, or nothing."""
        return [read_list(d) for (d,) in await self._rows(_SELECT_NEWEST_LIST_WITH_CLIENT_ID, account_id, client_id)]

    async def orders(self, account_id: str, symbol: str, page: Page) -> list[Order]:
        found = await self._page(_SELECT_ORDERS, page, account_id, symbol)
        return [read_order(d) for (d,) in found]

    async def lists(self, account_id: str, page: Page) -> list[OrderList]:
        found = await self._page(_SELECT_LISTS, page, account_id)
        return [read_list(d) for (d,) in found]

    async def fills(self, account_id: str, symbol: str, page: Page, order_id: int | None = None) -> list[Fill]:
        query = _SELECT_FILLS.format(direction=page.direction)
        values = (account_id, symbol, page.first_id, page.start_ms, page.end_ms, order_id, order_id, page.limit)
        return [read_fill(d) for (d,) in await self._rows(query, *values)]

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _page(self, query: str, page: Page, *of: str) -> list[tuple[Any, ...]]:
        query = query.format(direction=page.direction)
        return await self._rows(query, *of, page.first_id, page.start_ms, page.end_ms, page.limit)

    async def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        async with self._connection.cursor() as cursor:
            await cursor.execute(query, values)
            return await cursor.fetchall()


def _tags(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "tags": tuple((str(k), v) for k, v in data["tags"])}


def read_order(data: dict[str, Any]) -> Order:
    fixed = _tags(data)
    fixed.update(
        side=OrderSide(data["side"]),
        kind=OrderKind(data["kind"]),
        time_in_force=TimeInForce(data["time_in_force"]),
        status=OrderStatus(data["status"]),
        amendments=tuple(Amendment(**step) for step in data.get("amendments", ())),
    )
    return Order(**fixed)


def read_list(data: dict[str, Any]) -> OrderList:
    return OrderList(**{**data, "kind": ListKind(data["kind"]), "order_ids": tuple(data["order_ids"])})


def read_fill(data: dict[str, Any]) -> Fill:
    return Fill(**{**data, "side": OrderSide(data["side"])})
