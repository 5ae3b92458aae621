"""The daily cleaning of a deployment without a supervisor: old logs go, Airflow is called, a failure is told."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tradewind.stack.maintenance import clean


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for Airflow's command: writes down how it was called, and fails when told so."""
    called = tmp_path / "called"
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$@" > {called}\ntest ! -e {tmp_path}/broken\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return called


def test_what_is_older_than_two_weeks_goes(airflow: Path, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    logs = tmp_path / "logs" / "dag_id=x"
    logs.mkdir(parents=True)
    for name, days in (("old.log", 15), ("young.log", 13)):
        (logs / name).touch()
        moment = (now - timedelta(days=days)).timestamp()
        os.utime(logs / name, (moment, moment))
    assert clean(tmp_path / "logs", now)
    assert [path.name for path in logs.iterdir()] == ["young.log"]
    called = airflow.read_text().split()
    assert called[:6] == ["-m", "airflow", "db", "clean", "--skip-archive", "--yes"]
    assert now - datetime.fromisoformat(called[7]) == timedelta(days=14)


def test_a_failure_is_told(airflow: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    assert not clean(tmp_path / "logs", datetime.now(UTC))
    assert airflow.exists()
