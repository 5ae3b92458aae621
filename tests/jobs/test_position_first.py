"""What fills prove to be ours comes before what the account held: the baseline shrinks first when coins are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.jobs.conftest import NOW_MS
from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.brackets import floor_to_step
from tradewind.core.types import Balance, Fill, OrderRole, OrderState, Position, PositionStatus
from tradewind.errors import ProtectionPending
from tradewind.jobs.accepting import adopt_purchase
from tradewind.jobs.leaving import shares
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.protection import converge_protection
from tradewind.jobs.safety import flatten, watch_risk_once
from tradewind.jobs.settling import Situation, price_of, refresh
from tradewind.jobs.trading import place_brackets

CLOSED = (PositionStatus.CLOSED, PositionStatus.DUST)


def enter(rig: Rig, symbol: str, notional: int = 2000) -> Position:
    intent = rig.decide(
        symbol, notional=Decimal(notional), stop_frac=Decimal("0.05"), target_frac=Decimal("0.3"), bar=rig.bar()
    )
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    return held(rig, intent.intent_id)


def held(rig: Rig, position_id: str) -> Position:
    found = rig.trading_store.position(position_id)
    assert found is not None
    return found


def want_stop(rig: Rig, position: Position, frac: str = "0.97") -> Decimal:
    with rig.trading_store.position_lock(position.position_id):
        stop = floor_to_step(rig.bid(position.symbol) * Decimal(frac), Decimal("0.01"))
        current = held(rig, position.position_id)
        rig.trading_store.save_position(replace(current, stop_price=stop), "stop_moved", rig.clock.now())
    return stop


def stops(rig: Rig) -> dict[Decimal, Decimal]:
    """Covered quantity by stop price."""
    found: dict[Decimal, Decimal] = {}
    for order in rig.exchange_orders():
        if order["type"] == "STOP_LOSS":
            price = Decimal(order["stopPrice"])
            found[price] = found.get(price, Decimal(0)) + Decimal(order["origQty"]) - Decimal(order["executedQty"])
    return found


def by_hand(rig: Rig, symbol: str, side: str, quantity: str, **more: Any) -> Any:
    order = {"symbol": symbol.replace("/", ""), "side": side, "type": "MARKET", "quantity": quantity} | more
    return rig.client.read("private_post_order", order)


def situation_of(rig: Rig, position: Position) -> Situation:
    instrument = rig.exchange.instruments([position.symbol])[position.symbol]
    return refresh(rig, position.position_id, instrument, price_of(rig, position.symbol))


class FeesInBnb(CcxtTrading):
    """The same account after it has paid so many BNB in fees of other markets' trades, which the ledger holds."""

    paid = Decimal(0)

    def balances(self) -> dict[str, Balance]:
        found = dict(super().balances())
        found["BNB"] = replace(found["BNB"], free=found["BNB"].free - self.paid)
        return found


def test_fees_in_bnb_come_off_the_baseline_and_not_off_a_bnb_position(postgres_url: str) -> None:
    with PaperServerProcess(symbols="BTC/USDT,BNB/USDT") as server:
        server.admin.set_clock(NOW_MS)
        account = server.create_account(USDT="100000", BNB="1")
        rig = Rig(server, postgres_url, account, symbols=("BTC/USDT", "BNB/USDT"))
        rig.exchange = FeesInBnb(rig.client, rig.account)
        rig.make_ready()
        rows = (
            Fill(
                "rig", "BTC/USDT", number, f"tw-old-{number}", number == "1", Decimal(1), Decimal(60000),
                Decimal("0.2"), "BNB", False, rig.clock.now(),
            )
            for number in ("1", "2")
        )  # fmt: skip
        rig.trading_store.insert_fills(list(rows))
        rig.exchange.paid = Decimal("0.4")
        rig.step()
        rig.make_ready()
        position = enter(rig, "BNB/USDT")
        whole = floor_to_step(position.quantity, Decimal("0.001"))
        stop = want_stop(rig, position)
        assert manage_positions(rig)["clean"]
        assert stops(rig) == {stop: whole}
        rig.admin.shock(-0.05, "BNB/USDT")
        watch_risk_once(rig)
        assert manage_positions(rig)["clean"]
        assert held(rig, position.position_id).status in CLOSED
        rig.close()


