"""The watch in the triggerer: how often it reads, what it waits out, what ends it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string
from hypothesis import given
from hypothesis import strategies as st

from tradewind.errors import AuthenticationFailed, ExchangeUnreachable
from tradewind.orchestration import triggers
from tradewind.orchestration.sensors import RiskWatchSensor, next_midnight
from tradewind.orchestration.triggers import RiskWatchTrigger, watch

QUIET = {"breached": False}
BREACH = {"breached": True, "reason": "-3.1 % today", "latch_sequence": 7}


def reader(*answers: Mapping[str, Any] | Exception) -> Callable[[], Mapping[str, Any]]:
    """A reading that gives these answers one after the other, the last of them for ever."""
    left = list(answers)

    def read() -> Mapping[str, Any]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return read


def run(read: Callable[[], Mapping[str, Any]], for_s: float, poll_s: float = 0.01) -> Mapping[str, Any] | None:
    return asyncio.run(watch(read, datetime.now(UTC) + timedelta(seconds=for_s), poll_s))


def test_a_breach_ends_it_at_once() -> None:
    assert run(reader(QUIET, QUIET, BREACH), for_s=30) == BREACH


def test_a_quiet_day_ends_at_its_end() -> None:
    started = time.monotonic()
    assert run(reader(QUIET), for_s=0.3) is None
    assert time.monotonic() - started > 0.25


def test_a_day_that_is_over_is_not_watched() -> None:
    assert run(reader(AssertionError("not to be read")), for_s=-1) is None


def test_what_passes_is_waited_out() -> None:
    assert run(reader(ExchangeUnreachable("no answer"), ExchangeUnreachable("no answer"), BREACH), for_s=30) == BREACH


@pytest.mark.parametrize("error", [AuthenticationFailed("the key is wrong"), ZeroDivisionError("a defect")])
def test_what_does_not_pass_ends_it_so_that_the_sensor_is_retried(error: Exception) -> None:
    with pytest.raises(type(error)):
        run(reader(error), for_s=30)


def test_readings_keep_their_pace_whatever_a_reading_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reading took is taken off the pause after it."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    def read() -> Mapping[str, Any]:
        if len(pauses) == 3:
            return BREACH
        time.sleep(0.05)
        return QUIET

    monkeypatch.setattr(triggers.asyncio, "sleep", pause)
    assert run(read, for_s=600, poll_s=60) == BREACH
    assert all(0 < seconds <= 59.95 for seconds in pauses), pauses
    assert len(pauses) == 3


def test_a_slow_reading_does_not_block_the_triggerers_loop() -> None:
    """While one reading sleeps in its thread, other triggers of the same loop go on."""
    release = threading.Event()

    def read() -> Mapping[str, Any]:
        release.wait(10)
        return BREACH

    async def both() -> tuple[Mapping[str, Any] | None, int]:
        watching = asyncio.create_task(watch(read, datetime.now(UTC) + timedelta(seconds=30), 0.01))
        ticks = 0
        for _ in range(20):
            await asyncio.sleep(0.005)
            ticks += 1
        assert not watching.done()
        release.set()
        return await watching, ticks

    assert asyncio.run(both()) == (BREACH, 20)


def test_the_triggerer_can_rebuild_it() -> None:
    path, arguments = RiskWatchTrigger(until="2026-01-31T00:00:00+00:00", poll_s=2.0).serialize()
    again = import_string(path)(**arguments)
    assert (again.until, again.poll_s) == ("2026-01-31T00:00:00+00:00", 2.0)


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2200, 1, 1)))
def test_midnight_is_next_and_within_a_day(moment: datetime) -> None:
    midnight = next_midnight(moment)
    assert timedelta(0) < midnight - moment <= timedelta(days=1)
    assert (midnight.hour, midnight.minute, midnight.second, midnight.microsecond) == (0, 0, 0, 0)


def test_only_a_breach_gives_the_breaker_something_to_be_mapped_over() -> None:
    sensor = RiskWatchSensor(task_id="watch_equity")
    assert sensor.pass_on({}, {"breached": False, "reason": "day over"}) == []
    (start,) = sensor.pass_on({}, dict(BREACH))
    assert start == {
        "trigger_dag_id": "trip_circuit_breaker",
        "trigger_run_id": "breach__latch_7",
        "conf": {"reason": "-3.1 % today", "latch_sequence": 7},
    }
