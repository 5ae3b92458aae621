"""The load generator: counts what was answered, keeps its timetable, and takes no refusal for an answer."""

from __future__ import annotations

import pytest

from tests.support.http_server import Answer, serving
from tradewind.bench.http_load import as_fast_as_answered, at_rate
from tradewind.errors import StackFailed

REQUEST = b"GET /x HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"


def test_counts_answers_and_keeps_its_rate() -> None:
    with serving(lambda _: Answer(200, b"{}", {"Connection": "keep-alive"})) as (url, seen):
        closed = as_fast_as_answered(url, lambda: REQUEST, connections=1, duration_s=0.05)
        assert len(closed.latency_s) == len(seen) >= 1
        assert closed.rate == len(closed.latency_s) / closed.elapsed_s
        opened = at_rate(url, lambda: REQUEST, rate=50, connections=1, duration_s=0.1)
        assert len(opened.latency_s) == 5
        assert opened.elapsed_s >= 0.08


def test_a_refusal_is_no_figure() -> None:
    with serving(lambda _: Answer(429, b"no")) as (url, _), pytest.raises(StackFailed, match="429"):
        as_fast_as_answered(url, lambda: REQUEST, connections=1, duration_s=1)