def test_a_person_who_sells_coins_of_their_own_takes_no_stop_away(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"USDT": "10000", "ETH": "2"})
    rig.make_ready()
    position = enter(rig, "ETH/USDT")
    whole = floor_to_step(position.quantity, Decimal("0.0001"))
    by_hand(rig, "ETH/USDT", "SELL", "1.9")
    stop = want_stop(rig, position)
    report = manage_positions(rig)
    assert "balance_deficit" in report["differences"], "a person must say what it was, and the stop stands meanwhile"
    assert stops(rig) == {stop: whole}
    flatten(rig, "a person")
    assert held(rig, position.position_id).status in CLOSED
    left = rig.holds("ETH") - held(rig, position.position_id).quantity
    assert left == Decimal("0.1"), "what is left of the person's own is still theirs"


def test_the_baseline_is_not_sold_for_an_exit_whose_fate_is_unknown(make_rig: Callable[..., Rig]) -> None:
    """The coins that are missing are that exit's, as long as nothing proves otherwise."""
    rig = make_rig({"USDT": "10000", "ETH": "2"})
    rig.make_ready()
    position = enter(rig, "ETH/USDT")
    store = rig.trading_store
    (stop,) = [order for order in store.orders_of(position.position_id) if order.role is OrderRole.STOP]
    exit_ = replace(
        stop, client_order_id="twx" + "0" * 32, role=OrderRole.EXIT, generation=7, order_type="MARKET", stop_price=None,
        list_client_id=None, state=OrderState.UNKNOWN, quantity=floor_to_step(position.quantity, Decimal("0.0001")),
    )  # fmt: skip
    situation = situation_of(rig, position)
    rig.exchange.cancel_list("ETH/USDT", str(stop.list_client_id), [stop])
    by_hand(rig, "ETH/USDT", "SELL", str(exit_.quantity))  # it arrived and was executed, and nobody knows
    doubtful = replace(situation, orders=(exit_,))
    share, _ = shares(rig, doubtful)
    assert share < Decimal("0.001"), "nothing but what it cannot have sold"
    assert shares(rig, replace(situation, orders=()))[0] == position.quantity


def test_a_stop_for_more_than_is_there_is_left_where_it_is(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"USDT": "10000", "ETH": "1"})
    rig.make_ready()
    position = enter(rig, "ETH/USDT")
    before = stops(rig)
    (price,) = before

    class Sharing(CcxtTrading):
        """An exchange on which a stop locks nothing until it fires: a person has sold or locked half of the coins."""

        def balances(self) -> dict[str, Balance]:
            found = dict(super().balances())
            found["ETH"] = Balance("ETH", position.quantity / 2, Decimal(0))
            return found

    rig.exchange = Sharing(rig.client, rig.account)
    want_stop(rig, position)
    with rig.trading_store.position_lock(position.position_id), pytest.raises(ProtectionPending, match="is left"):
        converge_protection(rig, situation_of(rig, position))
    assert stops(rig) == before
    rig.exchange = CcxtTrading(rig.client, rig.account)
    (moved,) = {want_stop(rig, position)}
    manage_positions(rig)
    assert stops(rig) == {moved: before[price]}


def test_two_positions_of_one_asset_share_its_coins_by_their_fills(make_rig: Callable[..., Rig]) -> None:
    """A person's purchase that was adopted stands beside the strategy's: neither takes the other's coins."""
    rig = make_rig({"USDT": "10000", "ETH": "1"})
    rig.make_ready()
    own = enter(rig, "ETH/USDT")
    by_hand(rig, "ETH/USDT", "BUY", "0.5")
    adopted = held(rig, adopt_purchase(rig, "ETH/USDT", Decimal("0.05"), "ann")["position_id"])
    by_hand(rig, "ETH/USDT", "SELL", "1")  # the whole baseline is sold, and none of theirs
    for position in (own, adopted):
        with rig.trading_store.position_lock(position.position_id):
            assert shares(rig, situation_of(rig, position))[0] == position.quantity
    before = sum(stops(rig).values())
    for position in (own, adopted):
        want_stop(rig, position)
    manage_positions(rig)
    assert len(stops(rig)) == 1
    assert sum(stops(rig).values()) == before
    flatten(rig, "a person")
    sold: dict[str, Decimal] = {}
    for position in (own, adopted):
        for fill in rig.trading_store.fills_of(position.position_id):
            if not fill.is_buy:
                sold[position.position_id] = sold.get(position.position_id, Decimal(0)) + fill.quantity
        assert held(rig, position.position_id).status in CLOSED
        assert sold[position.position_id] <= position.quantity
