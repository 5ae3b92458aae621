"""bitget's orders over HTTP: stops found in its two lists, what they sold, what may and may not be concluded."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.support.attached import Venue
from tests.support.attached_bitget import Bitget
from tests.support.http_server import Request, serving
from tests.support.trading import order as an_order
from tradewind.adapters import ccxt_bitget
from tradewind.adapters.ccxt_bitget import CcxtBitgetTrading
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.core.orders import client_order_id
from tradewind.core.types import BracketSupport, Order, OrderRole, OrderState
from tradewind.errors import (
    ExchangeUnreachable,
    InsufficientBalance,
    NotSupported,
    OrderRejected,
    OutcomeUnknown,
)

D = Decimal
SYMBOL = "BTC/USDT"
BAR = datetime(2026, 3, 5, tzinfo=UTC)


def no_ledger(_: str, __: Sequence[str]) -> Mapping[str, str]:
    return {}


class Here:
    """One account at a bitget of our own."""

    def __init__(self, url: str, venue: Venue, seen: list[Request]) -> None:
        self.url, self.venue, self.seen = url, venue, seen
        self.exchange = self.another()
        self.instrument = self.exchange.instruments([SYMBOL])[SYMBOL]

    def another(self) -> CcxtBitgetTrading:
        """As another process sees it: nothing is remembered."""
        config = ClientConfig(
            exchange_id="bitget", base_url=self.url, api_key="key", api_secret="secret", api_passphrase="phrase",
            weight_per_minute=0.0, symbols=(SYMBOL,), timeout_s=5.0,
        )  # fmt: skip
        return CcxtBitgetTrading(CcxtClient(config), "rig", no_ledger)

    def guard(self, order: Order) -> object:
        return next(o for o in self.venue.orders if o.client_id == order.client_order_id)


@pytest.fixture
def here() -> Iterator[Here]:
    venue = Venue(USDT="10000", BTC="1")
    venue.now_ms = lambda: int(time.time() * 1000)
    with serving(Bitget(venue)) as (url, seen):
        yield Here(url, venue, seen)


def an(role: OrderRole, generation: int = 0, *, price: str | None = None, stop: str | None = None) -> Order:
    now = datetime.now(UTC)
    return an_order(
        client_order_id("rig", "v", SYMBOL, BAR, 0, role, generation), symbol=SYMBOL, role=role,
        is_buy=role is OrderRole.ENTRY, order_type="MARKET", quantity=D("0.1"),
        price=None if price is None else D(price), stop_price=None if stop is None else D(stop), list_client_id=None,
        state=OrderState.SENT, filled_quantity=D(0), exchange_order_id=None, planned_at=now, sent_at=now,
    )  # fmt: skip


def test_rules_say_what_is_honest(here: Here) -> None:
    """ccxt's table promises attached stops; none is used, and no target rests."""
    assert (here.instrument.bracket, here.instrument.target_rests) == (BracketSupport.EMULATED, False)
    stop, target = an(OrderRole.STOP, stop="49000"), an(OrderRole.TARGET, price="52000")
    with pytest.raises(NotSupported, match="alone"):
        here.exchange.send_protection(stop, target, here.instrument)
    with pytest.raises(NotSupported, match="quote"):
        here.exchange.send_order(replace(an(OrderRole.EXIT), is_buy=True), here.instrument)


def test_requests_are_signed_with_the_passphrase(here: Here) -> None:
    here.exchange.balances()
    asked = here.seen[-1]
    headers = {name.lower(): value for name, value in asked.headers.items()}
    text = f"{headers['access-timestamp']}GET{asked.path}"
    digest = hmac.new(b"secret", text.encode(), hashlib.sha256).digest()
    assert headers["access-sign"] == base64.b64encode(digest).decode()
    assert headers["access-passphrase"] == "phrase"


def test_an_entry_fills_whole_or_not_at_all(here: Here) -> None:
    low, high = an(OrderRole.ENTRY, 1, price="49000"), an(OrderRole.ENTRY, 2, price="50100")
    missed = here.exchange.send_order(low, here.instrument)
    assert (missed.state, missed.filled_quantity) == (OrderState.CANCELLED, 0)
    assert here.exchange.send_order(high, here.instrument).state is OrderState.FILLED
    assert here.another().find_order(SYMBOL, an(OrderRole.ENTRY, 3).client_order_id) is None


