"""How orders meet prices, case by case."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tradewind.core.matching import Engine
from tradewind.core.matching_book import BarPath, BarTicks, MatchingSettings
from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import (
    ListKind,
    NewOrder,
    OrderKind,
    OrderSide,
    OrderStatus,
    Refusal,
    RejectReason,
    TimeInForce,
)

BTC = "BTCUSDT"
RULES = SymbolRules(BTC, "BTC", "USDT", Decimal("0.01"), Decimal("0.00001"), max_algo_orders=50)
UNIT = 10**8
START = 6_000_000  # 60,000.00
VOLUME = 10_000_000  # 100 BTC a bar: 10 BTC on each level
EXACT = MatchingSettings(half_spread_ppm=0, level_step_ppm=100, slippage_ppm=0, limit_needs_trade_through=False)
"""One tick of spread, no slippage, a touch fills."""


def engine(settings: MatchingSettings = EXACT, usdt: int = 100_000, btc: int = 10) -> Engine:
    made = Engine([RULES], settings)
    made.open_account("a", {"USDT": usdt * UNIT, "BTC": btc * UNIT})
    made.on_price(BTC, START, VOLUME, 0, 0)
    return made


def order(kind: str, side: str, lots: int = 1000, client_id: str = "", **more: int | str) -> NewOrder:
    tif = TimeInForce(str(more.pop("tif", "GTC")))
    numbers = {k: int(v) for k, v in more.items()}
    order.count += 1  # type: ignore[attr-defined]
    name = client_id or f"c{order.count}"  # type: ignore[attr-defined]
    return NewOrder(BTC, OrderSide[side], OrderKind(kind), name, lots, time_in_force=tif, **numbers)


order.count = 0  # type: ignore[attr-defined]


def bar(low: int, high: int, opened: int = START, closed: int = START, volume: int = VOLUME) -> BarTicks:
    return BarTicks(opened, high, low, closed, volume)


def prices(made: Engine) -> list[int]:
    return [f.price_ticks for f in made.drain().fills]


# -------------------------------------------------------------------------------------------------------------- takers
def test_market_order_walks_the_book_and_pays_slippage() -> None:
    made = engine(MatchingSettings(half_spread_ppm=100, level_step_ppm=100, slippage_ppm=50), usdt=2_000_000)
    placed = made.place("a", order("MARKET", "BUY", 2_500_000), 1)  # 25 BTC over levels of 10
    fills = made.drain().fills
    # half spread 600, level step 600, slippage 300
    assert [(f.price_ticks, f.lots) for f in fills] == [
        (START + 900, 1_000_000),
        (START + 1500, 1_000_000),
        (START + 2100, 500_000),
    ]
    assert placed.status is OrderStatus.FILLED
    assert all(not f.is_maker for f in fills)


def test_what_was_taken_is_gone_until_the_next_bar() -> None:
    made = engine(usdt=2_000_000)
    made.place("a", order("MARKET", "BUY", 1_000_000), 1)
    made.place("a", order("MARKET", "BUY", 100_000), 1)
    first, second = prices(made)
    assert second == first + 600
    made.on_price(BTC, START, VOLUME, 60_000, 60_000)
    made.place("a", order("MARKET", "BUY", 1000), 60_001)
    assert prices(made) == [first]


def test_market_order_larger_than_the_book_expires_with_what_it_got() -> None:
    made = engine(usdt=100_000_000)
    placed = made.place("a", order("MARKET", "BUY", 30_000_000), 1)
    assert placed.status is OrderStatus.EXPIRED
    assert placed.filled_lots == 20 * 1_000_000


def test_fok_fills_whole_or_not_at_all() -> None:
    made = engine(usdt=2_000_000)
    short = made.place("a", order("LIMIT", "BUY", 1_000_001, price_ticks=START + 1, tif="FOK"), 1)
    assert (short.status, short.filled_lots) == (OrderStatus.EXPIRED, 0)
    whole = made.place("a", order("LIMIT", "BUY", 1_000_000, price_ticks=START + 1, tif="FOK"), 1)
    assert whole.status is OrderStatus.FILLED
    assert made.book.accounts["a"].balance("USDT").locked == 0


def test_ioc_keeps_what_it_gets() -> None:
    made = engine(usdt=2_000_000)
    placed = made.place("a", order("LIMIT", "BUY", 1_500_000, price_ticks=START + 1, tif="IOC"), 1)
    assert (placed.status, placed.filled_lots) == (OrderStatus.EXPIRED, 1_000_000)


def test_limit_taker_never_pays_more_than_its_limit() -> None:
    made = engine(MatchingSettings(half_spread_ppm=100, slippage_ppm=1000))
    made.place("a", order("LIMIT", "BUY", 1000, price_ticks=START + 700), 1)
    assert prices(made) == [START + 700]


def test_money_buys_whole_lots_and_not_one_more() -> None:
    made = engine()
    placed = made.place("a", order("MARKET", "BUY", 0, quote_atoms=500 * UNIT), 1)
    cost = placed.filled_quote_atoms
    per_lot = (START + 1) * RULES.quote_atoms_per_ticklot
    assert placed.status is OrderStatus.FILLED
    assert cost <= 500 * UNIT < cost + per_lot


# -------------------------------------------------------------------------------------------------------------- makers
@pytest.mark.parametrize(
    ("through", "low", "fills"),
    [(False, 5_900_001, 0), (False, 5_899_999, 1), (True, 5_899_999, 0), (True, 5_899_998, 1)],
)
def test_resting_limit_fills_when_the_best_price_reaches_or_passes_it(through: bool, low: int, fills: int) -> None:
    made = engine(MatchingSettings(half_spread_ppm=0, slippage_ppm=0, limit_needs_trade_through=through))
    placed = made.place("a", order("LIMIT", "BUY", price_ticks=5_900_000), 1)
    made.on_bar(BTC, bar(low, START), 60_000, 60_000)
    found = made.drain().fills
    assert len(found) == fills
    assert placed.status is (OrderStatus.FILLED if fills else OrderStatus.NEW)
    assert all(f.is_maker and f.price_ticks == 5_900_000 for f in found)


def test_resting_limit_is_capped_by_the_bars_volume() -> None:
    made = engine(usdt=3_000_000)
    placed = made.place("a", order("LIMIT", "BUY", 2_500_000, price_ticks=5_900_000), 1)
    made.on_bar(BTC, bar(5_800_000, START), 60_000, 60_000)
    assert (placed.status, placed.filled_lots) == (OrderStatus.PARTIALLY_FILLED, 1_000_000)
    made.on_bar(BTC, bar(5_800_000, START), 120_000, 120_000)
    made.on_bar(BTC, bar(5_800_000, START), 180_000, 180_000)
    assert placed.status is OrderStatus.FILLED


# --------------------------------------------------------------------------------------------------------------- stops
def test_stop_acts_at_its_price_inside_a_bar_and_gaps_through_at_the_open() -> None:
    inside = engine()
    inside.place("a", order("STOP_LOSS", "SELL", stop_ticks=5_900_000), 1)
    inside.on_bar(BTC, bar(5_800_000, START), 60_000, 60_000)
    assert prices(inside) == [5_900_000 - 1]
    gapped = engine()
    gapped.place("a", order("STOP_LOSS", "SELL", stop_ticks=5_900_000), 1)
    gapped.on_bar(BTC, bar(5_600_000, 5_750_000, opened=5_700_000, closed=5_650_000), 60_000, 60_000)
    assert prices(gapped) == [5_700_000 - 1]


def test_stop_limit_rests_when_the_price_has_run_past_its_limit() -> None:
    made = engine()
    placed = made.place("a", order("STOP_LOSS_LIMIT", "SELL", stop_ticks=5_900_000, price_ticks=5_890_000), 1)
    made.on_bar(BTC, bar(5_700_000, 5_850_000, opened=5_800_000, closed=5_800_000), 60_000, 60_000)
    assert placed.triggered
    assert placed.status is OrderStatus.NEW
    made.on_bar(BTC, bar(5_800_000, 5_900_000, opened=5_800_000, closed=5_900_000), 120_000, 120_000)
    assert prices(made) == [5_890_000]


@pytest.mark.parametrize(
    ("kind", "side", "stop"),
    [
        ("STOP_LOSS", "SELL", START),
        ("STOP_LOSS", "BUY", START),
        ("TAKE_PROFIT", "SELL", START),
        ("TAKE_PROFIT", "BUY", START),
    ],
)
def test_order_that_would_trigger_at_once_is_refused(kind: str, side: str, stop: int) -> None:
    made = engine()
    with pytest.raises(Refusal) as refused:
        made.place("a", order(kind, side, stop_ticks=stop), 1)
    assert refused.value.reason is RejectReason.WOULD_TRIGGER
    away = stop + (1 if (side == "BUY") == (kind == "STOP_LOSS") else -1)
    assert made.place("a", order(kind, side, stop_ticks=away), 1).is_open


def test_trailing_stop_follows_the_price_up_and_never_down() -> None:
    made = engine()
    placed = made.place("a", order("STOP_LOSS", "SELL", trailing_bps=100), 1)
    made.on_bar(BTC, bar(5_990_000, 6_300_000, closed=6_300_000), 60_000, 60_000, path=BarPath.LOW_FIRST)
    assert placed.status is OrderStatus.NEW
    made.on_bar(BTC, bar(6_240_000, 6_300_000, opened=6_300_000, closed=6_250_000), 120_000, 120_000)
    assert placed.status is OrderStatus.NEW
    made.on_bar(BTC, bar(6_200_000, 6_260_000, opened=6_250_000, closed=6_200_000), 180_000, 180_000)
    assert prices(made) == [6_237_000 - 1]  # 1 % below 6,300,000


# --------------------------------------------------------------------------------------------------------------- lists
def bracket(
    kind: ListKind = ListKind.OPOCO, lots: int = 1000, tif: str = "FOK", price: int = START + 100
) -> NewOrderList:
    sized = 0 if kind.is_sized_from_proceeds else lots
    return NewOrderList(
        kind,
        BTC,
        f"list{price}",
        (
            order("LIMIT", "BUY", lots, price_ticks=price, tif=tif),
            order("LIMIT_MAKER", "SELL", sized, price_ticks=6_200_000),
            order("STOP_LOSS", "SELL", sized, stop_ticks=5_900_000),
        ),
    )


def test_stop_before_target_when_both_lie_inside_one_bar() -> None:
    made = engine()
    placed = made.place_list("a", bracket(), 1)
    made.drain()
    made.on_bar(BTC, bar(5_800_000, 6_300_000, closed=6_250_000), 60_000, 60_000)
    _, target, stop = (made.orders[i] for i in placed.order_ids)
    assert (stop.status, target.status) == (OrderStatus.FILLED, OrderStatus.EXPIRED)
    assert placed.is_done


def test_stop_wins_a_tie_at_the_open() -> None:
    made = engine()
    placed = made.place_list("a", bracket(), 1)
    made.on_bar(BTC, bar(6_250_000, 6_300_000, opened=6_250_000, closed=6_250_000), 60_000, 60_000)
    assert made.orders[placed.order_ids[1]].status is OrderStatus.FILLED  # only the target was reached
    made = engine()
    placed = made.place_list("a", bracket(), 1)
    made.on_bar(BTC, bar(5_700_000, 6_300_000, opened=5_700_000, closed=6_300_000), 60_000, 60_000)
    assert made.orders[placed.order_ids[2]].status is OrderStatus.FILLED


def test_legs_are_sized_from_proceeds_when_the_account_holds_nothing_else() -> None:
    made = engine(btc=0)
    placed = made.place_list("a", bracket(lots=100_000), 1)
    _, target, stop = (made.orders[i] for i in placed.order_ids)
    assert target.lots == stop.lots == 99_900  # 0.1 % commission came out of what was bought
    assert made.book.accounts["a"].balance("BTC").locked == 99_900 * RULES.base_atoms_per_lot


def test_commission_comes_from_free_base_when_there_is_some() -> None:
    made = engine(btc=1)
    placed = made.place_list("a", bracket(lots=100_000), 1)
    assert made.orders[placed.order_ids[1]].lots == 100_000
    assert made.book.accounts["a"].balance("BTC").free == UNIT - UNIT // 1000


def test_otoco_sized_up_front_is_naked_without_spare_base() -> None:
    made = engine(btc=0)
    placed = made.place_list("a", bracket(ListKind.OTOCO, lots=100_000), 1)
    statuses = [made.orders[i].status for i in placed.order_ids]
    assert statuses == [OrderStatus.FILLED, OrderStatus.REJECTED, OrderStatus.REJECTED]
    assert placed.is_done
    assert made.orders[placed.order_ids[1]].reject_reason == RejectReason.INSUFFICIENT_BALANCE.value


def test_legs_wait_for_the_whole_fill() -> None:
    made = engine(usdt=3_000_000)
    placed = made.place_list("a", bracket(lots=2_000_000, tif="GTC", price=5_950_000), 1)
    made.on_bar(BTC, bar(5_910_000, START), 60_000, 60_000)
    working, target, stop = (made.orders[i] for i in placed.order_ids)
    assert working.status is OrderStatus.PARTIALLY_FILLED
    assert target.status is stop.status is OrderStatus.PENDING_NEW
    assert placed.proceeds_atoms == made.book.accounts["a"].balance("BTC").locked > 0
    made.on_bar(BTC, bar(5_910_000, START), 120_000, 120_000)
    assert target.status is stop.status is OrderStatus.NEW


def test_expired_working_order_takes_its_legs_along() -> None:
    made = engine(usdt=3_000_000)
    placed = made.place_list("a", bracket(lots=1_500_000, price=START + 1), 1)
    assert [made.orders[i].status for i in placed.order_ids] == [OrderStatus.EXPIRED] * 3
    assert placed.is_done


def test_cancelling_one_leg_cancels_the_list_and_frees_the_money() -> None:
    made = engine()
    placed = made.place_list("a", bracket(tif="GTC", price=5_950_000), 1)
    made.cancel("a", placed.order_ids[2], 2)
    assert [made.orders[i].status for i in placed.order_ids] == [OrderStatus.CANCELED] * 3
    assert all(b.locked == 0 for b in made.book.accounts["a"].balances.values())


def test_oco_reserves_once() -> None:
    made = engine(btc=1)
    legs = (
        order("LIMIT_MAKER", "SELL", 100_000, price_ticks=6_200_000),
        order("STOP_LOSS", "SELL", 100_000, stop_ticks=5_900_000),
    )
    made.place_list("a", NewOrderList(ListKind.OCO, BTC, "oco", legs), 1)
    assert made.book.accounts["a"].balance("BTC").free == 0


def test_legs_placed_inside_a_bar_meet_the_rest_of_it() -> None:
    made = engine()
    placed = made.place_list("a", bracket(tif="GTC", price=5_950_000), 1)
    made.drain()
    # Down through the entry to the low, where the fresh stop already rests, then up.
    made.on_bar(BTC, bar(5_890_000, 6_300_000, closed=6_250_000), 60_000, 60_000)
    assert prices(made) == [5_950_000, 5_900_000 - 1]
    assert made.orders[placed.order_ids[1]].status is OrderStatus.EXPIRED


# ---------------------------------------------------------------------------------------------------------- cheap test
def test_touch_bounds_are_never_too_tight() -> None:
    made = engine()
    assert made.touch_bounds(BTC) == (-1, 1 << 62)
    made.place("a", order("LIMIT", "BUY", price_ticks=5_800_000), 1)
    made.place("a", order("STOP_LOSS", "SELL", stop_ticks=5_700_000), 1)
    made.place("a", order("LIMIT", "SELL", price_ticks=6_300_000), 1)
    low, high = made.touch_bounds(BTC)
    made.drain()
    made.on_bar(BTC, bar(low + 1, high - 1), 60_000, 60_000)
    assert not made.drain().fills
    made.on_bar(BTC, bar(low, START), 120_000, 120_000)
    assert len(made.drain().fills) == 1


def test_halted_symbol_does_not_trade_but_lets_go() -> None:
    made = engine()
    resting = made.place("a", order("LIMIT", "BUY", price_ticks=5_900_000), 1)
    made.halted.add(BTC)
    made.on_bar(BTC, bar(5_000_000, START), 60_000, 60_000)
    assert resting.status is OrderStatus.NEW
    with pytest.raises(Refusal, match="closed"):
        made.place("a", order("MARKET", "BUY"), 2)
    assert made.cancel("a", resting.order_id, 3).status is OrderStatus.CANCELED


def test_refused_command_changes_nothing() -> None:
    made = engine(usdt=100)
    made.drain()
    for new in (
        order("LIMIT", "BUY", 100_000, price_ticks=5_900_000),
        order("MARKET", "BUY", 100_000),
        order("LIMIT_MAKER", "BUY", 100, price_ticks=6_100_000),
        order("LIMIT", "SELL", 2_000_000, price_ticks=6_100_000),
    ):
        with pytest.raises(Refusal):
            made.place("a", new, 1)
    with pytest.raises(Refusal):
        made.place_list("a", bracket(lots=100_000), 1)
    assert not made.drain()
    assert not made.orders
