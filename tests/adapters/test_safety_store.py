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


def test_accounts_do_not_see_each_other(store: PgTradingStore, database: Database) -> None:
    other = PgTradingStore(database, "other", PARAMS.strategy_version)
    store.set_latch(TradingMode.HALTED, "mine", NOW, actor="kim")
    store.beat("watch", NOW)
    assert other.latch().mode is TradingMode.ACTIVE
    assert other.heartbeats() == {}
    assert store.heartbeats() == {"watch": NOW}


def test_no_beat_is_in_the_future_and_one_of_before_a_clock_was_set_right_gives_way(
    store: PgTradingStore, database: Database
) -> None:
    now = datetime.now(UTC)
    store.beat("watch", now + timedelta(hours=1))
    assert store.heartbeats()["watch"] < now + timedelta(minutes=1), "a machine that is ahead beats now"
    database.execute("UPDATE heartbeats SET at = at + interval '1 hour'")
    store.beat("watch", now)
    assert store.heartbeats()["watch"] == now
    store.beat("watch", now - timedelta(seconds=1))
    assert store.heartbeats()["watch"] == now, "a slower process does not make it older"


def test_the_last_reconciliation_is_the_one_stored_last(store: PgTradingStore) -> None:
    store.record_reconciliation(NOW + timedelta(hours=1), True, {})
    store.record_reconciliation(NOW, False, {})
    last = store.last_reconciliation()
    assert last is not None
    assert (last.at, last.clean) == (NOW, False)