@pytest.mark.parametrize("code", ["40010", "40015", "40725", "45001"])
def test_a_system_in_trouble_has_refused_nothing(here: Here, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(Bitget, "spot_trade_place_order", lambda *_: (code, "System is abnormal", None))
    with pytest.raises(OutcomeUnknown):
        here.exchange.send_order(an(OrderRole.EXIT), here.instrument)


def test_a_stop_that_cannot_be_seen_is_unknown(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.venue.losing = {"/api/v2/spot/trade/place-plan-order"}
    monkeypatch.setattr(Bitget, "_plans", lambda *_: {"nextFlag": False, "idLessThan": "", "orderList": []})
    with pytest.raises(OutcomeUnknown):
        here.exchange.send_order(an(OrderRole.STOP, stop="49000"), here.instrument)


def test_a_refusal_is_certain(here: Here) -> None:
    with pytest.raises(InsufficientBalance):
        here.exchange.send_order(replace(an(OrderRole.EXIT), quantity=D(2)), here.instrument)
    assert here.venue.fills == []


def test_a_stop_is_found_by_our_id_wherever_it_is(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = [an(OrderRole.STOP, number, stop="49000") for number in range(5)]
    for stop in stops:
        assert here.exchange.send_order(stop, here.instrument).state is OrderState.WORKING
    monkeypatch.setattr("tradewind.adapters.ccxt_bitget_plans.PAGE", 2)
    ids = {order.client_order_id for order in here.another().open_orders([SYMBOL])}
    assert ids == {stop.client_order_id for stop in stops}
    for stop in stops:
        assert here.exchange.cancel_order(SYMBOL, stop.client_order_id).state is OrderState.CANCELLED
        # Over already: reported as it ended, also by a process that has never seen it.
        assert here.another().cancel_order(SYMBOL, stop.client_order_id).state is OrderState.CANCELLED
    assert here.another().find_order(SYMBOL, stops[0].client_order_id, stops[0]).state is OrderState.CANCELLED  # type: ignore[union-attr]


def test_absent_is_what_no_list_has_and_nobody_has_seen(here: Here) -> None:
    stop = an(OrderRole.STOP, stop="49000")
    assert here.exchange.find_order(SYMBOL, stop.client_order_id, stop) is None
    with pytest.raises(OrderRejected):
        here.exchange.cancel_order(SYMBOL, stop.client_order_id)
    report = here.exchange.send_order(stop, here.instrument)
    here.venue.orders.remove(here.guard(stop))  # type: ignore[arg-type]
    with pytest.raises(ExchangeUnreachable, match="between"):
        here.exchange.find_order(SYMBOL, stop.client_order_id)
    with pytest.raises(ExchangeUnreachable, match="between"):
        here.another().find_order(
            SYMBOL, stop.client_order_id, replace(stop, exchange_order_id=report.exchange_order_id)
        )


def test_a_triggered_stop_tells_what_was_sold_and_owns_its_execution(here: Here) -> None:
    stop = an(OrderRole.STOP, stop="49000")
    here.exchange.send_order(stop, here.instrument)
    here.venue.move("48900")
    other = here.another()
    report = other.find_order(SYMBOL, stop.client_order_id, stop)
    assert report is not None
    assert (report.state, report.filled_quantity, report.stop_price) == (OrderState.FILLED, D("0.1"), D("49000"))
    (fill,) = here.another().fills_since(SYMBOL, datetime.now(UTC) - timedelta(days=200))
    assert (fill.client_order_id, fill.price, fill.fee_asset) == (stop.client_order_id, D("48900"), "USDT")
    assert fill.fee == D("4.89")


def test_a_sale_is_nobodys_only_once_no_stop_can_be_behind_it(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """The execution may be told before the plan order that made it is seen to have been triggered."""
    stop = an(OrderRole.STOP, stop="49000")
    here.exchange.send_order(stop, here.instrument)
    here.venue.move("48900")
    guard = here.guard(stop)
    monkeypatch.setattr(guard, "state", "open")
    since = datetime.now(UTC) - timedelta(hours=1)
    with pytest.raises(ExchangeUnreachable, match="who placed"):
        here.exchange.fills_since(SYMBOL, since)
    monkeypatch.setattr(guard, "state", "filled")
    assert here.exchange.fills_since(SYMBOL, since)[0].client_order_id == stop.client_order_id
    monkeypatch.setattr(guard, "client_id", "a-persons")
    monkeypatch.setattr(ccxt_bitget, "_LINKED_MS", -60_000)
    (fill,) = here.another().fills_since(SYMBOL, since)
    assert not fill.client_order_id.startswith("tw")


@pytest.mark.parametrize(
    ("status", "state"), [("fail_execute", OrderState.EXPIRED), ("fail_trigger", OrderState.EXPIRED)]
)
def test_a_stop_that_failed_is_over_and_protects_nothing(here: Here, status: str, state: OrderState) -> None:
    stop = an(OrderRole.STOP, stop="49000")
    here.exchange.send_order(stop, here.instrument)
    here.guard(stop).state = status  # type: ignore[attr-defined]
    report = here.exchange.find_order(SYMBOL, stop.client_order_id, stop)
    assert report is not None
    assert (report.state, report.filled_quantity) == (state, 0)


def test_a_status_that_is_new_makes_the_order_unknown(here: Here) -> None:
    stop = an(OrderRole.STOP, stop="49000")
    here.exchange.send_order(stop, here.instrument)
    here.guard(stop).state = "paused"  # type: ignore[attr-defined]
    found = here.exchange.find_order(SYMBOL, stop.client_order_id, stop)
    assert found is not None
    assert (found.state, found.filled_quantity) == (OrderState.UNKNOWN, 0)


@pytest.mark.parametrize("lost", [set(), {"/api/v2/spot/trade/place-plan-order"}], ids=["answered", "answer lost"])
def test_a_stop_that_the_price_fell_through_does_not_stay(here: Here, lost: set[str]) -> None:
    """A plan order names no direction: it might wait for a rise."""
    stop = an(OrderRole.STOP, stop="49000")
    here.venue.move("48900")
    here.venue.losing = lost
    report = here.exchange.send_order(stop, here.instrument)
    assert (report.state, report.filled_quantity) == (OrderState.CANCELLED, 0)
    assert here.exchange.open_orders([SYMBOL]) == []
