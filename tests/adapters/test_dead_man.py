"""The watchdog hears of us while all is well, and of nothing else."""

from __future__ import annotations

import logging

import pytest

from tests.support.http_server import Answer, serving
from tradewind.adapters.dead_man import DeadManPing


def test_it_pings_only_while_all_is_well() -> None:
    well = [True]
    with serving(lambda request: Answer(200)) as (url, seen):
        ping = DeadManPing(f"{url}/uuid", lambda: well[0])
        assert ping.ping_once()
        well[0] = False
        assert not ping.ping_once()
    assert [request.path for request in seen] == ["/uuid"]


def test_it_goes_on_in_its_thread_until_stopped() -> None:
    with serving(lambda request: Answer(200)) as (url, seen):
        ping = DeadManPing(url, lambda: True, every_s=0.02)
        thread = ping.start()
        while len(seen) < 3:
            thread.join(0.02)
        ping.stop()
        thread.join(5)
        assert not thread.is_alive()


def test_a_dead_watchdog_breaks_nothing_and_its_address_stays_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(lambda request: Answer(200)) as (url, _):
        assert DeadManPing(f"{url}/secret-uuid", lambda: True).ping_once()
    assert not DeadManPing("http://127.0.0.1:9/secret-uuid", lambda: True).ping_once()
    assert "does not answer" in caplog.text
    assert "secret-uuid" not in caplog.text
