"""The life of a trade through the jobs, on a stepped market, against a real exchange server and a real ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.trading_rig import Rig
from tradewind.adapters.clock import WallClock
from tradewind.core.brackets import floor_to_step
from tradewind.core.types import OrderRole, OrderState, PositionStatus, TradingMode
from tradewind.errors import OutcomeUnknown
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import halt
from tradewind.jobs.trading import place_brackets, record_cycle

STEP_SIZE = Decimal("0.00001")


def enter(rig: Rig, **options: Any) -> str:
    rig.make_ready()
    intent = rig.decide(**options)
    result = place_brackets(rig, intent.intent_id)
    assert result["outcome"] == "filled", result
    return intent.intent_id


def bought(rig: Rig) -> Decimal:
    """All base ever bought by the account, as the exchange itself says."""
    orders = [order for order in rig.exchange_orders(["FILLED", "EXPIRED"]) if order["side"] == "BUY"]
    return sum((Decimal(order["executedQty"]) for order in orders), Decimal(0))


def test_entry_is_filled_and_protected_at_once(rig: Rig) -> None:
    position_id = enter(rig)
    position = rig.trading_store.position(position_id)
    assert position is not None
    assert position.status is PositionStatus.OPEN
    resting = rig.exchange_orders()
    assert sorted(order["type"] for order in resting) == ["LIMIT_MAKER", "STOP_LOSS"]
    stop = next(order for order in resting if order["type"] == "STOP_LOSS")
    assert Decimal(stop["stopPrice"]) == position.stop_price
    assert 0 <= position.quantity - Decimal(stop["origQty"]) < STEP_SIZE
    assert rig.trading_store.unprotected_spans() == []
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_a_trade_from_entry_over_break_even_to_its_stop(rig: Rig) -> None:
    store = rig.trading_store
    # An R far wider than a bar of this market moves by itself: on whichever bar the test starts, the close lies where
    # the shock puts it.
    position_id = enter(rig, two_lots=True, stop_frac=Decimal("0.1"))
    entry_orders = [o for o in store.orders_of(position_id) if o.role is OrderRole.ENTRY]
    assert [order.lot for order in entry_orders] == [0, 1]
    opened = store.position(position_id)
    assert opened is not None
    assert opened.entry_price is not None

    rig.admin.shock(0.14, "BTC/USDT")  # through +1R, short of +2R
    rig.step()
    result = manage_positions(rig)
    assert result["clean"], result
    half = store.position(position_id)
    assert half is not None
    targets = [o for o in store.orders_of(position_id) if o.role is OrderRole.TARGET and o.lot == 0]
    assert targets[0].state is OrderState.FILLED
    assert half.quantity < opened.quantity * Decimal("0.6")
    assert half.stop_price > opened.entry_price, "at +1R the stop belongs over break-even"
    (stop,) = [order for order in rig.exchange_orders() if order["type"] == "STOP_LOSS"]
    assert Decimal(stop["stopPrice"]) == half.stop_price
    assert 0 <= half.quantity - Decimal(stop["origQty"]) < STEP_SIZE * 2
    spans = store.unprotected_spans(position_id)
    assert spans
    assert all(span.seconds is not None for span in spans)

    rig.admin.shock(-0.18, "BTC/USDT")  # through every stop that the bar before could have asked for
    rig.step()
    assert manage_positions(rig)["clean"]
    closed = store.position(position_id)
    assert closed is not None
    assert closed.status in (PositionStatus.CLOSED, PositionStatus.DUST)
    assert closed.exit_reason == "stop"
    assert rig.exchange_orders() == []
    rig.assert_agrees()
    (trade,) = store.closed_trades(rig.clock.now() - timedelta(days=1))
    assert trade.net_quote == closed.realised_quote
    assert manage_positions(rig)["clean"]


def test_time_stop_leaves_at_market(make_rig: Callable[..., Rig]) -> None:
    from tradewind.core.params import StrategyParams

    rig = make_rig(params=StrategyParams(horizon_bars=2))
    position_id = enter(rig, stop_frac=Decimal("0.2"), target_frac=Decimal("0.2"))
    rig.step()
    manage_positions(rig)
    held = rig.trading_store.position(position_id)
    assert held is not None
    assert held.status is PositionStatus.OPEN
    rig.step()
    manage_positions(rig)
    closed = rig.trading_store.position(position_id)
    assert closed is not None
    assert (closed.status, closed.exit_reason) in [
        (PositionStatus.CLOSED, "time_stop"),
        (PositionStatus.DUST, "time_stop"),
    ]
    assert rig.exchange_orders() == []
    rig.assert_agrees()


def test_failed_stop_is_left_at_market(rig: Rig) -> None:
    position_id = enter(rig)
    # A person cancels the protection, and the price falls by more than 2R before the next look.
    for order in rig.exchange_orders():
        if order["type"] == "STOP_LOSS":
            rig.exchange.cancel_order("BTC/USDT", order["clientOrderId"])
    rig.admin.shock(-0.03, "BTC/USDT")
    manage_positions(rig)
    closed = rig.trading_store.position(position_id)
    assert closed is not None
    assert closed.exit_reason == "failed_stop"
    assert closed.status in (PositionStatus.CLOSED, PositionStatus.DUST)
    rig.assert_agrees()


def test_accepted_then_hung_entry_is_looked_up_and_never_resent(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(timeout_s=1.0)
    rig.make_ready()
    intent = rig.decide()
    rig.admin.add_fault("hang_after", method="POST", path="/api/v3/orderList/*", times=1, seconds=5)
    result = place_brackets(rig, intent.intent_id)
    assert result["outcome"] == "filled"
    events = rig.trading_store.order_events(rig.trading_store.orders_of(intent.intent_id)[0].client_order_id)
    assert [event["to_state"] for event in events] == ["planned", "sent", "unknown", "filled"]
    assert bought(rig) == intent.quantity
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_unknown_entry_turns_the_cycle_red_and_is_resolved_later(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(timeout_s=1.0)
    rig.make_ready()
    intent = rig.decide()
    rig.admin.add_fault("timeout_before", method="POST", path="/api/v3/orderList/*", times=1, seconds=2)
    assert place_brackets(rig, intent.intent_id)["outcome"] == "unknown"
    with pytest.raises(OutcomeUnknown):
        record_cycle(rig, intent.bar, "run-1")
    cycle = rig.trading_store.cycle(intent.bar)
    assert cycle is not None
    assert cycle.state == "failed"
    result = manage_positions(rig)
    assert not result["clean"], "nobody may enter while an order's fate is unknown"
    # Absence is proven only after timestamp + recvWindow + 5 s; then it is EXPIRED and never sent.
    shifted = rig.trading_store
    rig.database.execute("UPDATE orders SET sent_at = sent_at - interval '60 seconds' WHERE state = 'unknown'")
    result = manage_positions(rig)
    assert result["clean"]
    assert {order.state for order in shifted.orders_of(intent.intent_id)} == {OrderState.EXPIRED}
    assert place_brackets(rig, intent.intent_id)["outcome"] == "expired"
    assert bought(rig) == 0
    assert record_cycle(rig, intent.bar, "run-2")["state"] == "done"


def test_two_tasks_at_once_send_one_bracket(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    twin = make_rig(paper_account=rig.paper_account)
    rig.make_ready()
    intent = rig.decide()
    barrier = threading.Barrier(2)
    results: list[Any] = []

    def run(own: Rig) -> None:
        barrier.wait()
        results.append(place_brackets(own, intent.intent_id))

    threads = [threading.Thread(target=run, args=(own,)) for own in (rig, twin)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert bought(rig) == intent.quantity
    assert len(rig.trading_store.orders_of(intent.intent_id)) == 3
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


def test_repeated_task_finds_its_rows_and_sends_nothing(rig: Rig) -> None:
    position_id = enter(rig)
    before = rig.exchange_orders(["NEW", "FILLED", "EXPIRED", "CANCELED"])
    assert place_brackets(rig, position_id)["outcome"] == "filled"
    assert rig.exchange_orders(["NEW", "FILLED", "EXPIRED", "CANCELED"]) == before


def test_stale_intent_is_expired_not_sent(rig: Rig) -> None:
    rig.make_ready()
    intent = rig.decide()
    rig.step()
    rig.make_ready()
    result = place_brackets(rig, intent.intent_id)
    assert result["outcome"] == "expired"
    assert "expired" in result["reason"]
    assert bought(rig) == 0
    position = rig.trading_store.position(intent.intent_id)
    assert position is not None
    assert position.status is PositionStatus.CLOSED


@pytest.mark.parametrize("spoil", ["latch", "watch", "reconciliation"])
def test_entry_is_refused_at_the_last_moment(rig: Rig, spoil: str) -> None:
    rig.make_ready()
    intent = rig.decide()
    if spoil == "latch":
        halt(rig, "a person says stop", "kim")
    elif spoil == "watch":
        rig.database.execute("UPDATE heartbeats SET at = at - interval '20 seconds' WHERE name = 'watch_risk'")
    else:
        rig.trading_store.record_reconciliation(rig.wall.now(), False, {})
    result = place_brackets(rig, intent.intent_id)
    assert result["outcome"] == "expired"
    assert bought(rig) == 0
    # What was refused once stays refused, also when the reason is gone.
    rig.make_ready()
    if spoil != "latch":
        assert rig.trading_store.latch().mode is TradingMode.ACTIVE
    assert place_brackets(rig, intent.intent_id)["outcome"] == "expired"
    assert bought(rig) == 0


def test_rejected_by_the_exchange_is_over(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"USDT": "100"})
    rig.make_ready()
    intent = rig.decide(notional=Decimal(2000))
    assert place_brackets(rig, intent.intent_id)["outcome"] == "rejected"
    position = rig.trading_store.position(intent.intent_id)
    assert position is not None
    assert position.status is PositionStatus.CLOSED
    assert manage_positions(rig)["clean"]


def test_a_person_cancels_the_protection(rig: Rig) -> None:
    position_id = enter(rig)
    for order in rig.exchange_orders():
        if order["type"] == "STOP_LOSS":
            rig.client.send(
                "private_delete_order", {"symbol": "BTCUSDT", "orderId": order["orderId"]}, client_order_id=""
            )
    assert rig.exchange_orders() == []
    result = manage_positions(rig)
    assert result["clean"], result
    resting = rig.exchange_orders()
    assert sorted(order["type"] for order in resting) == ["LIMIT_MAKER", "STOP_LOSS"]
    generations = {order.generation for order in rig.trading_store.orders_of(position_id)}
    assert generations == {0, 1}
    rig.assert_agrees()


def test_a_missed_cycle_is_named_recorded_and_alerted(rig: Rig) -> None:
    rig.make_ready()
    rig.step()
    bar = rig.bar()
    assert manage_positions(rig)["undecided_bar"] is None, "it is given a moment to start by itself"
    rig.admin.step_ms(61_000)
    assert manage_positions(rig)["undecided_bar"] == bar.isoformat()
    cycle = rig.trading_store.cycle(bar)
    assert cycle is not None
    assert cycle.state == "missed"
    rig.decide(bar=bar)
    assert manage_positions(rig)["undecided_bar"] is None


def test_a_person_sells_half_behind_our_back(rig: Rig) -> None:
    position_id = enter(rig)
    before = rig.trading_store.position(position_id)
    assert before is not None
    for order in rig.exchange_orders():
        if order["type"] == "STOP_LOSS":
            rig.exchange.cancel_order("BTC/USDT", order["clientOrderId"])
    half = floor_to_step(before.quantity / 2, STEP_SIZE)
    sale = {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": str(half)}
    rig.client.send("private_post_order", sale, client_order_id="")
    result = manage_positions(rig)
    assert result["clean"], result
    after = rig.trading_store.position(position_id)
    assert after is not None
    assert after.quantity == before.quantity - half
    (stop,) = [order for order in rig.exchange_orders() if order["type"] == "STOP_LOSS"]
    assert 0 <= after.quantity - Decimal(stop["origQty"]) < STEP_SIZE
    rig.assert_agrees()


def test_a_person_sells_from_a_baseline_and_entries_are_blocked(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"USDT": "10000", "BTC": "1"})
    position_id = enter(rig)
    sale = {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": "0.5"}
    rig.client.send("private_post_order", sale, client_order_id="")
    result = manage_positions(rig)
    assert not result["clean"], "nobody knows whose half a coin that was"
    assert "balance_deficit" in result["differences"]
    held = rig.trading_store.position(position_id)
    assert held is not None
    assert held.status is PositionStatus.OPEN


def test_a_task_at_work_is_no_difference(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    twin = make_rig(paper_account=rig.paper_account)
    position_id = enter(rig)
    recorded = rig.trading_store.last_reconciliation()
    with twin.trading_store.position_lock(position_id) as held:
        assert held
        result = manage_positions(rig)
        assert result["problems"]
    assert rig.trading_store.last_reconciliation() == recorded


def test_a_person_cancels_an_order_and_sells_half_within_one_minute(rig: Rig) -> None:
    """Both at once, behind the system's back: one look later the ledger is right and the rest is protected."""
    position_id = enter(rig, stop_frac=Decimal("0.05"), target_frac=Decimal("0.05"))
    before = rig.trading_store.position(position_id)
    assert before is not None
    stop = next(order for order in rig.exchange_orders() if order["type"] == "STOP_LOSS")
    rig.exchange.cancel_order("BTC/USDT", stop["clientOrderId"])
    half = floor_to_step(before.quantity / 2, STEP_SIZE)
    rig.client.exchange.private_post_order(
        {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": format(half, "f")}
    )
    result = manage_positions(rig)
    assert result["clean"], result
    after = rig.trading_store.position(position_id)
    assert after is not None
    assert after.quantity == before.quantity - half
    (stop,) = [order for order in rig.exchange_orders() if order["type"] == "STOP_LOSS"]
    assert 0 <= after.quantity - Decimal(stop["origQty"]) < STEP_SIZE
    rig.assert_agrees()


def test_a_process_that_slept_before_it_sent_sends_nothing_that_counts(rig: Rig) -> None:
    """Suspended between commit and send until its absence was proven: the exchange refuses the request."""
    rig.make_ready()
    intent = rig.decide()
    now = rig.wall.now

    class SleptClock:
        """What the machine's clock said when the send was committed: so long ago is it by the time it leaves."""

        def now(self) -> Any:
            return now() - timedelta(seconds=rig.exchange.recv_window_s + 6)

    send, plan = rig.exchange.send_bracket, rig.trading_store.plan_orders

    def plan_and_fall_asleep(orders: Any) -> Any:
        rows = plan(orders)
        rig.wall = SleptClock()  # type: ignore[assignment]
        return rows

    def wake_and_send(*args: Any) -> Any:
        rig.wall = WallClock()
        return send(*args)

    rig.trading_store.plan_orders = plan_and_fall_asleep  # type: ignore[method-assign]
    rig.exchange.send_bracket = wake_and_send  # type: ignore[method-assign]
    result = place_brackets(rig, intent.intent_id)
    assert result["outcome"] == "rejected"
    assert bought(rig) == 0
    assert rig.exchange_orders() == []
