"""Drift starts at most one training a day: the run's id is the market's day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from tradewind.jobs import training
from tradewind.orchestration import runtime, upkeep


def test_an_alarm_asks_for_one_training_a_day_and_calm_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(at=datetime(2026, 3, 1, 1, 40, tzinfo=UTC))
    said = {"alarmed": True}

    @contextmanager
    def ports() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(clock=SimpleNamespace(now=lambda: clock.at))

    monkeypatch.setattr(runtime, "task_ports", ports)
    monkeypatch.setattr(runtime, "report", lambda _result: None)
    monkeypatch.setattr(training, "measure_drift", lambda _ports: said)
    (first,) = upkeep.measure_drift()
    clock.at += timedelta(hours=20)
    (again,) = upkeep.measure_drift()
    clock.at += timedelta(hours=5)
    (tomorrow,) = upkeep.measure_drift()
    assert first == {"trigger_run_id": "drift__2026-03-01", "conf": {"reason": "drift"}}
    assert again == first
    assert tomorrow["trigger_run_id"] == "drift__2026-03-02"
    said["alarmed"] = False
    assert upkeep.measure_drift() == []
