"""What an account did over a stretch of time, and the reports of its comparison with a replay."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from psycopg.types.json import Jsonb

from tradewind.adapters.account_store import AccountStore
from tradewind.adapters.order_store import FILL_COLUMNS, order_of
from tradewind.core.codec import decode
from tradewind.core.inputs import CycleInputs
from tradewind.core.parity import Ledger, ParityReport
from tradewind.core.types import Decision, Fill, Instrument


class PgParityStore(AccountStore):
    """Reads of one account under one strategy version; reports are only ever added."""

    CYCLES: Final = """
        SELECT inputs FROM cycle_inputs
        WHERE account = %s AND strategy_version = %s AND bar >= %s AND bar < %s ORDER BY bar"""

    def cycles(self, since: datetime, until: datetime) -> list[CycleInputs]:
        """All that the decisions of the bars opened in [since, until) were made of, oldest first."""
        rows = self._database.rows(self.CYCLES, (self.account, self.strategy_version, since, until))
        return [CycleInputs.from_json(row["inputs"]) for row in rows]

    CODES: Final = """
        SELECT max(bar) AS last_bar FROM predictions
        WHERE account = %s AND strategy_version = %s AND bar >= %s AND bar < %s AND code_sha256 <> %s"""

    def last_bar_of_other_code(self, since: datetime, until: datetime, code_sha256: str) -> datetime | None:
        """The newest bar in [since, until) that other code than this predicted."""
        bound = (self.account, self.strategy_version, since, until, code_sha256)
        row = self._database.row(self.CODES, bound)
        last: datetime | None = None if row is None else row["last_bar"]
        return last

    DECISIONS: Final = """
        SELECT decision FROM decisions
        WHERE account = %s AND strategy_version = %s AND bar >= %s AND bar < %s ORDER BY bar, symbol"""
    ORDERS: Final = """
        SELECT o.* FROM orders o JOIN positions p USING (position_id)
        WHERE o.account = %s AND p.strategy_version = %s AND p.bar >= %s AND p.bar < %s
        ORDER BY o.planned_at, o.client_order_id"""
    FILLS: Final = f"""
        SELECT {FILL_COLUMNS} FROM fills f JOIN orders o USING (client_order_id) JOIN positions p USING (position_id)
        WHERE f.account = %s AND p.strategy_version = %s AND p.bar >= %s AND p.bar < %s
        ORDER BY f.at, length(f.trade_id), f.trade_id"""  # noqa: S608 - constant columns

    def ledger(self, since: datetime, until: datetime) -> Ledger:
        """Decisions on the bars opened in [since, until), and every order and fill that came of them."""
        bound = (self.account, self.strategy_version, since, until)
        return Ledger(
            decisions=[decode(Decision, row["decision"]) for row in self._database.rows(self.DECISIONS, bound)],
            orders=[order_of(row) for row in self._database.rows(self.ORDERS, bound)],
            fills=[Fill(**row) for row in self._database.rows(self.FILLS, bound)],
        )

    FLOWS: Final = """
        SELECT split_part(symbol, '/', 1) AS asset, sum(moved) AS moved FROM (
            SELECT symbol, CASE WHEN is_buy THEN quantity ELSE -quantity END
                - CASE WHEN fee_asset = split_part(symbol, '/', 1) THEN fee ELSE 0 END AS moved
            FROM fills WHERE account = %(account)s AND at < %(before)s
            UNION ALL SELECT symbol, -quantity FROM write_offs WHERE account = %(account)s) AS moves GROUP BY 1"""

    def base_flows(self, before: datetime) -> dict[str, Decimal]:
        """What all fills before a moment left of each base asset, fees in it and what was given up taken off: dust,
        when nothing is held."""
        bound = {"account": self.account, "before": before}
        return {row["asset"]: row["moved"] for row in self._database.rows(self.FLOWS, bound)}

    NEWEST: Final = """
        SELECT inputs -> 'symbols' AS symbols FROM cycle_inputs WHERE account = %s ORDER BY bar DESC LIMIT 1"""

    def newest_instruments(self) -> dict[str, Instrument]:
        """The trading rules that the account's newest cycle decided by; empty before the first."""
        row = self._database.row(self.NEWEST, (self.account,))
        found = [] if row is None else [s["instrument"] for s in row["symbols"] if s["instrument"] is not None]
        return {rules.symbol: rules for rules in (decode(Instrument, one) for one in found)}

    INSERT: Final = """
        INSERT INTO parity_reports
            (account, strategy_version, at, since, until, cycles, differences, unexplained, report)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"""

    def insert_report(self, at: datetime, since: datetime, until: datetime, cycles: int, report: ParityReport) -> None:
        """Keep one comparison."""
        counts = (cycles, len(report.differences), report.unexplained)
        identity = (self.account, self.strategy_version, at, since, until)
        self._database.execute(self.INSERT, (*identity, *counts, Jsonb(report.to_json())))

    REPORTS: Final = """
        SELECT at, since, until, cycles, differences, unexplained, report FROM parity_reports
        WHERE account = %s ORDER BY report_id DESC LIMIT %s"""

    def reports(self, limit: int = 10) -> list[dict[str, Any]]:
        """The newest comparisons first."""
        return self._database.rows(self.REPORTS, (self.account, limit))
