"""What rests at the exchange is brought to what the ledger wants, whatever gets in the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from urllib.parse import urlsplit

import pytest

from tests.jobs.conftest import NOW_MS
from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.brackets import floor_to_step
from tradewind.core.types import (
    BracketSupport,
    ExchangeOrder,
    Instrument,
    Order,
    OrderRole,
    OrderState,
    Position,
    PositionStatus,
)
from tradewind.errors import OrderRejected
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import flatten, resume, watch_risk_once
from tradewind.jobs.tending import protect_naked
from tradewind.jobs.trading import place_brackets

WIDE = {"stop_frac": Decimal("0.3"), "target_frac": Decimal("0.3")}
OVER = (PositionStatus.CLOSED, PositionStatus.DUST)


class WithoutBrackets(CcxtTrading):
    """The same exchange, listing no native brackets."""

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        found = super().instruments(symbols)
        return {symbol: replace(rules, bracket=BracketSupport.EMULATED) for symbol, rules in found.items()}


def enter(rig: Rig, **options: object) -> Position:
    rig.step()  # a bar of its own, whose volume no other position of the test has used up
    rig.make_ready()
    intent = rig.decide(stop_frac=Decimal("0.05"), target_frac=Decimal("0.05"), **options)  # type: ignore[arg-type]
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    position = rig.trading_store.position(intent.intent_id)
    assert position is not None
    return position


def want_stop(rig: Rig, position: Position, frac: str) -> Decimal:
    """What the bar rule leaves behind: a wanted stop at a fraction of the bid."""
    store = rig.trading_store
    with store.position_lock(position.position_id):
        current = store.position(position.position_id)
        assert current is not None
        stop = floor_to_step(rig.bid() * Decimal(frac), Decimal("0.01"))
        store.save_position(replace(current, stop_price=stop), "stop_moved", rig.clock.now())
    return stop


def after(rig: Rig, position: Position) -> Position:
    found = rig.trading_store.position(position.position_id)
    assert found is not None
    return found


def resting_stops(rig: Rig) -> list[Decimal]:
    return [Decimal(order["stopPrice"]) for order in rig.exchange_orders() if order["type"] == "STOP_LOSS"]


@pytest.mark.parametrize("two_lots", [False, True])
def test_emulated_bracket_is_protected_after_its_fill(make_rig: Callable[..., Rig], two_lots: bool) -> None:
    rig = make_rig()
    rig.exchange = WithoutBrackets(rig.client, rig.account)
    position = enter(rig, two_lots=two_lots)
    assert resting_stops(rig) == [position.stop_price] * (2 if two_lots else 1)
    intent = rig.trading_store.intent(position.position_id)
    targets = sorted(Decimal(o["price"]) for o in rig.exchange_orders() if o["type"] == "LIMIT_MAKER")
    assert targets == sorted(lot.target_price for lot in intent.lots)
    spans = [span.seconds for span in rig.trading_store.unprotected_spans(position.position_id)]
    assert None not in spans
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_stop_is_moved_in_both_lots(rig: Rig) -> None:
    position = enter(rig, two_lots=True)
    stop = want_stop(rig, position, "0.97")
    manage_positions(rig)
    assert resting_stops(rig) == [stop, stop]
    manage_positions(rig)
    assert resting_stops(rig) == [stop, stop]
    generations = {order.generation for order in rig.trading_store.orders_of(position.position_id)}
    assert generations == {0, 1}, "what rests as wanted is left alone"


class CoarserTick(CcxtTrading):
    """The exchange has made the tick coarser, as it does with dozens of markets a year: what rests stays."""

    tick = Decimal("0.1")
    is_known = True
    refusals = 0

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        found = super().instruments(symbols)
        # What a process has read is read again after a refusal by such a rule.
        known = self.is_known or self.refusals
        return {symbol: replace(rules, tick_size=self.tick) if known else rules for symbol, rules in found.items()}

    def send_protection(self, stop: Order, target: Order, instrument: Instrument) -> list[ExchangeOrder]:
        assert stop.stop_price is not None
        assert target.price is not None
        if stop.stop_price % self.tick or target.price % self.tick:
            self.refusals += 1
            raise OrderRejected("Filter failure: PRICE_FILTER", -1013)
        return super().send_protection(stop, target, instrument)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_coarser_tick_moves_a_stop_and_sells_nothing(rig: Rig, is_known: bool) -> None:
    position = enter(rig)
    rig.exchange = changed = CoarserTick(rig.client, rig.account)
    changed.is_known = is_known
    assert manage_positions(rig)["clean"]
    assert resting_stops(rig) == [position.stop_price], "what rests on the old tick is left"
    want_stop(rig, position, "0.98")
    assert manage_positions(rig)["clean"]
    (stop,) = resting_stops(rig)
    wanted = after(rig, position).stop_price
    assert 0 <= stop - wanted < changed.tick
    assert stop % changed.tick == 0
    assert changed.refusals == (0 if is_known else 1)
    rows = rig.trading_store.orders_of(position.position_id)
    assert [order for order in rows if order.role is OrderRole.EXIT] == []
    generations = {order.generation for order in rows}
    assert manage_positions(rig)["clean"]
    assert {order.generation for order in rig.trading_store.orders_of(position.position_id)} == generations
    rig.assert_agrees()


def test_legs_that_the_exchange_sized_with_dust_of_ours_are_left_alone(postgres_url: str) -> None:
    """OPOCO takes the commission from free coins where they suffice: the legs are then for more than the entry left."""
    with PaperServerProcess(symbols="BTC/USDT,XRP/USDT") as server:
        server.admin.set_clock(NOW_MS)
        rig = Rig(server, postgres_url, server.create_account(USDT="10000"), symbols=("BTC/USDT", "XRP/USDT"))
        rules = rig.exchange.instruments(["XRP/USDT"])["XRP/USDT"]
        assert rules.bracket is BracketSupport.OPOCO
        for notional in (900, 20):  # the first one's dust pays the second one's commission
            rig.step()
            rig.make_ready()
            intent = rig.decide("XRP/USDT", notional=Decimal(notional), **WIDE)
            assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
            if notional == 900:
                flatten(rig, "tester")
                resume(rig, "tester")
                left = rig.holds("XRP")
        position = rig.trading_store.position(intent.intent_id)
        assert position is not None
        assert left >= intent.quantity - position.quantity > 0, "the case that this is about"
        (stop,) = [order for order in rig.exchange_orders() if order["type"] == "STOP_LOSS"]
        assert Decimal(stop["origQty"]) == intent.quantity > position.quantity
        assert manage_positions(rig)["clean"]
        generations = {order.generation for order in rig.trading_store.orders_of(position.position_id)}
        assert generations == {0}, "nothing was cancelled and placed anew"
        assert rig.trading_store.unprotected_spans(position.position_id) == []
        assert flatten(rig, "tester")["flat"]
        rig.assert_agrees()
        rig.close()


def test_a_stop_that_the_price_is_through_is_a_market_exit(rig: Rig) -> None:
    position = enter(rig)
    want_stop(rig, position, "1.01")
    manage_positions(rig)
    assert after(rig, position).status in OVER
    assert rig.exchange_orders() == []
    rig.assert_agrees()


def test_what_a_thin_book_leaves_of_an_exit_is_protected_again(rig: Rig) -> None:
    position = enter(rig)
    want_stop(rig, position, "0.97")
    rig.admin.add_fault("rate_limited", method="POST", path="/api/v3/orderList/oco", retry_after_s=1, times=1)
    rig.admin.add_fault("partial_fill", path="*", frac=0.3)
    manage_positions(rig)
    rig.admin.clear_faults()
    found = after(rig, position)
    assert found.status in OVER or resting_stops(rig) == [found.stop_price]
    assert [span.seconds is not None for span in rig.trading_store.unprotected_spans(position.position_id)]
    rig.assert_agrees()


def test_protection_without_an_answer_is_looked_up(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(timeout_s=0.5)
    position = enter(rig)
    stop = want_stop(rig, position, "0.97")
    rig.admin.add_fault("drop_after", method="POST", path="/api/v3/orderList/oco", times=1)
    manage_positions(rig)
    assert resting_stops(rig) == [stop]
    assert after(rig, position).status is PositionStatus.OPEN
    rig.assert_agrees()


def test_protection_that_never_arrived_is_a_market_exit_in_time(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(timeout_s=0.5)
    position = enter(rig)
    want_stop(rig, position, "0.97")
    rig.admin.add_fault("refuse", method="POST", path="/api/v3/orderList/oco", times=1)
    manage_positions(rig)
    assert after(rig, position).quantity < Decimal("0.00001")
    assert after(rig, position).status is PositionStatus.OPEN, "the pair may still arrive: nothing is concluded yet"
    rig.database.execute("UPDATE orders SET sent_at = sent_at - interval '60 seconds' WHERE state = 'unknown'")
    assert manage_positions(rig)["clean"]
    assert after(rig, position).exit_reason == "unprotected"
    assert after(rig, position).status in OVER
    (span,) = rig.trading_store.unprotected_spans(position.position_id)
    assert span.seconds is not None
    rig.assert_agrees()


def test_cancellation_without_an_answer_leaves_no_doubt(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(timeout_s=0.5)
    position = enter(rig)
    stop = want_stop(rig, position, "0.97")
    rig.admin.add_fault("drop_after", method="DELETE", path="/api/v3/orderList", times=1)
    manage_positions(rig)
    assert resting_stops(rig) == [stop]
    rig.assert_agrees()


def test_a_replacement_sends_nothing_between_the_cancel_and_the_new_pair(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time without a stop is that of two requests, however slow the line is."""
    position = enter(rig)
    sent: list[str] = []
    fetch = rig.client.exchange.fetch

    def recording(url: str, method: str = "GET", headers: object = None, body: object = None) -> object:
        sent.append(f"{method} {urlsplit(url).path}")
        return fetch(url, method, headers, body)

    monkeypatch.setattr(rig.client.exchange, "fetch", recording)
    rig.admin.add_fault("delay", method="*", path="/api/v3/*", seconds=0.3)
    for frac in ("0.96", "0.97", "0.98"):
        sent.clear()
        stop = want_stop(rig, position, frac)
        manage_positions(rig)
        assert resting_stops(rig) == [stop]
        cancel = sent.index("DELETE /api/v3/orderList")
        assert sent[cancel + 1] == "POST /api/v3/orderList/oco"
    spans = [span.seconds for span in rig.trading_store.unprotected_spans(position.position_id)]
    assert len(spans) == 3
    assert None not in spans


