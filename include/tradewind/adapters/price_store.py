"""The last believable price of each market: what a holding is marked at while its market has none."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from tradewind.adapters.account_store import AccountStore
from tradewind.core.prices import KnownPrice, Suspect


class PriceStore(AccountStore):
    """Last known prices, one row per market."""

    LAST_PRICES: Final = """
        SELECT symbol, bid, ask, at, suspect_bid, suspect_ask, suspect_since
        FROM last_prices WHERE account = %s AND symbol = ANY(%s)"""

    def last_prices(self, symbols: Collection[str]) -> dict[str, KnownPrice]:
        """What is known of each market that was ever looked at."""
        rows = self._database.rows(self.LAST_PRICES, (self.account, list(symbols))) if symbols else []
        return {row["symbol"]: _known(row) for row in rows}

    # A slower process does not put an older look in the place of a newer one.
    KEEP_PRICE: Final = """
        INSERT INTO last_prices (account, symbol, bid, ask, at, suspect_bid, suspect_ask, suspect_since)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (account, symbol) DO UPDATE
        SET bid = excluded.bid, ask = excluded.ask, at = excluded.at, suspect_bid = excluded.suspect_bid,
            suspect_ask = excluded.suspect_ask, suspect_since = excluded.suspect_since
        WHERE last_prices.at <= excluded.at"""

    def keep_prices(self, prices: Collection[KnownPrice]) -> None:
        """Keep what is known after a look."""
        if not prices:
            return
        with self._database.transaction() as connection, connection.cursor() as cursor:
            # In one order, so that two processes never wait for each other's rows.
            cursor.executemany(self.KEEP_PRICE, [self._row(price) for price in sorted(prices, key=lambda p: p.symbol)])

    def _row(self, price: KnownPrice) -> tuple[Any, ...]:
        doubt = price.suspect
        seen = (None, None, None) if doubt is None else (doubt.bid, doubt.ask, doubt.since)
        return (self.account, price.symbol, price.bid, price.ask, price.at, *seen)


def _known(row: dict[str, Any]) -> KnownPrice:
    doubt = None
    if row["suspect_since"] is not None:
        doubt = Suspect(row["suspect_bid"], row["suspect_ask"], row["suspect_since"])
    return KnownPrice(row["symbol"], row["bid"], row["ask"], row["at"], doubt)
