"""The last believable price of each market, and the rates of fees in third assets.

A holding is marked at the former while its market has no price; the latter are kept once, as near to the fee as can be.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any, Final

from tradewind.adapters.account_store import AccountStore
from tradewind.adapters.payment_store import TRANSFERS
from tradewind.core.prices import KnownPrice, Suspect


class PriceStore(AccountStore):
    """Last known prices, one row per market; rates, one per fee."""

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

    NOT_VALUED: Final = """
        SELECT fee_asset AS asset FROM fills
        WHERE account = %(account)s AND fee_quote IS NULL
          AND fee_asset NOT IN (split_part(symbol, '/', 1), split_part(symbol, '/', 2))
        UNION SELECT asset FROM payments
        WHERE account = %(account)s AND amount_quote IS NULL AND amount <> 0 AND asset <> %(quote)s
          AND kind <> ALL (%(transfers)s)
        ORDER BY asset"""

    def fees_not_valued(self, quote: str) -> list[str]:
        """Third assets that something was paid in whose worth in quote is not kept yet."""
        bound = {"account": self.account, "quote": quote, "transfers": list(TRANSFERS)}
        rows = self._database.rows(self.NOT_VALUED, bound)
        return [row["asset"] for row in rows]

    VALUE_FILLS: Final = """
        UPDATE fills SET fee_quote = fee * %(rate)s
        WHERE account = %(account)s AND fee_asset = %(asset)s AND fee_quote IS NULL
          AND fee_asset NOT IN (split_part(symbol, '/', 1), split_part(symbol, '/', 2))"""
    VALUE_PAYMENTS: Final = """
        UPDATE payments SET amount_quote = amount * %(rate)s
        WHERE account = %(account)s AND asset = %(asset)s AND amount_quote IS NULL"""

    def value_fees(self, asset: str, rate_quote: Decimal) -> None:
        """Keep the worth of everything paid in a third asset whose worth is not kept yet, at this rate."""
        values = {"account": self.account, "asset": asset, "rate": rate_quote}
        with self._database.transaction() as connection:
            connection.execute(self.VALUE_FILLS, values)
            connection.execute(self.VALUE_PAYMENTS, values)

    ESTIMATE_FILLS: Final = """
        UPDATE fills SET fee_quote = quantity * price * %(frac)s
        WHERE account = %(account)s AND fee_asset = %(asset)s AND fee_quote IS NULL
          AND fee_asset NOT IN (split_part(symbol, '/', 1), split_part(symbol, '/', 2))"""

    def estimate_fees(self, asset: str, fee_frac: Decimal) -> None:
        """The same for fees in an asset that never had a price: each counts as this share of what was traded."""
        self._database.execute(self.ESTIMATE_FILLS, {"account": self.account, "asset": asset, "frac": fee_frac})

    FEE_RATES: Final = """
        SELECT f.fee_asset AS asset, sum(f.fee) AS fee, sum(f.fee_quote) AS fee_quote
        FROM fills f JOIN orders o USING (client_order_id)
        WHERE o.account = %s AND f.account = o.account AND o.position_id = %s AND f.fee_quote IS NOT NULL
        GROUP BY f.fee_asset"""

    def fee_rates(self, position_id: str) -> dict[str, Decimal]:
        """What one unit of each third asset was worth when a position's fees were paid in it, on average."""
        rows = self._database.rows(self.FEE_RATES, (self.account, position_id))
        return {row["asset"]: row["fee_quote"] / row["fee"] for row in rows if row["fee"]}


def _known(row: dict[str, Any]) -> KnownPrice:
    doubt = None
    if row["suspect_since"] is not None:
        doubt = Suspect(row["suspect_bid"], row["suspect_ask"], row["suspect_since"])
    return KnownPrice(row["symbol"], row["bid"], row["ask"], row["at"], doubt)