def test_a_target_that_was_filled_in_part_keeps_its_rest_protected(rig: Rig) -> None:
    position = enter(rig, two_lots=True)
    rig.admin.shock(0.06, "BTC/USDT")
    rig.admin.add_fault("partial_fill", frac=0.4, path="*")
    rig.step()
    rig.admin.clear_faults()
    manage_positions(rig)
    found = after(rig, position)
    held = sum(resting_quantities(rig), Decimal(0))
    assert found.status in OVER or 0 <= found.quantity - held < Decimal("0.00002")
    rig.assert_agrees()


def resting_quantities(rig: Rig) -> list[Decimal]:
    stops = [order for order in rig.exchange_orders() if order["type"] == "STOP_LOSS"]
    return [Decimal(order["origQty"]) - Decimal(order["executedQty"]) for order in stops]


def test_stops_left_behind_by_a_closed_position_are_cancelled(rig: Rig) -> None:
    """A person sells the position and the ledger follows: nothing of ours may rest on, it would sell other coins."""
    position = enter(rig)
    (stop,) = [o for o in rig.trading_store.orders_of(position.position_id) if o.role is OrderRole.STOP]
    for order in rig.exchange_orders():
        if order["type"] == "STOP_LOSS":
            rig.exchange.cancel_order("BTC/USDT", order["clientOrderId"])
    everything = floor_to_step(rig.holds("BTC"), Decimal("0.00001"))
    sale = {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": str(everything)}
    rig.client.send("private_post_order", sale, client_order_id="")
    assert manage_positions(rig)["clean"]
    found = after(rig, position)
    assert (found.status in OVER, found.exit_reason) == (True, "sold_by_hand")
    assert rig.exchange_orders() == []
    row = rig.trading_store.order(stop.client_order_id)
    assert row is not None
    assert row.state is OrderState.CANCELLED
    rig.assert_agrees()


def test_the_watch_protects_a_fill_whose_task_was_killed(make_rig: Callable[..., Rig]) -> None:
    """Without native brackets a kill right after the entry leaves it bare: the next look of the watch is its end."""
    rig = make_rig()

    def emulated(made: Rig) -> Rig:
        made.exchange = WithoutBrackets(made.client, made.account)
        return made

    emulated(rig).step()
    rig.make_ready()
    intent = rig.decide(stop_frac=Decimal("0.05"), target_frac=Decimal("0.05"))

    class Killed(Exception):
        """Stands for the process's end."""

    def send_and_die(order: Order, instrument: Instrument) -> ExchangeOrder:
        CcxtTrading.send_order(rig.exchange, order, instrument)  # type: ignore[arg-type]
        raise Killed

    dying = emulated(Rig(rig.server, rig.database_url, rig.paper_account))
    dying.exchange.send_order = send_and_die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        place_brackets(dying, intent.intent_id)
    dying.close()
    assert rig.holds("BTC") > 0
    assert resting_stops(rig) == []
    time.sleep(1.1)
    watch_risk_once(rig)
    position = rig.trading_store.position(intent.intent_id)
    assert position is not None
    assert resting_stops(rig) == [position.stop_price]
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_the_watch_leaves_alone_what_is_protected(rig: Rig) -> None:
    position = enter(rig)
    before = rig.exchange_orders()
    asked: list[str] = []
    rig.client.exchange.fetch = _noting(rig.client.exchange.fetch, asked)
    assert protect_naked(rig) == []
    assert ["openOrders" in url for url in asked] == [True], "the first look sees that a new stop is there"
    assert protect_naked(rig) == []
    assert len(asked) == 1, "and the next one is some seconds away"
    pass_seconds(rig, 4)
    assert protect_naked(rig) == []
    assert len(asked) == 2
    assert rig.exchange_orders() == before
    assert after(rig, position).stop_price == position.stop_price
    assert rig.trading_store.unprotected_spans() == []


def pass_seconds(rig: Rig, seconds: int) -> None:
    """As if the stops had been seen so much earlier."""
    rig.database.execute(f"UPDATE orders SET seen_at = seen_at - interval '{seconds} seconds'")


@pytest.mark.parametrize("status", ["EXPIRED", "EXPIRED_IN_MATCH"])
def test_the_watch_sees_that_the_exchange_ended_a_stop(rig: Rig, status: str) -> None:
    """A maintenance, a rule against self-trades, an expiry: whatever it was, it is healed at once and measured."""
    position = enter(rig)
    assert protect_naked(rig) == []
    rig.admin.expire("BTC/USDT", status=status)
    assert resting_stops(rig) == []
    pass_seconds(rig, 4)
    watch_risk_once(rig)
    assert resting_stops(rig) == [position.stop_price]
    (span,) = rig.trading_store.unprotected_spans(position.position_id)
    assert span.cause == "stop ended by the exchange"
    assert span.seconds is not None
    assert span.seconds >= 4, "from the last moment at which it was seen"
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_the_minutes_look_measures_a_vanished_stop_too(rig: Rig) -> None:
    position = enter(rig)
    manage_positions(rig)
    for order in rig.exchange_orders():
        if order["type"] == "STOP_LOSS":
            rig.exchange.cancel_order("BTC/USDT", order["clientOrderId"])
    pass_seconds(rig, 30)
    manage_positions(rig)
    assert resting_stops(rig) == [position.stop_price]
    (span,) = rig.trading_store.unprotected_spans(position.position_id)
    assert span.seconds is not None
    assert span.seconds >= 30


def test_the_watch_protects_the_rest_of_a_target_that_was_filled_in_part(rig: Rig) -> None:
    """Its first fill ends the stop beside it: the exchange's rule for lists."""
    position = enter(rig)
    assert protect_naked(rig) == []
    assert rig.admin.fill_resting("BTC/USDT", rig.paper_account, 0.4)
    assert resting_stops(rig) == []
    pass_seconds(rig, 4)
    watch_risk_once(rig)
    found = after(rig, position)
    assert found.status is PositionStatus.OPEN
    assert 0 < found.quantity < position.quantity
    assert resting_quantities(rig) == [floor_to_step(found.quantity, Decimal("0.00001"))]
    (span,) = rig.trading_store.unprotected_spans(position.position_id)
    assert span.cause == "stop ended by the exchange"
    rig.assert_agrees()


def _noting(fetch: Callable[..., object], asked: list[str]) -> Callable[..., object]:
    def noted(url: str, *args: object, **kwargs: object) -> object:
        asked.append(url)
        return fetch(url, *args, **kwargs)

    return noted
