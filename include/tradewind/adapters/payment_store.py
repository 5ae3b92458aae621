"""Payments of the account beside its trades (funding above all), and the ledger's totals with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from tradewind.adapters.order_store import OrderStore
from tradewind.core.ports import LedgerTotal
from tradewind.core.types import Payment

ZERO: Final = Decimal(0)
# Kinds that older versions stored as payments: money that was moved, won as a prize or swapped is no result of trading.
TRANSFERS: Final = (
    "internal_transfer", "coin_swap_deposit", "coin_swap_withdraw", "cross_collateral_transfer",
    "strategy_umfutures_transfer", "auto_exchange", "welcome_bonus", "contest_reward", "options_premium_fee",
    "options_settle_profit",
)  # fmt: skip


class PaymentStore(OrderStore):
    """The rows of payments. A payment is inserted once, by the exchange's own number."""

    INSERT_PAYMENT: Final = """
        INSERT INTO payments (account, payment_id, symbol, kind, asset, amount, at)
        VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""

    def insert_payments(self, payments: Sequence[Payment]) -> int:
        """Returns how many were new."""
        new = 0
        with self._database.transaction() as connection:
            for p in payments:
                row = (p.account, p.payment_id, p.symbol, p.kind, p.asset, p.amount, p.at)
                new += connection.execute(self.INSERT_PAYMENT, row).rowcount
        return new

    LAST_PAYMENT_AT: Final = "SELECT max(at) AS at FROM payments WHERE account = %s"

    def last_payment_at(self) -> datetime | None:
        """The newest payment's time, None without any."""
        row = self._database.row(self.LAST_PAYMENT_AT, (self.account,))
        return None if row is None else row["at"]

    PAYMENTS_BEGIN: Final = "SELECT min(at) AS at FROM payments WHERE account = %s"

    def payments_begin(self) -> datetime | None:
        """From when on payments are counted, None when they are not yet."""
        row = self._database.row(self.PAYMENTS_BEGIN, (self.account,))
        return None if row is None else row["at"]

    # What names no market of ours (a rebate; in old rows the exchange's own name of one) is a flow of the account, told
    # under "/" and the currency that is counted in, which the mark of the beginning names.
    PAYMENT_TOTALS: Final = """
        SELECT CASE WHEN strpos(symbol, '/') > 0 THEN symbol ELSE '/' || COALESCE(counted_in, asset) END AS symbol,
            asset, sum(amount) AS amount, coalesce(sum(amount_quote), 0) AS amount_quote
        FROM payments
        CROSS JOIN (SELECT min(asset) AS counted_in FROM payments WHERE account = %(account)s AND kind = 'begin') mark
        WHERE account = %(account)s AND amount <> 0 AND kind <> ALL (%(transfers)s) GROUP BY 1, 2"""

    def ledger_totals(self) -> dict[str, LedgerTotal]:
        """All fills and payments of each symbol, summed exactly; a payment in quote is part of the cash.

        What concerns the account and no market of ours is told under "/USDT", where that is counted in.
        """
        totals = super().ledger_totals()
        bound = {"account": self.account, "transfers": list(TRANSFERS)}
        for row in self._database.rows(self.PAYMENT_TOTALS, bound):
            symbol, amount = row["symbol"], row["amount"]
            known = totals.get(symbol, LedgerTotal(symbol, ZERO, ZERO, {}))
            if row["asset"] == symbol.split("/")[-1]:
                totals[symbol] = replace(known, cash_quote=known.cash_quote + amount)
            else:
                totals[symbol] = known.with_fee(row["asset"], -amount, -row["amount_quote"])
        return totals
