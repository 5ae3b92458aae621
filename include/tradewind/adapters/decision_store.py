"""Decisions, stage by stage: each stage inserts its own rows, keyed by (account, strategy version, symbol, bar).

Nothing here is ever updated. A stage that runs again inserts nothing and reads back what the first run decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from tradewind.adapters.account_store import AccountStore, as_json
from tradewind.adapters.database import Database
from tradewind.core.codec import decode
from tradewind.core.inputs import CycleInputs
from tradewind.core.params import StrategyParams
from tradewind.core.ports import Cycle, StoredPrediction
from tradewind.core.types import Decision, Intent, Prediction, Verdict
from tradewind.errors import LedgerMismatch

_LAST_PARAMS: Final = """
    SELECT params FROM strategies WHERE strategy_version = (
        SELECT strategy_version FROM decisions WHERE account = %s ORDER BY bar DESC LIMIT 1)"""


def last_params(database: Database, account: str) -> StrategyParams | None:
    """The parameters that an account last decided by; None before that, or where this code cannot read them."""
    row = database.row(_LAST_PARAMS, (account,))
    try:
        return None if row is None else decode(StrategyParams, row["params"])
    except (TypeError, ValueError):
        return None


class DecisionStore(AccountStore):
    """Predictions, verdicts, decisions and the cycles they belong to."""

    REMEMBER_STRATEGY: Final = """
        INSERT INTO strategies (strategy_version, params) VALUES (%s, %s) ON CONFLICT DO NOTHING"""

    def remember_strategy(self, params: StrategyParams) -> None:
        """Keep the parameters behind a strategy version, once."""
        self._database.execute(self.REMEMBER_STRATEGY, (params.strategy_version, as_json(params)))

    STRATEGY: Final = "SELECT params FROM strategies WHERE strategy_version = %s"

    def strategy_params(self, strategy_version: str) -> Mapping[str, Any] | None:
        """The parameters behind a strategy version, as stored; None for one that was never remembered."""
        row = self._database.row(self.STRATEGY, (strategy_version,))
        return None if row is None else row["params"]

    INSERT_INPUTS: Final = """
        INSERT INTO cycle_inputs (account, strategy_version, bar, inputs) VALUES (%s, %s, %s, %s)
        ON CONFLICT DO NOTHING"""

    def insert_cycle_inputs(self, inputs: CycleInputs) -> bool:
        """All that a bar's decisions are made of, once; says whether it was new."""
        values = (self.account, self.strategy_version, inputs.bar, as_json(inputs))
        return self._database.execute(self.INSERT_INPUTS, values) == 1

    INPUTS: Final = """
        SELECT inputs FROM cycle_inputs WHERE account = %s AND strategy_version = %s AND bar = %s"""

    def cycle_inputs(self, bar: datetime) -> CycleInputs | None:
        """What a bar's decisions were made of; None while its predict stage has not run."""
        row = self._database.row(self.INPUTS, (self.account, self.strategy_version, bar))
        return None if row is None else CycleInputs.from_json(row["inputs"])

    INSERT_PREDICTION: Final = """
        INSERT INTO predictions
            (account, strategy_version, symbol, bar, available, reason, prediction, inputs, code_sha256)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""

    def insert_predictions(self, bar: datetime, rows: Sequence[StoredPrediction]) -> int:
        """One row a symbol, available or not; returns how many were new."""
        return self._insert_many(
            self.INSERT_PREDICTION,
            [
                (
                    *self._key(row.symbol, bar),
                    row.prediction is not None,
                    row.reason,
                    None if row.prediction is None else as_json(row.prediction),
                    as_json(row.inputs),
                    row.code_sha256,
                )
                for row in rows
            ],
        )

    PREDICTIONS: Final = """
        SELECT symbol, reason, prediction, inputs, code_sha256 FROM predictions
        WHERE account = %s AND strategy_version = %s AND bar = %s ORDER BY symbol"""

    def predictions(self, bar: datetime) -> dict[str, StoredPrediction]:
        """What the predict stage stored for a bar, by symbol."""
        return {
            row["symbol"]: StoredPrediction(
                symbol=row["symbol"],
                prediction=None if row["prediction"] is None else decode(Prediction, row["prediction"]),
                reason=row["reason"],
                inputs=row["inputs"],
                code_sha256=row["code_sha256"],
            )
            for row in self._database.rows(self.PREDICTIONS, (self.account, self.strategy_version, bar))
        }

    INSERT_VERDICTS: Final = """
        INSERT INTO filter_verdicts (account, strategy_version, symbol, bar, passed, verdicts)
        VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""

    def insert_verdicts(self, bar: datetime, rows: Mapping[str, Sequence[Verdict]]) -> int:
        """One row a symbol with every filter's verdict; returns how many were new."""
        return self._insert_many(
            self.INSERT_VERDICTS,
            [
                (*self._key(symbol, bar), all(verdict.passed for verdict in verdicts), as_json(verdicts))
                for symbol, verdicts in rows.items()
            ],
        )

    VERDICTS: Final = """
        SELECT symbol, verdicts FROM filter_verdicts
        WHERE account = %s AND strategy_version = %s AND bar = %s ORDER BY symbol"""

    def verdicts(self, bar: datetime) -> dict[str, tuple[Verdict, ...]]:
        """What the filter stage stored for a bar, by symbol."""
        rows = self._database.rows(self.VERDICTS, (self.account, self.strategy_version, bar))
        return {row["symbol"]: tuple(decode(Verdict, one) for one in row["verdicts"]) for row in rows}

    INSERT_DECISION: Final = """
        INSERT INTO decisions (account, strategy_version, symbol, bar, outcome, reason, intent_id, decision)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""

    def insert_decisions(self, decisions: Iterable[Decision]) -> int:
        """The whole answers; returns how many were new."""
        return self._insert_many(
            self.INSERT_DECISION,
            [
                (
                    *self._key(decision.symbol, decision.bar),
                    decision.outcome.value,
                    decision.reason,
                    None if decision.intent is None else decision.intent.intent_id,
                    as_json(decision),
                )
                for decision in decisions
            ],
        )

    DECISIONS: Final = """
        SELECT decision FROM decisions
        WHERE account = %s AND strategy_version = %s AND bar = %s ORDER BY symbol"""

    def decisions(self, bar: datetime) -> list[Decision]:
        """What was decided for a bar, by symbol."""
        rows = self._database.rows(self.DECISIONS, (self.account, self.strategy_version, bar))
        return [decode(Decision, row["decision"]) for row in rows]

    INTENT: Final = "SELECT decision -> 'intent' AS intent FROM decisions WHERE account = %s AND intent_id = %s"

    def intent(self, intent_id: str) -> Intent:
        """The committed entry of that id. Raises LedgerMismatch when none was decided."""
        row = self._database.row(self.INTENT, (self.account, intent_id))
        if row is None:
            raise LedgerMismatch(f"no decision holds the intent {intent_id}: it was never decided for this account")
        return decode(Intent, row["intent"])

    DECISION_OF_INTENT: Final = "SELECT decision FROM decisions WHERE account = %s AND intent_id = %s"

    def decision_of(self, intent_id: str) -> Decision:
        """The decision behind an intent. Raises LedgerMismatch when there is none."""
        row = self._database.row(self.DECISION_OF_INTENT, (self.account, intent_id))
        if row is None:
            raise LedgerMismatch(f"no decision holds the intent {intent_id}: it was never decided for this account")
        return decode(Decision, row["decision"])

    INSERT_CYCLE: Final = """
        INSERT INTO cycles (account, bar, state, run_id, detail) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (account, bar) DO UPDATE
        SET state = excluded.state, run_id = excluded.run_id, detail = excluded.detail, recorded_at = now()
        WHERE cycles.state IN ('missed', 'failed')"""

    def record_cycle(self, bar: datetime, state: str, run_id: str, detail: Mapping[str, Any]) -> None:
        """Say how a bar's cycle ended. A cycle that was recorded as missed or failed may still be completed; one that
        is done or expired keeps its first record."""
        self._database.execute(self.INSERT_CYCLE, (self.account, bar, state, run_id, as_json(detail)))

    CYCLE: Final = "SELECT bar, state, run_id, detail, recorded_at FROM cycles WHERE account = %s AND bar = %s"

    def cycle(self, bar: datetime) -> Cycle | None:
        """How a bar's cycle ended, or None while nothing was recorded."""
        row = self._database.row(self.CYCLE, (self.account, bar))
        return None if row is None else Cycle(**row)

    def _key(self, symbol: str, bar: datetime) -> tuple[str, str, str, datetime]:
        return self.account, self.strategy_version, symbol, bar

    def _insert_many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """All rows in one transaction; returns how many were new."""
        if not rows:
            return 0
        with self._database.transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(sql, rows)
            return cursor.rowcount
