"""Entries on okx, bybit (stop and target attached) and bitget (the stop follows), through the same jobs over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.attached import Bybit, Dialect, Okx, Venue
from tests.support.attached_bitget import Bitget
from tests.support.http_server import serving
from tests.support.trading import order as an_order
from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_bitget import CcxtBitgetTrading
from tradewind.adapters.ccxt_bybit import CcxtBybitTrading
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_okx import CcxtOkxTrading, okx_id, our_id
from tradewind.core.brackets import plan_entry
from tradewind.core.orders import ABSENCE_MARGIN_S, client_order_id
from tradewind.core.types import BracketSupport, Order, OrderRole, OrderState, PositionStatus
from tradewind.errors import InsufficientBalance
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import flatten, watch_risk_once
from tradewind.jobs.trading import place_brackets

D = Decimal
SYMBOL = "BTC/USDT"
ADAPTERS: dict[str, tuple[type[Dialect], Any]] = {
    "okx": (Okx, CcxtOkxTrading),
    "bybit": (Bybit, CcxtBybitTrading),
    "bitget": (Bitget, CcxtBitgetTrading),
}
ENTRIES = ("/trade/order", "/order/create", "/trade/place-order")
OVER = (PositionStatus.CLOSED, PositionStatus.DUST)


class AttachedRig(Rig):
    """A rig whose orders go to an exchange of another dialect, at the wall's time."""

    def at(self, name: str, url: str, dialect: Dialect) -> AttachedRig:
        self.name, self.dialect, self.venue = name, dialect, dialect.venue
        self.clock = self.wall  # type: ignore[assignment]
        config = ClientConfig(
            exchange_id=name, base_url=url, api_key="key", api_secret="c2VjcmV0", api_passphrase="phrase",
            weight_per_minute=0.0, symbols=(SYMBOL,), timeout_s=5.0,
        )  # fmt: skip
        self.client = CcxtClient(config)
        self.market_data = CcxtMarketData(self.client)
        self.exchange = ADAPTERS[name][1](self.client, self.account, self.trading_store.orders_by_exchange_id)
        return self

    @property
    def guards(self) -> list[Any]:
        return self.venue.by(lambda order: order.is_guard and order.state == "open")

    def enter(self) -> str:
        self.make_ready()
        intent = self.decide(stop_frac=D("0.02"), target_frac=D("0.04"))
        result = place_brackets(self, intent.intent_id)
        assert result["outcome"] == "filled", result
        return intent.intent_id

    def want_stop(self, position_id: str, price: str) -> None:
        with self.trading_store.position_lock(position_id) as held:
            position = self.trading_store.position(position_id)
            assert held
            assert position is not None
            moved = replace(position, stop_price=D(price))
            self.trading_store.save_position(moved, "stop_moved", self.clock.now())

    def position(self, position_id: str) -> Any:
        return self.trading_store.position(position_id)


# Stop and target go with the entry, or a stop follows its fill.
ATTACHING, FOLLOWING = ("bybit", "okx"), ("bitget",)


@pytest.fixture(params=sorted(ADAPTERS))
def rig(request: pytest.FixtureRequest, make_rig: Callable[..., Rig], postgres_url: str) -> Iterator[AttachedRig]:
    base = make_rig(symbols=(SYMBOL,))
    venue = Venue(USDT="10000")
    venue.now_ms = lambda: int(time.time() * 1000)
    dialect = ADAPTERS[request.param][0](venue)
    with serving(dialect) as (url, _):
        made = AttachedRig(base.server, postgres_url, base.paper_account, symbols=(SYMBOL,))
        yield made.at(request.param, url, dialect)
        made.close()


@pytest.mark.parametrize("rig", ATTACHING, indirect=True)
def test_stop_and_target_come_with_the_fill(rig: AttachedRig) -> None:
    position_id = rig.enter()
    held = rig.position(position_id)
    assert held.status is PositionStatus.OPEN
    (guard,) = rig.guards
    assert (guard.stop, guard.target, guard.quantity) == (held.stop_price, held.target_price, guard.quantity)
    assert rig.trading_store.unprotected_spans(position_id) == []
    stop, target = (
        next(o for o in rig.trading_store.orders_of(position_id) if o.role is role)
        for role in (OrderRole.STOP, OrderRole.TARGET)
    )
    assert (stop.state, target.state) == (OrderState.WORKING, OrderState.WORKING)
    sent = [body for path, body in rig.dialect.seen if path.endswith(ENTRIES)]
    assert len(sent) == 1, "one request carries all three"
    result = manage_positions(rig)
    assert result["clean"], result
    rig.assert_agrees()


