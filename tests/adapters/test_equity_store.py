"""Readings of equity, the links that scale them, and what the breaker compares with, in a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from tradewind.adapters.database import Database
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.transfers import EquityLink, Reading
from tradewind.errors import LockNotAcquired

NOW = datetime(2025, 3, 1, 12, 0, 3, 123456, tzinfo=UTC)
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
SECOND = timedelta(seconds=1)


def pay_in(store: PgTradingStore, amount: int, equity: int, link: int = 0, at: datetime = NOW) -> None:
    accepted = store.accepted_differences().get("USDT", Decimal(0))
    reading = Reading(at, Decimal(equity), link)
    store.accept_difference("USDT", Decimal(amount), "moved", NOW, actor="kim", accepted=accepted, equity=reading)


def last_link(store: PgTradingStore) -> int:
    found = store.equity_record(NOW).last_link
    assert found is not None
    return found.number


def marks(database: Database) -> list[Decimal]:
    rows = database.rows("SELECT equity_quote FROM equity WHERE kind = 'mark' ORDER BY at, reading_id")
    return [row["equity_quote"] for row in rows]


def test_the_references_of_a_day(store: PgTradingStore) -> None:
    store.record_equity("mark", NOW - timedelta(days=1), Decimal(11000))
    assert store.day_open_equity(NOW) == 11000, "the last reading before midnight, until the day has its own"
    store.open_day(MIDNIGHT, Decimal(10000), link=0)
    store.open_day(MIDNIGHT, Decimal(1), link=0)
    assert store.day_open_equity(NOW) == 10000, "an opening is never rewritten"
    assert store.day_open_equity(NOW + timedelta(days=1)) == 10000
    assert store.day_open_equity(NOW - timedelta(days=2)) is None
    assert store.peak_equity() == 11000
    store.record_equity("day_open", NOW, Decimal(9600), resumed_by="kim")
    assert store.day_open_equity(NOW) == 9600
    assert store.peak_equity() == 9600
    assert store.resumed_at() == NOW


def test_money_paid_in_scales_every_reading_before_it(store: PgTradingStore, database: Database) -> None:
    store.open_day(MIDNIGHT, Decimal(10000), link=0)
    store.record_equity("mark", NOW, Decimal(10500))
    pay_in(store, 9800, 9800)
    assert store.equity_record(NOW).links == (EquityLink(last_link(store), Decimal(9800), Decimal(19600)),)
    assert (store.day_open_equity(NOW), store.peak_equity()) == (20000, 21000)
    store.record_equity("mark", NOW, Decimal(10400), link=0)
    assert store.peak_equity() == 21000, "a reading begun before the transfer and written after it is one of before"
    store.record_equity("mark", NOW, Decimal(22000))
    assert store.peak_equity() == 22000
    (row,) = database.rows("SELECT d.quantity FROM equity_links l JOIN accepted_differences d USING (difference_id)")
    assert row["quantity"] == 9800


def test_first_money_is_the_reference_at_once(store: PgTradingStore) -> None:
    store.open_day(MIDNIGHT, Decimal(0), link=0)
    store.record_equity("mark", NOW, Decimal(0))
    pay_in(store, 5000, 0)
    assert (store.day_open_equity(NOW), store.peak_equity()) == (5000, 5000)
    assert store.day_open_equity(NOW + timedelta(days=1)) == 5000


def test_an_emptied_account_has_references_of_zero_until_it_is_funded_again(store: PgTradingStore) -> None:
    store.open_day(MIDNIGHT, Decimal(10000), link=0)
    pay_in(store, -10000, 10000)
    assert (store.day_open_equity(NOW), store.peak_equity()) == (0, 0)
    assert len(store.equity_record(NOW).blind_spots()) == 2
    pay_in(store, 300, 0, last_link(store))
    assert (store.day_open_equity(NOW), store.peak_equity()) == (300, 300)


def test_two_people_do_not_explain_the_same_difference(store: PgTradingStore) -> None:
    store.accept_difference("BTC", Decimal(1), "bought", NOW, actor="ann", accepted=Decimal(0))
    with pytest.raises(LockNotAcquired, match="meanwhile"):
        store.accept_difference("BTC", Decimal(1), "bought", NOW, actor="kim", accepted=Decimal(0))
    assert store.accepted_differences() == {"BTC": 1}


def test_a_refused_explanation_leaves_no_link(store: PgTradingStore) -> None:
    pay_in(store, 500, 10000)
    reading = Reading(NOW, Decimal(10000), 0)
    with pytest.raises(LockNotAcquired):
        store.accept_difference("USDT", Decimal(500), "x", NOW, actor="k", accepted=Decimal(0), equity=reading)
    assert len(store.equity_record(NOW).links) == 1


def test_a_link_without_an_end_gets_it_from_the_first_reading(store: PgTradingStore, database: Database) -> None:
    store.open_day(MIDNIGHT, Decimal(10000), link=0)
    database.execute(
        "INSERT INTO equity_links (account, at, before_quote) VALUES ('main', %s, 9800), ('other', %s, 1)", (NOW, NOW)
    )
    assert store.day_open_equity(NOW) is None
    number = last_link(store)
    store.close_link(Reading(NOW, Decimal(980), number))
    store.close_link(Reading(NOW, Decimal(1), number))
    assert store.day_open_equity(NOW) == 1000, "the loss that there was is still there"
    database.execute("INSERT INTO equity_links (account, at, before_quote) VALUES ('main', %s, 0)", (NOW,))
    store.close_link(Reading(NOW, Decimal(700), last_link(store)))
    assert (store.day_open_equity(NOW), store.peak_equity()) == (700, 700)


def test_one_mark_a_minute_is_kept_beside_peaks_and_other_links(store: PgTradingStore, database: Database) -> None:
    store.keep_mark(NOW, Decimal(100), link=0, is_peak=True)
    for number, equity in enumerate((90, 80, 70)):
        store.keep_mark(NOW + number * SECOND, Decimal(equity), link=0, is_peak=False, unpriced=["ETH/USDT"])
    assert marks(database) == [100, 70], "the newest one is told last"
    store.keep_mark(NOW + 4 * SECOND, Decimal(140), link=9, is_peak=False)
    store.keep_mark(NOW + 60 * SECOND, Decimal(60), link=9, is_peak=False)
    assert marks(database) == [100, 70, 140, 60]


@pytest.mark.parametrize("hours", [0, -1])
def test_readings_keep_their_order_where_the_clock_stands_or_is_set_back(
    store: PgTradingStore, database: Database, hours: int
) -> None:
    store.keep_mark(NOW, Decimal(12000), link=0, is_peak=True)
    later = NOW + timedelta(hours=hours)
    store.record_equity("day_open", later, Decimal(9000), resumed_by="kim")
    assert store.peak_equity() == 9000
    for equity in (9100, 9050, 9040):
        store.keep_mark(later, Decimal(equity), link=0, is_peak=equity == 9100)
    assert store.peak_equity() == 9100
    assert marks(database) == [12000, 9100, 9040]


def test_a_snapshot_shows_one_moment_and_refuses_to_write(store: PgTradingStore, database: Database) -> None:
    other = PgTradingStore(Database(database._dsn), "main", store.strategy_version)
    with store.snapshot():
        before = store.accepted_differences()
        other.accept_difference("USDT", Decimal(5), "moved", NOW, actor="kim", accepted=Decimal(0))
        with store.snapshot():
            assert store.accepted_differences() == before == {}
    assert store.accepted_differences() == {"USDT": 5}
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), store.snapshot():
        store.record_equity("mark", NOW, Decimal(1))
    store.record_equity("mark", NOW, Decimal(1))
    assert marks(database) == [1]
    other._database.close()


def test_accounts_do_not_scale_each_other(store: PgTradingStore, database: Database) -> None:
    other = PgTradingStore(database, "other", store.strategy_version)
    store.open_day(MIDNIGHT, Decimal(10000), link=0)
    pay_in(other, 5000, 0)
    assert store.equity_record(NOW).links == ()
    assert (store.day_open_equity(NOW), other.day_open_equity(NOW)) == (10000, 5000)
