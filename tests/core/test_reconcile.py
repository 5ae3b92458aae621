from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.support.trading import NOW, D, fill, instrument, order, position
from tradewind.core.reconcile import (
    Consequence,
    DifferenceKind,
    ExchangeView,
    LedgerView,
    expected_balance,
    reconcile,
)
from tradewind.core.types import Balance, ExchangeOrder, Order, OrderRole, OrderState, PositionStatus

STOP = order(
    "tws" + "0" * 32,
    role=OrderRole.STOP,
    is_buy=False,
    state=OrderState.WORKING,
    quantity=D("9.99"),
    filled_quantity=D(0),
    order_type="STOP_LOSS",
)


def there(ours: Order, **changes: object) -> ExchangeOrder:
    made = ExchangeOrder(
        ours.client_order_id,
        "7",
        ours.list_client_id,
        ours.symbol,
        ours.is_buy,
        ours.order_type,
        ours.state,
        ours.quantity,
        ours.filled_quantity,
        ours.price,
        ours.stop_price,
        NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def balance(asset: str, free: str, locked: str = "0") -> Balance:
    return Balance(asset, D(free), D(locked))


BOUGHT = fill("1", is_buy=True, quantity="10", price="100", fee=D("0.01"), fee_asset="SOL")
LEDGER = LedgerView(
    orders=[order(), STOP],
    fill_ids=frozenset({("SOL/USDT", "1")}),
    asset_flows={"SOL": D("9.99"), "USDT": D("-1000")},
    baseline={"SOL": D(2), "USDT": D(5000)},
    positions=[position()],
    instruments={"SOL/USDT": instrument()},
    assets=frozenset({"SOL", "USDT"}),
)
EXCHANGE = ExchangeView(
    open_orders=[there(STOP)],
    fills=[BOUGHT],
    balances={"SOL": balance("SOL", "2", "9.99"), "USDT": balance("USDT", "4000")},
    at=NOW,
)


def kinds(exchange: ExchangeView, ledger: LedgerView = LEDGER) -> dict[DifferenceKind, str]:
    return {d.kind: d.subject for d in reconcile(exchange, ledger).differences}


def test_agreement_is_clean() -> None:
    report = reconcile(EXCHANGE, LEDGER)
    assert report.clean
    assert report.differences == ()


def test_orders_that_the_ledger_does_not_know_block() -> None:
    stray = there(STOP, client_order_id="twx" + "f" * 32)
    manual = there(STOP, client_order_id="web_1")
    report = reconcile(replace(EXCHANGE, open_orders=[there(STOP), stray, manual]), LEDGER)
    assert {d.kind for d in report.differences} == {DifferenceKind.UNKNOWN_ORDER, DifferenceKind.FOREIGN_ORDER}
    assert not report.clean


def test_a_cancelled_stop_is_lost_and_its_position_bare() -> None:
    found = kinds(replace(EXCHANGE, open_orders=[]))
    assert found == {
        DifferenceKind.LOST_ORDER: STOP.client_order_id,
        DifferenceKind.UNPROTECTED_POSITION: "p1",
    }
    first = reconcile(replace(EXCHANGE, open_orders=[]), LEDGER).differences[0]
    assert first.consequence is Consequence.PROTECT  # the worst first


def test_what_nobody_knows_is_asked_for() -> None:
    unknown = replace(order("twx" + "2" * 32, role=OrderRole.EXIT), state=OrderState.UNKNOWN)
    found = reconcile(EXCHANGE, replace(LEDGER, orders=[*LEDGER.orders, unknown]))
    assert [(d.kind, d.consequence) for d in found.differences] == [(DifferenceKind.UNRESOLVED_ORDER, Consequence.ASK)]
    assert not found.clean


def test_what_the_exchange_knows_better_heals() -> None:
    moved = there(STOP, state=OrderState.PARTIAL, filled_quantity=D(0))
    assert DifferenceKind.ORDER_MOVED in kinds(replace(EXCHANGE, open_orders=[moved]))
    second = replace(BOUGHT, trade_id="2")
    report = reconcile(replace(EXCHANGE, fills=[BOUGHT, second]), LEDGER)
    assert [(d.kind, d.consequence) for d in report.differences] == [(DifferenceKind.MISSING_FILL, Consequence.HEAL)]


def test_a_person_sells_half_behind_our_back() -> None:
    sold = fill("5", is_buy=False, quantity="5", price="101", client_order_id="web_2")
    found = reconcile(
        replace(
            EXCHANGE,
            open_orders=[],
            fills=[BOUGHT, sold],
            balances={"SOL": balance("SOL", "6.99"), "USDT": balance("USDT", "4505")},
        ),
        LEDGER,
    )
    assert {d.kind for d in found.differences} == {
        DifferenceKind.FOREIGN_FILL,
        DifferenceKind.LOST_ORDER,
        DifferenceKind.UNPROTECTED_POSITION,
        DifferenceKind.BALANCE_DEFICIT,
        DifferenceKind.BALANCE_SURPLUS,
    }


def test_stops_for_more_than_is_held_would_sell_the_baseline() -> None:
    smaller = replace(LEDGER, positions=[position(quantity=D("5"))], asset_flows={**LEDGER.asset_flows, "SOL": D("5")})
    assert DifferenceKind.OVERPROTECTED_POSITION in kinds(EXCHANGE, smaller)


def test_stops_that_cover_dust_of_earlier_positions_too_sell_nobodys_coins() -> None:
    smaller = replace(LEDGER, positions=[position(quantity=D("9.98"))])  # the 0.01 is nobody's: it lies there as dust
    assert DifferenceKind.OVERPROTECTED_POSITION not in kinds(EXCHANGE, smaller)
    for somebodys in ({"baseline": {**LEDGER.baseline, "SOL": D("2.005")}}, {"asset_flows": {"SOL": D("9.985")}}):
        assert DifferenceKind.OVERPROTECTED_POSITION in kinds(EXCHANGE, replace(smaller, **somebodys))


def test_a_deposit_is_reported_and_blocks_nothing_a_withdrawal_blocks() -> None:
    more = replace(EXCHANGE, balances={**EXCHANGE.balances, "USDT": balance("USDT", "9000")})
    assert reconcile(more, LEDGER).clean
    assert DifferenceKind.BALANCE_SURPLUS in kinds(more)
    less = replace(EXCHANGE, balances={**EXCHANGE.balances, "USDT": balance("USDT", "3999.99")})
    assert not reconcile(less, LEDGER).clean
    assert reconcile(less, replace(LEDGER, tolerances={"USDT": D("0.01")})).clean


def test_assets_that_are_not_traded_are_not_compared() -> None:
    other = replace(EXCHANGE, balances={**EXCHANGE.balances, "DOGE": balance("DOGE", "1000")})
    assert reconcile(other, LEDGER).differences == ()
    moved = replace(LEDGER, baseline={**LEDGER.baseline, "DOGE": D(2000)})
    assert reconcile(other, moved).differences == (), "a person's own, which they may move"
    traded = replace(moved, assets=LEDGER.assets | {"DOGE"})
    assert DifferenceKind.BALANCE_DEFICIT in kinds(other, traded)


def test_what_an_exchange_rounds_is_no_difference() -> None:
    rounded = replace(EXCHANGE, balances={**EXCHANGE.balances, "USDT": balance("USDT", "3999.99999995")})
    assert reconcile(rounded, LEDGER).differences == ()
    missing = replace(EXCHANGE, balances={**EXCHANGE.balances, "USDT": balance("USDT", "3999.9999999")})
    assert not reconcile(missing, LEDGER).clean


def test_a_position_in_a_market_that_is_not_listed_blocks_and_the_others_are_compared() -> None:
    gone = position(position_id="p2", symbol="LUNA/USDT", quantity=D(3))
    lost = order("tws" + "3" * 32, symbol="LUNA/USDT", role=OrderRole.STOP, state=OrderState.WORKING, position_id="p2")
    ledger = replace(
        LEDGER,
        positions=[position(), gone],
        orders=[*LEDGER.orders, lost],
        asset_flows={**LEDGER.asset_flows, "LUNA": D(3)},
        assets=LEDGER.assets | {"LUNA"},
    )
    there_too = replace(EXCHANGE, balances={**EXCHANGE.balances, "LUNA": balance("LUNA", "3")})
    report = reconcile(there_too, ledger)
    assert [(d.kind, d.subject) for d in report.differences] == [(DifferenceKind.UNREADABLE_MARKET, "p2")]
    assert not report.clean
    bare = reconcile(replace(there_too, open_orders=[]), ledger)
    assert DifferenceKind.UNPROTECTED_POSITION in {d.kind for d in bare.differences}


def test_what_was_written_off_may_stay_or_go() -> None:
    ledger = replace(LEDGER, written_off={"SOL": D("9.99")}, positions=[], orders=[])
    quiet = replace(EXCHANGE, open_orders=[])
    for held in ("11.99", "5", "2"):
        still = replace(quiet, balances={**EXCHANGE.balances, "SOL": balance("SOL", held)})
        assert reconcile(still, ledger).differences == (), held
    less = reconcile(replace(quiet, balances={**EXCHANGE.balances, "SOL": balance("SOL", "1.5")}), ledger)
    (found,) = less.differences
    assert (found.kind, D(found.exchange) - D(found.ledger)) == (DifferenceKind.BALANCE_DEFICIT, D("-0.5"))
    more = reconcile(replace(quiet, balances={**EXCHANGE.balances, "SOL": balance("SOL", "12")}), ledger)
    (found,) = more.differences
    assert (found.kind, D(found.exchange) - D(found.ledger)) == (DifferenceKind.BALANCE_SURPLUS, D("0.01"))


def test_a_short_that_was_written_off_may_stay_or_go() -> None:
    ledger = replace(
        LEDGER, asset_flows={"SOL": D(-4), "USDT": D(-1000)}, written_off={"SOL": D(-4)}, positions=[], orders=[]
    )
    quiet = replace(EXCHANGE, open_orders=[])
    for held, kind in (("-2", None), ("2", None), ("2.5", DifferenceKind.BALANCE_SURPLUS)):
        found = reconcile(replace(quiet, balances={**EXCHANGE.balances, "SOL": balance("SOL", held)}), ledger)
        assert [d.kind for d in found.differences] == ([] if kind is None else [kind]), held


def test_a_closed_position_needs_no_stop() -> None:
    closed = replace(LEDGER, positions=[position(status=PositionStatus.DUST)])
    assert DifferenceKind.UNPROTECTED_POSITION not in kinds(replace(EXCHANGE, open_orders=[]), closed)


@given(st.randoms(), st.decimals("0", "100", places=3))
def test_the_report_does_not_depend_on_the_order_of_reading(random: object, baseline: D) -> None:
    orders = [there(STOP), there(STOP, client_order_id="web_1"), there(STOP, client_order_id="twx" + "a" * 32)]
    fills = [BOUGHT, replace(BOUGHT, trade_id="2"), replace(BOUGHT, trade_id="3", client_order_id="web")]
    first = reconcile(replace(EXCHANGE, open_orders=orders, fills=fills), LEDGER)
    random.shuffle(orders)  # type: ignore[attr-defined]
    random.shuffle(fills)  # type: ignore[attr-defined]
    assert reconcile(replace(EXCHANGE, open_orders=orders, fills=fills), LEDGER) == first
    # The baseline shifts what is expected by exactly itself.
    shifted = replace(LEDGER, baseline={"SOL": baseline, "USDT": D(5000)})
    assert expected_balance("SOL", shifted) == baseline + D("9.99")