@pytest.mark.parametrize("rig", FOLLOWING, indirect=True)
def test_a_stop_that_follows_is_there_at_once(rig: AttachedRig) -> None:
    position_id = rig.enter()
    held = rig.position(position_id)
    assert held.status is PositionStatus.OPEN
    (guard,) = rig.guards
    assert (guard.stop, guard.target) == (held.stop_price, None)
    assert [(o.role, o.state) for o in rig.trading_store.orders_of(position_id)] == [
        (OrderRole.ENTRY, OrderState.FILLED),
        (OrderRole.STOP, OrderState.WORKING),
    ]
    (span,) = rig.trading_store.unprotected_spans(position_id)
    assert span.seconds is not None
    names = [(path.rpartition("/")[2], body["clientOid"][:3]) for path, body in rig.dialect.seen]
    assert names == [("place-order", "twe"), ("place-plan-order", "tws")]
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_the_entry_is_what_ccxts_own_create_order_makes(rig: AttachedRig) -> None:
    intent = rig.decide(stop_frac=D("0.02"), target_frac=D("0.04"))
    instrument = rig.exchange.instruments([SYMBOL])[SYMBOL]
    is_attached = rig.name != "bitget"
    assert instrument.bracket is (BracketSupport.ATTACHED if is_attached else BracketSupport.EMULATED)
    (legs,) = plan_entry(intent, instrument, rig.clock.now())
    entry = legs.entry
    request = rig.exchange._entry_request(legs) if is_attached else rig.exchange._order_request(entry)  # type: ignore[attr-defined]
    ours = request[1]
    triggers = {
        "stopLoss": {"triggerPrice": float(legs.stop.stop_price or 0)},
        "takeProfit": {"triggerPrice": float(legs.target.price or 0)},
    }
    theirs = rig.client.exchange.create_order_request(
        SYMBOL, "limit", "buy", float(entry.quantity), float(entry.price or 0),
        {
            "clientOrderId": okx_id(entry.client_order_id) if rig.name == "okx" else entry.client_order_id,
            "timeInForce": "FOK",
            **(triggers if is_attached else {}),
        },
    )  # fmt: skip
    if "force" in theirs:
        theirs["force"] = theirs["force"].lower()  # as bitget's documentation writes it
    for pair in ours.get("attachAlgoOrds", ()):
        assert our_id(pair.pop("attachAlgoClOrdId")) == legs.list_client_id  # ccxt has no unified name for it
    assert _numbers(ours) == _numbers(theirs)


def _numbers(value: Any) -> Any:
    """The same with numbers in texts compared as numbers: 2000.10 is 2000.1."""
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    try:
        return D(str(value))
    except ArithmeticError:
        return value


def test_a_moved_stop_replaces_what_came_with_the_entry(rig: AttachedRig) -> None:
    position_id = rig.enter()
    rig.want_stop(position_id, "49500.0")
    result = manage_positions(rig)
    assert result["clean"], result
    (guard,) = rig.guards
    assert guard.stop == D("49500.0")
    # okx holds a pair, the others the stop alone.
    assert guard.target == (rig.position(position_id).target_price if rig.name == "okx" else None)
    rig.want_stop(position_id, "49600.0")
    assert manage_positions(rig)["clean"]
    (guard,) = rig.guards
    assert guard.stop == D("49600.0")
    assert all(span.seconds is not None for span in rig.trading_store.unprotected_spans(position_id))
    rig.assert_agrees()


@pytest.mark.parametrize("moved", [False, True], ids=["attached", "replaced"])
@pytest.mark.parametrize("price", ["48000", "53000"], ids=["stop", "target"])
def test_what_triggers_closes_the_position(rig: AttachedRig, moved: bool, price: str) -> None:
    position_id = rig.enter()
    if moved:
        rig.want_stop(position_id, "49500.0")
        manage_positions(rig)
    rig.venue.move(price)
    result = manage_positions(rig)
    assert result["clean"], result
    closed = rig.position(position_id)
    assert closed.status in OVER
    assert closed.exit_reason == ("stop" if price == "48000" else "target")
    assert rig.guards == []
    rig.assert_agrees()


def test_a_watched_target_is_taken_by_the_watch(rig: AttachedRig) -> None:
    position_id = rig.enter()
    rig.want_stop(position_id, "49500.0")
    manage_positions(rig)
    rig.venue.move("53000")
    watch_risk_once(rig)
    # okx sells by itself, which the minute's look may be the first to see.
    assert rig.position(position_id).status in OVER or rig.name == "okx"
    assert manage_positions(rig)["clean"]
    assert rig.position(position_id).exit_reason == "target"


