"""What gauges, the daily summary and the report of a live run say of equity after a transfer: what the breaker says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from tradewind.adapters.database import Database
from tradewind.backtest.ledger_run import read_run
from tradewind.core.transfers import Reading
from tradewind.settings import Settings
from tradewind.stack.gauges import Gauges
from tradewind.stack.summary import daily_summary
from tradewind.wiring import Wiring

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Recorded:
    """Metrics as they are sent."""

    def __init__(self) -> None:
        self.gauges: dict[str, float] = {}

    def count(self, name: str, value: int = 1, **tags: str) -> None:
        self.gauges[name] = value

    def gauge(self, name: str, value: float, **tags: str) -> None:
        self.gauges[name] = value

    def timing_ms(self, name: str, value_ms: float, **tags: str) -> None:
        self.gauges[name] = value_ms


@pytest.fixture
def wiring(postgres_url: str, database: Database, tmp_path: Any) -> Iterator[Wiring]:
    """Half of 20,000 is gone today in a withdrawal, and a hundredth of the rest in trades; 1 % was won before."""
    made = Wiring(Settings(home_dir=tmp_path, database_url=SecretStr(postgres_url)))
    made.__dict__["database"] = database
    made.__dict__["metrics"] = Recorded()
    store = made.trading_store
    store.record_equity("mark", NOW - timedelta(hours=30), Decimal(19_800))
    store.open_day(NOW - timedelta(hours=12), Decimal(20_000), link=0)
    reading = Reading(NOW - timedelta(hours=6), Decimal(20_000), 0)
    store.accept_difference("USDT", Decimal(-10_000), "out", NOW, actor="ann", accepted=Decimal(0), equity=reading)
    store.record_equity("mark", NOW - timedelta(hours=1), Decimal(9900))
    yield made
    made.close()


def test_gauges_show_the_loss_that_the_breaker_sees(wiring: Wiring) -> None:
    Gauges(wiring)._money(NOW)
    gauges = wiring.metrics.gauges
    assert gauges["tradewind.equity_quote"] == 9900
    assert gauges["tradewind.day_result_frac"] == pytest.approx(-0.01)
    assert gauges["tradewind.drawdown_frac"] == pytest.approx(-0.01)
    assert gauges["tradewind.day_loss_used_frac"] == pytest.approx(1 / 3)


def test_the_share_of_the_limit_that_is_used_is_one_of_what_trading_may_use(wiring: Wiring) -> None:
    wiring.settings = wiring.settings.model_copy(update={"max_capital_quote": Decimal(5000)})
    Gauges(wiring)._money(NOW)
    assert wiring.metrics.gauges["tradewind.day_loss_used_frac"] == pytest.approx(100 / 150)


def test_the_daily_summary_tells_results_and_no_transfers(wiring: Wiring) -> None:
    _, body = daily_summary(wiring, NOW)
    assert "Equity 9,900.00 USDT, +0.00% since yesterday, +0.00% since the start" in body


def test_the_report_of_a_live_run_draws_results_and_no_transfers(wiring: Wiring) -> None:
    run = read_run(
        wiring.database, wiring.account, title="", labels=(), strategy_version="1", bars={}, end=NOW
    )  # fmt: skip
    assert [point.equity_quote for point in run.equity] == [9900, 10_000, 9900]
    assert run.initial_equity_quote == 9900
