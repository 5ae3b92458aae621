"""The demo knows the one market on which a missing champion is a failure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from tradewind.demo.run import MARKET_START, DemoOptions, DemoRun
from tradewind.settings import Settings


def demo_on(months: int = 12, **changed: Any) -> DemoRun:
    nobody: Any = None
    settings = Settings(mode="demo", **changed)
    return DemoRun(DemoOptions(months=months), settings, nobody, nobody, nobody, Console(), MARKET_START)


def test_only_the_shipped_market_must_yield_a_champion() -> None:
    assert demo_on().is_shipped
    later = demo_on()
    later.start += timedelta(days=1)
    assert not later.is_shipped


@pytest.mark.parametrize(
    "changed",
    [{"market_seed": 8}, {"market_structure_frac": 0.0}, {"symbols": ("BTC/USDT", "ETH/USDT")}, {"months": 6}],
)
def test_on_another_market_the_gates_may_refuse(changed: dict[str, Any]) -> None:
    assert not demo_on(**changed).is_shipped