def test_what_the_exchange_did_not_attach_is_protected_at_once(rig: AttachedRig) -> None:
    rig.venue.attaches = False
    rig.params = replace(rig.params, protection_deadline_s=1.0)
    position_id = rig.enter()
    (guard,) = rig.guards
    assert guard.stop == rig.position(position_id).stop_price
    (span,) = rig.trading_store.unprotected_spans(position_id)
    assert span.seconds is not None
    # The legs that never came are proven absent once no request of theirs can arrive any more.
    wait_s = rig.exchange.recv_window_s + ABSENCE_MARGIN_S + 1
    rig.database.execute("UPDATE orders SET sent_at = sent_at - %s * interval '1 second'", (wait_s,))
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_an_answer_that_is_lost_is_looked_up_and_not_sent_again(rig: AttachedRig) -> None:
    rig.make_ready()
    intent = rig.decide(stop_frac=D("0.02"), target_frac=D("0.04"))
    spot = "/api/v2/spot/trade"
    rig.venue.losing = {"/api/v5/trade/order", "/v5/order/create", f"{spot}/place-order", f"{spot}/place-plan-order"}
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    place_brackets(rig, intent.intent_id)
    bought = rig.venue.by(lambda order: order.is_buy)
    assert [order.quantity for order in bought] == [intent.quantity]
    assert len(rig.guards) == 1
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_an_entry_that_cannot_fill_whole_leaves_nothing(rig: AttachedRig) -> None:
    rig.make_ready()
    intent = rig.decide(stop_frac=D("0.02"), target_frac=D("0.04"))
    rig.venue.move("50500")
    assert place_brackets(rig, intent.intent_id)["outcome"] == "cancelled"
    assert rig.guards == []
    assert manage_positions(rig)["clean"]
    assert rig.position(intent.intent_id).status in OVER
    rig.assert_agrees()


def _sale(quantity: str, number: int) -> Order:
    return an_order(
        client_order_id("rig", "v", SYMBOL, datetime(2024, 3, 5, tzinfo=UTC), 0, OrderRole.EXIT, number),
        symbol=SYMBOL, role=OrderRole.EXIT, is_buy=False, order_type="MARKET", quantity=D(quantity), price=None,
        stop_price=None, list_client_id=None, state=OrderState.SENT, filled_quantity=D(0),
    )  # fmt: skip


def test_a_refusal_is_a_refusal_under_whatever_status(rig: AttachedRig) -> None:
    with pytest.raises(InsufficientBalance):
        rig.exchange.send_order(_sale("1", 1), rig.exchange.instruments([SYMBOL])[SYMBOL])


def test_what_is_there_already_is_looked_up(rig: AttachedRig) -> None:
    rig.venue.balances["BTC"] = D(1)
    instrument = rig.exchange.instruments([SYMBOL])[SYMBOL]
    first, again = (rig.exchange.send_order(_sale("0.5", 2), instrument) for _ in range(2))
    assert again.exchange_order_id == first.exchange_order_id
    assert rig.venue.balances["BTC"] == D("0.5")


def test_executions_are_found_however_long_ago_the_question_begins(rig: AttachedRig) -> None:
    position_id = rig.enter()
    since = rig.clock.now() - timedelta(days=30)
    fills = rig.exchange.fills_since(SYMBOL, since)
    assert [fill.trade_id for fill in fills] == [fill.trade_id for fill in rig.trading_store.fills_of(position_id)]


@pytest.mark.parametrize("rig", FOLLOWING, indirect=True)
def test_a_stop_placed_under_a_price_that_fell_through_it_is_a_market_exit(
    rig: AttachedRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(rig.dialect, Bitget)
    place = rig.dialect.spot_trade_place_plan_order

    def fallen(query: Any) -> Any:
        rig.venue.price = D("48000")
        return place(query)

    monkeypatch.setattr(rig.dialect, "spot_trade_place_plan_order", fallen)
    position_id = rig.enter()
    assert rig.guards == []
    assert rig.position(position_id).status in OVER
    assert [fill.price for fill in rig.trading_store.fills_of(position_id)] == [D("50000"), D("48000")]
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_flatten_cancels_and_sells(rig: AttachedRig) -> None:
    position_id = rig.enter()
    assert flatten(rig, "tester")["flat"]
    assert rig.guards == []
    assert rig.position(position_id).status in OVER
    assert rig.venue.balances["BTC"] < D("0.00002")
    rig.assert_agrees()


def test_ids_at_okx_are_ours_written_shorter() -> None:
    for ours in ("twe" + "0" * 32, "twl" + "f" * 32, "tws0123456789abcdef0123456789abcdef"):
        assert len(okx_id(ours)) <= 32
        assert okx_id(ours).isalnum()
        assert our_id(okx_id(ours)) == ours
    assert our_id("somebody") == "somebody"
