"""Which rows of a list are wanted, and the bound parameters that say so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from tradewind.adapters.database import Connection

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of a list: newest first within [start, end), after skipping `offset`."""

    limit: int = 100
    offset: int = 0
    start: datetime | None = None
    end: datetime | None = None
    symbol: str | None = None

    def values(self, account: str) -> Row:
        """Bound parameters; one row more than asked for says whether there is a next page."""
        return {
            "account": account,
            "limit": self.limit + 1,
            "offset": self.offset,
            "start": self.start,
            "end": self.end,
            "symbol": self.symbol,
        }


PAGE: Final = "LIMIT %(limit)s OFFSET %(offset)s"


def within(column: str) -> str:
    return (
        f"(%(start)s::timestamptz IS NULL OR {column} >= %(start)s) "
        f"AND (%(end)s::timestamptz IS NULL OR {column} < %(end)s) "
    )


SYMBOL: Final = "AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s) "


class Rows(Protocol):
    """Where bound queries go: the database, each in its own transaction, or one snapshot of it."""

    def rows(self, sql: str, params: Any = None) -> list[Row]: ...
    def row(self, sql: str, params: Any = None) -> Row | None: ...


class Snapshot:
    """Many reads over one connection, in one transaction: a page asks two dozen questions, and waits once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, params: Any = None) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()

    def row(self, sql: str, params: Any = None) -> Row | None:
        return self._connection.execute(sql, params).fetchone()


class Reader:
    """Bound reads of one account's rows."""

    def __init__(self, database: Rows, account: str) -> None:
        self._database = database
        self.account = account

    def _rows(self, sql: str, **values: Any) -> list[Row]:
        return self._database.rows(sql, {"account": self.account, **values})

    def _row(self, sql: str, **values: Any) -> Row | None:
        return self._database.row(sql, {"account": self.account, **values})
