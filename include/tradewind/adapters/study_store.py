"""Studies of parameters and their finished trials: what a stopped study goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from tradewind.adapters.database import Database
from tradewind.core.study import Trial


class PgStudyStore:
    """`ports.StudyStore`. A trial is inserted once; a study keeps the settings it began with."""

    START: Final = """
        INSERT INTO studies (study, settings, started_at) VALUES (%s, %s, %s) ON CONFLICT (study) DO NOTHING"""
    SETTINGS: Final = "SELECT settings FROM studies WHERE study = %s"
    TRIALS: Final = "SELECT trial, params, value, result FROM study_trials WHERE study = %s ORDER BY trial"
    INSERT_TRIAL: Final = """
        INSERT INTO study_trials (study, trial, params, value, result, finished_at) VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT DO NOTHING"""
    FINISH: Final = "UPDATE studies SET finished_at = %s, report = %s WHERE study = %s"

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self, study: str, settings: Mapping[str, Any], at: datetime) -> dict[str, Any]:
        """Begin a study, or find it; returns the settings that it has."""
        self._database.execute(self.START, (study, Jsonb(dict(settings)), at))
        row = self._database.row(self.SETTINGS, (study,))
        assert row is not None
        kept: dict[str, Any] = row["settings"]
        return kept

    def trials(self, study: str) -> list[Trial]:
        """The finished trials in order."""
        rows = self._database.rows(self.TRIALS, (study,))
        return [Trial(row["trial"], row["params"], row["value"], tuple(row["result"]["folds"])) for row in rows]

    def insert_trial(self, study: str, trial: Trial, at: datetime) -> None:
        """Keep one finished trial."""
        result = Jsonb({"folds": list(trial.folds)})
        self._database.execute(
            self.INSERT_TRIAL, (study, trial.number, Jsonb(dict(trial.params)), trial.value, result, at)
        )

    def finish(self, study: str, report: Mapping[str, Any], at: datetime) -> None:
        """Keep the report."""
        self._database.execute(self.FINISH, (at, Jsonb(dict(report)), study))
