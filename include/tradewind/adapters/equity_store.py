"""Readings of equity, what they are measured against, and the transfers that scale them.

Readings are ordered by the market's clock, those of one moment as they were written; one is never dated before another
that was written earlier, also where that clock stands or is set back. Each names the last link (a transfer) before it,
so that a reading begun before a transfer and written after it is scaled rightly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

from tradewind.adapters.account_store import AccountStore, as_json
from tradewind.adapters.database import Connection
from tradewind.core.ports import OpenQuantity
from tradewind.core.transfers import EquityLink, EquityRecord, Reading, rounded
from tradewind.errors import LockNotAcquired

_LINKS: Final = """
    SELECT link_id AS number, before_quote, after_quote FROM equity_links WHERE account = %s ORDER BY link_id"""

_DAY_OPEN: Final = """
    SELECT at, equity_quote, link_id AS link FROM equity
    WHERE account = %s AND kind = 'day_open' AND at >= %s AND at < %s ORDER BY at DESC, reading_id DESC LIMIT 1"""
_LAST_BEFORE: Final = """
    SELECT at, equity_quote, link_id AS link FROM equity
    WHERE account = %s AND at < %s ORDER BY at DESC, reading_id DESC LIMIT 1"""
_HIGHEST: Final = """
    WITH resumed AS (
        SELECT at, reading_id FROM equity
        WHERE account = %(account)s AND kind = 'day_open' AND detail ? 'resumed_by'
        UNION ALL SELECT '-infinity', 0 ORDER BY at DESC, reading_id DESC LIMIT 1
    )
    SELECT top.at, top.equity_quote, links.link
    FROM (SELECT 0 AS link UNION SELECT link_id FROM equity_links WHERE account = %(account)s) links
    CROSS JOIN LATERAL (
        SELECT e.at, e.equity_quote FROM equity e, resumed
        WHERE e.account = %(account)s AND e.link_id = links.link
          AND (e.at, e.reading_id) >= (resumed.at, resumed.reading_id)
        ORDER BY e.equity_quote DESC LIMIT 1) top
    ORDER BY links.link"""


class Rows(Protocol):
    """Where bound queries go."""

    def rows(self, sql: str, params: Any = None) -> list[dict[str, Any]]: ...
    def row(self, sql: str, params: Any = None) -> dict[str, Any] | None: ...


def read_links(source: Rows, account: str) -> tuple[EquityLink, ...]:
    """Every link of an account, ascending."""
    return tuple(EquityLink(**row) for row in source.rows(_LINKS, (account,)))


def read_record(source: Rows, account: str, moment: datetime) -> EquityRecord:
    """What equity is measured against at a moment of the market's clock; `source` should be one snapshot."""
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    opening = source.row(_DAY_OPEN, (account, midnight, midnight + timedelta(days=1)))
    before = source.row(_LAST_BEFORE, (account, midnight))
    return EquityRecord(
        read_links(source, account),
        None if opening is None else Reading(**opening),
        None if before is None else Reading(**before),
        tuple(Reading(**row) for row in source.rows(_HIGHEST, {"account": account})),
    )


