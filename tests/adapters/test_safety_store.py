"""The latch, the flattening and the references of equity in PostgreSQL: a task tightens, a person alone opens."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier

import psycopg
import pytest

from tradewind.adapters.database import Database
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.params import StrategyParams
from tradewind.core.transfers import Reading
from tradewind.core.types import Latch, TradingMode
from tradewind.errors import TradingHalted

NOW = datetime(2025, 3, 1, 12, 0, 3, 123456, tzinfo=UTC)
PARAMS = StrategyParams()
GENEROUS_S = 60.0
HELD_UP = "SELECT tighten_latch(%s, %s, 'held', 'status', now())"


def opened(store: PgTradingStore, sequence: int, actor: str = "kim") -> Latch:
    reading = Reading(NOW, Decimal(9600), 0)
    return store.open_latch("checked", NOW, actor=actor, source="command", sequence=sequence, equity=reading)


@contextmanager
def uncommitted(url: str, account: str, mode: str) -> Iterator[psycopg.Connection]:
    """Another session that has tightened the latch, or tried to, and does not say whether it will commit."""
    with psycopg.connect(url) as connection:
        connection.execute(HELD_UP, (account, mode))
        yield connection
        connection.rollback()


def test_latch_only_tightens(store: PgTradingStore) -> None:
    assert store.latch().mode is TradingMode.ACTIVE
    store.set_latch(TradingMode.REDUCE_ONLY, "a person", NOW, actor="kim")
    halted = store.set_latch(TradingMode.HALTED, "breaker", NOW, actor="watch")
    assert store.set_latch(TradingMode.REDUCE_ONLY, "again", NOW, actor="kim") == halted
    assert store.set_latch(TradingMode.ACTIVE, "please", NOW, actor="kim") == halted
    assert store.set_latch(TradingMode.HALTED, "twice", NOW, actor="kim").reason == "breaker"
    latch = opened(store, halted.sequence)
    assert (latch.mode, latch.sequence) == (TradingMode.ACTIVE, 3)
    assert [row["mode"] for row in store.latch_history()] == ["reduce_only", "halted", "active"]
    assert store.set_latch(TradingMode.REDUCE_ONLY, "lunch", NOW, actor="kim").reason == "lunch"


def test_a_latch_that_was_closed_anew_stays_closed(store: PgTradingStore) -> None:
    looked_at = store.set_latch(TradingMode.REDUCE_ONLY, "halt", NOW, actor="ann")
    store.set_latch(TradingMode.HALTED, "breach", NOW, actor="watch")
    with pytest.raises(TradingHalted):
        opened(store, looked_at.sequence, "ann")
    assert store.latch().mode is TradingMode.HALTED
    assert store.resumed_at() is None


def test_an_opening_leaves_history_audit_and_the_equity_it_begins_from(
    store: PgTradingStore, database: Database
) -> None:
    store.record_equity("mark", NOW + timedelta(minutes=1), Decimal(11000))
    latch = store.set_latch(TradingMode.HALTED, "breach", NOW, actor="watch")
    opened(store, latch.sequence)
    assert store.latch_history()[-1]["reason"] == "checked (was: breach)"
    row = database.row("SELECT actor, action, outcome, detail, source FROM audit")
    assert row is not None
    assert (row["actor"], row["action"], row["outcome"], row["source"]) == ("kim", "resume", "opened", "command")
    assert (row["detail"]["was"], row["detail"]["equity_quote"]) == ("breach", "9600")
    assert store.resumed_at() == NOW + timedelta(minutes=1, microseconds=1), "after every reading so far"
    assert store.peak_equity() == 9600


@pytest.mark.parametrize("mode", ["active", "reduce_only", "halted"])
def test_a_session_that_does_not_commit_holds_nobody_up(store: PgTradingStore, postgres_url: str, mode: str) -> None:
    with ThreadPoolExecutor(1) as pool, uncommitted(postgres_url, store.account, mode):
        latch = pool.submit(store.set_latch, TradingMode.HALTED, "breach", NOW, actor="watch").result(GENEROUS_S)
        assert (latch.mode, latch.reason) == (TradingMode.HALTED, "breach")
    assert store.latch() == latch


def test_a_change_that_is_committed_late_stays_in_force(store: PgTradingStore, postgres_url: str) -> None:
    """Its number is lower than the opening's, which did not see it."""
    looked_at = store.set_latch(TradingMode.REDUCE_ONLY, "lunch", NOW, actor="kim")
    with uncommitted(postgres_url, store.account, "halted") as late:
        assert opened(store, looked_at.sequence).mode is TradingMode.ACTIVE
        late.commit()
    assert (store.latch().mode, store.latch().reason) == (TradingMode.HALTED, "held")


def test_many_tighten_at_once_and_all_are_told_the_same(store: PgTradingStore, database: Database) -> None:
    start = Barrier(4)

    def tighten(number: int) -> Latch:
        start.wait()
        return store.set_latch(TradingMode.HALTED, f"reason {number}", NOW, actor="watch")

    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            told = list(pool.map(tighten, range(4)))
        assert {latch.mode for latch in told} == {TradingMode.HALTED}
        latch = store.latch()
        assert latch.sequence == min(row.sequence for row in told)
        assert opened(store, latch.sequence).mode is TradingMode.ACTIVE, "one opening opens what lay there"


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "2999-01-01"])
def test_a_moment_that_no_clock_shows_neither_blinds_nor_delays(
    store: PgTradingStore, database: Database, moment: str
) -> None:
    """Whoever reads `since` must be able to, and one in the future would hold back who waits for the flattening."""
    database.execute("SELECT tighten_latch(%s, 'halted', 'x', 'status', %s)", (store.account, moment))
    assert store.latch().mode is TradingMode.HALTED
    assert store.latch().since <= datetime.now(UTC)


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
