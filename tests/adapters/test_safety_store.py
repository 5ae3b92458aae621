"""The latch, the flattening and the references of equity in PostgreSQL: a task tightens, a person alone opens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tradewind.adapters.database import Database
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.params import StrategyParams
from tradewind.core.types import TradingMode
from tradewind.errors import TradingHalted

NOW = datetime(2025, 3, 1, 12, 0, 3, 123456, tzinfo=UTC)
PARAMS = StrategyParams()


def test_latch_only_tightens(store: PgTradingStore) -> None:
    assert store.latch().mode is TradingMode.ACTIVE
    store.set_latch(TradingMode.REDUCE_ONLY, "a person", NOW, actor="kim")
    halted = store.set_latch(TradingMode.HALTED, "breaker", NOW, actor="watch")
    assert store.set_latch(TradingMode.REDUCE_ONLY, "again", NOW, actor="kim") == halted
    assert store.set_latch(TradingMode.ACTIVE, "please", NOW, actor="kim") == halted
    assert store.set_latch(TradingMode.HALTED, "twice", NOW, actor="kim").reason == "breaker"
    opened = store.open_latch("checked", NOW, actor="kim")
    assert (opened.mode, opened.sequence) == (TradingMode.ACTIVE, 3)
    assert [row["mode"] for row in store.latch_history()] == ["reduce_only", "halted", "active"]


def test_a_latch_that_was_closed_anew_stays_closed(store: PgTradingStore) -> None:
    looked_at = store.set_latch(TradingMode.REDUCE_ONLY, "halt", NOW, actor="ann")
    store.set_latch(TradingMode.HALTED, "breach", NOW, actor="watch")
    with pytest.raises(TradingHalted):
        store.open_latch("resumed", NOW, actor="ann", sequence=looked_at.sequence)
    assert store.latch().mode is TradingMode.HALTED


def test_flattening_counts_attempts_and_stays_verified(store: PgTradingStore) -> None:
    later = NOW + timedelta(seconds=5)
    store.start_flattening(1, NOW)
    assert store.record_flattening(1, NOW, {"left": ["BTC/USDT"]}, flat=False).attempts == 1
    done = store.record_flattening(1, later, {}, flat=True)
    assert (done.attempts, done.verified_flat_at, done.started_at) == (2, later, NOW)
    again = store.record_flattening(1, later + timedelta(seconds=1), {}, flat=False)
    assert again.verified_flat_at == later
    assert store.flattening(2) is None


def test_baseline_is_taken_once(store: PgTradingStore) -> None:
    assert store.baseline() is None
    assert store.take_baseline({"ETH": Decimal(2), "USDT": Decimal(10000)}, NOW)["ETH"] == 2
    assert store.take_baseline({"ETH": Decimal(7)}, NOW) == {"ETH": Decimal(2), "USDT": Decimal(10000)}


def test_equity_references(store: PgTradingStore) -> None:
    yesterday = NOW - timedelta(days=1)
    store.record_equity("mark", yesterday, Decimal(11000))
    store.record_equity("day_open", NOW.replace(hour=0), Decimal(10000))
    store.record_equity("day_open", NOW.replace(hour=0), Decimal(1))
    assert store.day_open_equity(NOW) == 10000
    assert store.day_open_equity(NOW + timedelta(days=1)) is None
    assert store.last_equity_before(NOW.replace(hour=0)) == 11000
    assert store.peak_equity() == 11000
    store.record_equity("day_open", NOW, Decimal(9600), resumed_by="kim")
    assert store.day_open_equity(NOW) == 9600
    assert store.peak_equity() == 9600
    assert store.resumed_at() == NOW


def test_accounts_do_not_see_each_other(store: PgTradingStore, database: Database) -> None:
    other = PgTradingStore(database, "other", PARAMS.strategy_version)
    store.set_latch(TradingMode.HALTED, "mine", NOW, actor="kim")
    store.beat("watch", NOW)
    assert other.latch().mode is TradingMode.ACTIVE
    assert other.heartbeats() == {}
    assert store.heartbeats() == {"watch": NOW}