class EquityStore(AccountStore):
    """Rows of equity, its links and the accepted differences that made them."""

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within, everything this thread reads of the store is as it was at one moment; writes are refused."""
        with self._database.snapshot():
            yield

    # ------------------------------------------------------------------------------------------------------- writing
    LOCK_EQUITY: Final = "SELECT pg_advisory_xact_lock(hashtextextended('tradewind.equity:' || %s, 0))"
    INSERT_READING: Final = """
        INSERT INTO equity (account, kind, at, equity_quote, link_id, is_kept, detail)
        VALUES (%(account)s, %(kind)s, greatest(%(at)s, (SELECT max(at) FROM equity WHERE account = %(account)s)),
                %(equity)s, coalesce(%(link)s, (SELECT max(link_id) FROM equity_links WHERE account = %(account)s), 0),
                %(kept)s, %(detail)s)"""
    # One reading a minute is enough, beside the peaks and the openings.
    REMOVE_REPLACED: Final = "SELECT remove_replaced_marks(%(account)s, %(link)s, %(at)s)"

    def keep_mark(self, at: datetime, equity_quote: Decimal, *, link: int, is_peak: bool, **detail: Any) -> None:
        """Keep one reading in the place of this minute's earlier ones; a peak stays beside them."""
        values = self._reading("mark", at, equity_quote, link, is_peak, detail)
        with self._writing() as connection:
            connection.execute(self.REMOVE_REPLACED, values)
            connection.execute(self.INSERT_READING, values)

    def record_equity(
        self, kind: str, at: datetime, equity_quote: Decimal, *, link: int | None = None, **detail: Any
    ) -> None:
        """Keep one reading for good: a `mark`, or a `day_open` that the day is measured against from here on.

        `link` is the last one before it, by default the newest of all.
        """
        with self._writing() as connection:
            connection.execute(self.INSERT_READING, self._reading(kind, at, equity_quote, link, True, detail))

    INSERT_OPENING: Final = """
        INSERT INTO equity (account, kind, at, equity_quote, link_id, is_kept, detail)
        SELECT %(account)s, 'day_open', %(at)s, %(equity)s, %(link)s, true, %(detail)s
        WHERE NOT EXISTS (SELECT 1 FROM equity WHERE account = %(account)s AND kind = 'day_open'
                          AND at >= %(at)s AND at < %(at)s + interval '24 hours')"""

    def open_day(self, midnight: datetime, equity_quote: Decimal, *, link: int, **detail: Any) -> None:
        """Keep the opening of a day at its midnight; one that the day has already stays."""
        with self._writing() as connection:
            values = self._reading("day_open", midnight, equity_quote, link, True, detail)
            connection.execute(self.INSERT_OPENING, values)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._database.transaction() as connection:
            connection.execute(self.LOCK_EQUITY, (self.account,))
            yield connection

    def _reading(
        self, kind: str, at: datetime, equity_quote: Decimal, link: int | None, kept: bool, detail: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "account": self.account,
            "kind": kind,
            "at": at,
            "equity": equity_quote,
            "link": link,
            "kept": kept,
            "detail": as_json(detail),
        }

    # ----------------------------------------------------------------------------------------------------- transfers
    ACCEPTED_OF: Final = """
        SELECT coalesce(sum(quantity), 0) AS quantity FROM accepted_differences WHERE account = %s AND asset = %s"""
    ACCEPT: Final = """
        INSERT INTO accepted_differences (account, asset, quantity, reason, actor, at)
        VALUES (%s, %s, %s, %s, %s, %s) RETURNING difference_id"""
    INSERT_LINK: Final = """
        INSERT INTO equity_links (account, at, before_quote, after_quote, difference_id)
        VALUES (%s, %s, %s, %s, %s) RETURNING link_id"""

    def accept_difference(
        self,
        asset: str,
        quantity: Decimal,
        reason: str,
        at: datetime,
        *,
        actor: str,
        accepted: Decimal,
        equity: Reading | None = None,
    ) -> None:
        """Keep a person's explanation: from now on so much more (or less) of the asset is expected (`at` wall time).

        `accepted` is what was explained of the asset when the difference was measured. For the quote currency `equity`
        is the reading just before: earlier ones are scaled by it, and where nothing was there before, what is there now
        is the reference of day and peak. Raises LockNotAcquired when something was explained meanwhile.
        """
        with self._writing() as connection:
            row = connection.execute(self.ACCEPTED_OF, (self.account, asset)).fetchone()
            if row is None or row["quantity"] != accepted:
                raise LockNotAcquired(f"another explanation of {asset} was accepted meanwhile: look again")
            bound = (self.account, asset, quantity, reason, actor, at)
            made = connection.execute(self.ACCEPT, bound).fetchone()
            if equity is not None and made is not None:
                after = equity.equity_quote + quantity
                ends = (self.account, equity.at, equity.equity_quote, after, made["difference_id"])
                link = connection.execute(self.INSERT_LINK, ends).fetchone()
                if link is not None and equity.equity_quote <= 0:
                    self._begin_anew(connection, Reading(equity.at, after, link["link_id"]))

    def _begin_anew(self, connection: Connection, reading: Reading) -> None:
        detail = {"source": "nothing was there before"}
        values = self._reading("day_open", reading.at, reading.equity_quote, reading.link, True, detail)
        connection.execute(self.INSERT_READING, values)

    CLOSE_LINK: Final = "SELECT close_equity_link(%s, %s, %s, %s)"

    def close_link(self, equity: Reading) -> None:
        """Say what equity is after the link that the reading names, if that was not said before."""
        with self._writing() as connection:
            connection.execute(self.CLOSE_LINK, (self.account, equity.link, equity.at, equity.equity_quote))

    # ------------------------------------------------------------------------------------------------------- reading
    def equity_record(self, moment: datetime) -> EquityRecord:
        """What equity is measured against at a moment of the market's clock."""
        with self._database.snapshot():
            return read_record(self._database, self.account, moment)

    def day_open_equity(self, day: datetime) -> Decimal | None:
        """The reference of the UTC day that holds `day`, in the money of now."""
        return rounded(self.equity_record(day).day_open_quote)

    def peak_equity(self) -> Decimal | None:
        """The highest reading since the last resume, or since the beginning, in the money of now."""
        return rounded(self.equity_record(datetime.now(UTC)).peak_quote)

    RESUMED_AT: Final = """
        SELECT max(at) AS at FROM equity WHERE account = %s AND kind = 'day_open' AND detail ? 'resumed_by'"""

    def resumed_at(self) -> datetime | None:
        """When trading was last resumed, by the market's clock: losses and peaks before it no longer count."""
        row = self._database.row(self.RESUMED_AT, (self.account,))
        return None if row is None else row["at"]

    # Of fills alone: a position whose figures are a fill behind would tear a hole of that fill's size.
    OPEN_QUANTITIES: Final = """
        SELECT p.symbol, min(f.at) AS opened_at,
            sum(CASE WHEN f.is_buy THEN f.quantity ELSE -f.quantity END
                - CASE WHEN f.fee_asset = split_part(f.symbol, '/', 1) THEN f.fee ELSE 0 END) AS quantity,
            sum(f.quantity * f.price) FILTER (WHERE f.is_buy = (p.side = 'long'))
                / sum(f.quantity) FILTER (WHERE f.is_buy = (p.side = 'long')) AS entry_price
        FROM positions p JOIN orders o USING (position_id)
        JOIN fills f ON f.client_order_id = o.client_order_id AND f.account = p.account
        WHERE p.account = %s AND p.status IN ('opening', 'open', 'closing')
        GROUP BY p.position_id ORDER BY p.position_id"""

    def open_quantities(self) -> list[OpenQuantity]:
        """What the fills of each position that is not over leave held."""
        return [OpenQuantity(**row) for row in self._database.rows(self.OPEN_QUANTITIES, (self.account,))]
