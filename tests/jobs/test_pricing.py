"""Held markets as they can be priced now: one that cannot is kept to itself."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.support.prices import Answering, ShiftedClock
from tests.support.trading_rig import Rig
from tradewind.core.prices import BELIEVED_AFTER
from tradewind.core.types import Position
from tradewind.errors import ExchangeMaintenance, ExchangeUnreachable, UnknownSymbol
from tradewind.jobs.pricing import believable_books
from tradewind.jobs.trading import place_brackets


def held(rig: Rig) -> list[Position]:
    for symbol in ("BTC/USDT", "ETH/USDT"):
        assert place_brackets(rig, rig.decide(symbol).intent_id)["outcome"] == "filled"
    return rig.trading_store.live_positions()


@pytest.fixture
def positions(rig: Rig) -> list[Position]:
    rig.make_ready()
    found = held(rig)
    rig.exchange = Answering(rig.client, rig.account)
    return found


@pytest.mark.parametrize(
    ("bid", "ask"), [("0", "0"), ("0", "3000"), ("3000", "2000"), ("NaN", "NaN"), ("Infinity", "Infinity")]
)
def test_an_answer_that_is_no_price_is_kept_to_its_market(
    rig: Rig, positions: list[Position], bid: str, ask: str
) -> None:
    entry = positions[1].entry_price
    rig.exchange.answers = {"ETH/USDT": (Decimal(bid), Decimal(ask))}
    priced = believable_books(rig, positions)
    assert priced.books.keys() == {"BTC/USDT"}
    assert "no price" in priced.unpriced["ETH/USDT"]
    assert priced.known["ETH/USDT"].bid == entry, "nothing newer than the entry is known"


def test_a_missing_answer_leaves_the_last_known_price(rig: Rig, positions: list[Position]) -> None:
    seen = believable_books(rig, positions).books["ETH/USDT"]
    rig.exchange.absent = {"ETH/USDT"}
    priced = believable_books(rig, positions)
    assert priced.unpriced.keys() == {"ETH/USDT"}
    assert priced.known["ETH/USDT"].bid == seen.bid


@pytest.mark.parametrize("error", [UnknownSymbol, KeyError, ExchangeMaintenance])
def test_a_market_that_breaks_the_batch_is_asked_alone(
    rig: Rig, positions: list[Position], error: type[Exception]
) -> None:
    rig.exchange.broken = {"ETH/USDT": error("ETH/USDT")}
    priced = believable_books(rig, positions)
    assert priced.books.keys() == {"BTC/USDT"}
    assert error.__name__ in priced.unpriced["ETH/USDT"]


def test_an_exchange_that_answers_nothing_is_no_matter_of_one_market(rig: Rig, positions: list[Position]) -> None:
    rig.exchange.broken = {"ETH/USDT": ExchangeUnreachable("down")}
    with pytest.raises(ExchangeUnreachable):
        believable_books(rig, positions)


def test_a_collapse_is_believed_by_a_later_look_of_any_process(rig: Rig, positions: list[Position]) -> None:
    wall = rig.wall = ShiftedClock(rig.wall)
    rig.admin.shock(-0.7, "ETH/USDT")
    priced = believable_books(rig, positions)
    assert priced.books.keys() == {"BTC/USDT"}
    assert "not believed yet" in priced.unpriced["ETH/USDT"]
    wall.ahead = BELIEVED_AFTER
    priced = believable_books(rig, positions)
    assert priced.unpriced == {}
    assert believable_books(rig, positions, ["BNB/USDT"]).books.keys() >= {"BTC/USDT", "ETH/USDT"}


def test_a_price_from_before_the_position_is_not_its_last_known_one(rig: Rig, positions: list[Position]) -> None:
    believable_books(rig, positions)
    rig.database.execute("UPDATE last_prices SET bid = bid * 9, ask = ask * 9, at = at - interval '90 days'")
    priced = believable_books(rig, positions)
    assert priced.unpriced == {}, "the entry is newer, and no jump away"


def test_nothing_held_asks_nothing(rig: Rig) -> None:
    rig.exchange = Answering(rig.client, rig.account)
    assert believable_books(rig, []).books == {}
    assert rig.exchange.asked == []
