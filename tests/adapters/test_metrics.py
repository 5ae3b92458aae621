"""Metrics leave as UDP datagrams that statsd_exporter can read, and never raise."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tradewind.adapters.metrics import StatsdMetrics, stat_name


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def test_values_arrive_with_their_tags(listener: socket.socket) -> None:
    metrics = StatsdMetrics("127.0.0.1", listener.getsockname()[1])
    metrics.count("tradewind.predictions", 3, symbol="BTC/USDT", regime="ranging_quiet")
    metrics.gauge("tradewind.equity", 10_000.5)
    metrics.timing_ms("tradewind.cycle", 12.5, stage="predict")
    received = [listener.recv(2000).decode() for _ in range(3)]
    assert received == [
        "tradewind.predictions,regime=ranging_quiet,symbol=BTC/USDT:3|c",
        "tradewind.equity:10000.5|g",
        "tradewind.cycle,stage=predict:12.500000|ms",
    ]


def test_negative_gauge_is_a_level_not_a_change(listener: socket.socket) -> None:
    StatsdMetrics("127.0.0.1", listener.getsockname()[1]).gauge("tradewind.day_loss_frac", -0.02)
    assert listener.recv(2000).decode() == "tradewind.day_loss_frac:0|g\ntradewind.day_loss_frac:-0.02|g"


def test_separators_cannot_break_a_line() -> None:
    name = stat_name("tradewind.x", {"reason": "a,b=c:1|g\nd"})
    assert name == "tradewind.x,reason=a_b_c_1_g_d"


def test_unresolvable_host_raises_nothing() -> None:
    metrics = StatsdMetrics("no-such-host.invalid", 8125)
    metrics.count("tradewind.predictions")
    metrics.gauge("tradewind.equity", 1.0)
