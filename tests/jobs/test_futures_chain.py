"""Futures through the same jobs, over HTTP: long and short opened, protected, moved, closed, and the ledger exact."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.futures import futures_account
from tests.support.futures_rig import FuturesRig
from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import RuleModels
from tradewind.adapters.ccxt_futures import CcxtFuturesTrading
from tradewind.core.positions import sign_of
from tradewind.core.types import ExchangeOrder, OrderRole, OrderState, Payment, PositionStatus, Side, TradingMode
from tradewind.errors import BadInput, OrderRejected
from tradewind.jobs.accepting import accept_difference, adopt_purchase
from tradewind.jobs.equity import ensure_baseline
from tradewind.jobs.payments import mark_beginning
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import flatten, watch_risk_once
from tradewind.jobs.tending import tend_all
from tradewind.jobs.trading import filter_signals, place_brackets, predict_signals, size_positions
from tradewind.jobs.writing_off import write_off

SIDES = [Side.LONG, Side.SHORT]
CLOSED = (PositionStatus.CLOSED, PositionStatus.DUST)


@pytest.fixture
def make_futures_rig(paper_server: PaperServerProcess, postgres_url: str) -> Iterator[Callable[..., FuturesRig]]:
    made: list[FuturesRig] = []

    def make(account: Any = None, money: str = "10000", **options: Any) -> FuturesRig:
        account = account or futures_account(paper_server, money)
        made.append(FuturesRig(paper_server, postgres_url, account, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make_futures_rig: Callable[..., FuturesRig]) -> FuturesRig:
    return make_futures_rig()


def cash_flow_quote(rig: FuturesRig) -> Decimal:
    """Quote moved by all fills, payments and write-offs, fees included."""
    return sum((total.cash_quote for total in rig.trading_store.ledger_totals().values()), Decimal(0))


def enter(rig: FuturesRig, side: Side, **options: Any) -> str:
    rig.make_ready()
    intent = rig.decide_side(side, **options)
    result = place_brackets(rig, intent.intent_id)
    assert result["outcome"] == "filled", result
    return intent.intent_id


@pytest.mark.parametrize("line", ["insert_fills", "save_position"])
def test_the_watch_protects_an_entry_whose_task_died_before_its_figures(
    make_futures_rig: Callable[..., FuturesRig], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """The entry's row says filled, the position knows of nothing yet: no order is undecided, and nothing protects."""
    rig = make_futures_rig()
    rig.make_ready()
    intent = rig.decide_side(Side.SHORT)

    class Killed(Exception):
        """Stands for the process's end."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    dying = make_futures_rig(account=rig.paper_account)
    monkeypatch.setattr(dying.trading_store, line, die)
    with pytest.raises(Killed):
        place_brackets(dying, intent.intent_id)
    assert rig.position_quantity() < 0
    assert rig.waiting() == []
    watch_risk_once(rig)
    stops = [order for order in rig.waiting() if order["orderType"] == "STOP_MARKET"]
    assert sum(Decimal(stop["quantity"]) for stop in stops) == -rig.position_quantity()


def move(rig: FuturesRig, side: Side, frac: float) -> None:
    """The market goes by `frac` in favour of a side (against it when negative), and a bar closes there."""
    rig.admin.shock(frac if side is Side.LONG else 1 / (1 + frac) - 1, "BTC/USDT")
    rig.step()


def position(rig: FuturesRig, position_id: str) -> Any:
    found = rig.trading_store.position(position_id)
    assert found is not None
    return found


@pytest.mark.parametrize("side", SIDES)
def test_an_entry_is_filled_and_protected_by_reduce_only_orders(rig: FuturesRig, side: Side) -> None:
    position_id = enter(rig, side)
    held = position(rig, position_id)
    assert (held.status, held.side) == (PositionStatus.OPEN, side)
    assert rig.position_quantity() == (held.quantity if side is Side.LONG else -held.quantity)
    waiting = {row["orderType"]: row for row in rig.waiting()}
    assert set(waiting) == {"STOP_MARKET", "TAKE_PROFIT_MARKET"}
    assert Decimal(waiting["STOP_MARKET"]["triggerPrice"]) == held.stop_price
    assert all(row["reduceOnly"] in (True, "true") for row in waiting.values())
    assert {Decimal(row["quantity"]) for row in waiting.values()} == {held.quantity}
    (risk,) = rig.client.read("fapiprivatev2_get_positionrisk", {"symbol": "BTCUSDT"})
    assert (risk["leverage"], risk["marginType"]) == ("3", "isolated")
    result = manage_positions(rig)
    assert result["clean"], result
    rig.assert_agrees()


@pytest.mark.parametrize("side", SIDES)
def test_a_trade_over_break_even_and_funding_to_its_stop(rig: FuturesRig, side: Side) -> None:
    before = rig.wallet()
    position_id = enter(rig, side, two_lots=True)
    opened = position(rig, position_id)
    move(rig, side, 0.026)  # through +1R, short of +2R
    result = manage_positions(rig)
    assert result["clean"], result
    half = position(rig, position_id)
    assert half.quantity < opened.quantity * Decimal("0.6"), "the first lot took its target"
    better = half.stop_price - opened.entry_price
    assert better > 0 if side is Side.LONG else better < 0, "at +1R the stop belongs beyond break-even"
    (stop,) = [row for row in rig.waiting() if row["orderType"] == "STOP_MARKET"]
    assert (Decimal(stop["triggerPrice"]), Decimal(stop["quantity"])) == (half.stop_price, half.quantity)
    assert all(span.seconds is not None for span in rig.trading_store.unprotected_spans(position_id))
    rig.assert_agrees()

    move(rig, side, -0.05)
    result = manage_positions(rig)
    assert result["clean"], result
    closed = position(rig, position_id)
    assert closed.status in CLOSED
    assert closed.exit_reason == "stop"
    assert rig.waiting() == [], "the target that was left is cancelled"
    assert rig.position_quantity() == 0
    rig.assert_agrees()
    (trade,) = rig.trading_store.closed_trades(rig.clock.now() - timedelta(days=1))
    paid = rig.trading_store.ledger_totals()["BTC/USDT"].cash_quote - trade.net_quote
    assert rig.wallet() - before == trade.net_quote + paid, "the wallet moved by the result and the funding, no more"


def test_a_kill_before_the_baseline_stands_does_not_keep_it_from_being_taken(rig: FuturesRig) -> None:
    mark_beginning(rig)  # and then nothing: the process is gone
    assert ensure_baseline(rig) == {"USDT": Decimal(10_000)}
    assert manage_positions(rig)["clean"]


def test_leverage_that_a_person_changed_is_set_back_before_the_next_entry(rig: FuturesRig) -> None:
    rig.make_ready()
    rig.client.read("fapiprivate_post_leverage", {"symbol": "BTCUSDT", "leverage": 50})
    place_brackets(rig, rig.decide_side(Side.SHORT).intent_id)
    (risk,) = rig.client.read("fapiprivatev2_get_positionrisk", {"symbol": "BTCUSDT"})
    assert risk["leverage"] == "3"


def test_funding_is_in_the_equity_and_explained(rig: FuturesRig) -> None:
    position_id = enter(rig, Side.SHORT, stop_frac=Decimal("0.3"), target_frac=Decimal("0.3"))
    rig.step(33)
    result = manage_positions(rig)
    assert result["clean"], result
    rows = [row for row in rig.client.read("fapiprivate_get_income") if row["incomeType"] == "FUNDING_FEE"]
    assert rows
    fills = sum(
        (f.quantity * f.price * (-1 if f.is_buy else 1) - f.fee for f in rig.trading_store.fills_of(position_id)),
        Decimal(0),
    )
    funding = sum((Decimal(row["income"]) for row in rows), Decimal(0))
    assert rig.trading_store.ledger_totals()["BTC/USDT"].cash_quote == fills + funding
    rig.assert_agrees()


@pytest.mark.parametrize("side", SIDES)
def test_a_kill_between_fill_and_protection_heals(
    make_futures_rig: Callable[..., FuturesRig], monkeypatch: pytest.MonkeyPatch, side: Side
) -> None:
    rig = make_futures_rig()
    rig.make_ready()
    intent = rig.decide_side(side)

    def die(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(rig.exchange, "send_protection", die)
    with pytest.raises(KeyboardInterrupt):
        place_brackets(rig, intent.intent_id)
    assert rig.position_quantity() != 0
    assert rig.waiting() == []
    monkeypatch.undo()
    manage_positions(rig)
    kinds = sorted(row["orderType"] for row in rig.waiting())
    # What was sent by the dead task is unknown until its request can no longer arrive; the market exit is the way out.
    assert kinds == ["STOP_MARKET", "TAKE_PROFIT_MARKET"] or rig.position_quantity() == 0
    assert bool(kinds) == (rig.position_quantity() != 0)
    rig.assert_agrees()


def test_a_refused_target_leaves_no_half_protected_position(rig: FuturesRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.make_ready()
    intent = rig.decide_side(Side.LONG)
    send = rig.exchange._send_algo  # type: ignore[attr-defined]

    def refuse_targets(order: Any) -> Any:
        if order.role is OrderRole.TARGET:
            raise OrderRejected("refused", -2021)
        return send(order)

    monkeypatch.setattr(rig.exchange, "_send_algo", refuse_targets)
    place_brackets(rig, intent.intent_id)
    monkeypatch.undo()
    manage_positions(rig)
    assert rig.position_quantity() == 0
    assert rig.waiting() == []
    states = {o.role: o.state for o in rig.trading_store.orders_of(intent.intent_id) if o.generation == 1}
    assert states[OrderRole.TARGET] is OrderState.REJECTED
    rig.assert_agrees()


def test_a_stop_that_was_replaced_and_not_cancelled_is_cancelled_by_the_next_run(
    rig: FuturesRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    position_id = enter(rig, Side.LONG, stop_frac=Decimal("0.02"), target_frac=Decimal("0.2"))
    cancel = rig.exchange.cancel_order
    monkeypatch.setattr(rig.exchange, "cancel_order", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    move(rig, Side.LONG, 0.025)
    with pytest.raises(KeyboardInterrupt):
        manage_positions(rig)
    assert sorted(row["orderType"] for row in rig.waiting()).count("STOP_MARKET") == 2, "the new one came first"
    monkeypatch.setattr(rig.exchange, "cancel_order", cancel)
    assert manage_positions(rig)["clean"]
    (stop,) = [row for row in rig.waiting() if row["orderType"] == "STOP_MARKET"]
    assert Decimal(stop["triggerPrice"]) == position(rig, position_id).stop_price
    assert not any(span.cause == "replacement" for span in rig.trading_store.unprotected_spans(position_id))
    rig.assert_agrees()


class Hanging(CcxtFuturesTrading):
    """A stop of the algo service that has triggered, was never placed, and cannot be cancelled."""

    hung: frozenset[str] = frozenset()

    def _algo(self, answer: Any, symbol: str) -> ExchangeOrder:
        if answer["clientAlgoId"] in self.hung:
            answer = {**answer, "algoStatus": "TRIGGERING", "actualOrderId": ""}
        return super()._algo(answer, symbol)

    def open_orders(self, symbols: Any) -> list[ExchangeOrder]:
        return [order for order in super().open_orders(symbols) if order.client_order_id not in self.hung]

    def cancel_order(self, symbol: str, client_order_id: str) -> ExchangeOrder:
        if client_order_id in self.hung:
            raise OrderRejected("Unknown order sent.", -2011)
        return super().cancel_order(symbol, client_order_id)


@pytest.mark.parametrize("side", SIDES)
def test_an_exit_that_reduces_waits_for_no_cancellation(rig: FuturesRig, side: Side) -> None:
    position_id = enter(rig, side, notional=Decimal(6000))
    hanging = Hanging(rig.client, rig.account)
    (stop,) = [o for o in rig.trading_store.orders_of(position_id) if o.role is OrderRole.STOP]
    hanging.cancel_order("BTC/USDT", stop.client_order_id)  # it is lost there, and the market fills nothing for it
    hanging.hung = frozenset({stop.client_order_id})
    rig.exchange = hanging  # type: ignore[assignment]
    move(rig, side, -0.06)  # three R against it
    manage_positions(rig)
    assert rig.position_quantity() == 0
    sold = [o for o in rig.trading_store.orders_of(position_id) if o.role is OrderRole.EXIT]
    assert [o.state for o in sold] == [OrderState.FILLED]
    rig.assert_agrees()


@pytest.mark.parametrize("side", SIDES)
def test_the_watch_leaves_a_position_whose_stop_hangs(rig: FuturesRig, side: Side) -> None:
    position_id = enter(rig, side)
    rig.admin.hang_triggers("BTC/USDT")
    rig.admin.shock(-0.03 if side is Side.LONG else 0.03, "BTC/USDT")  # through the stop, short of two R
    rows = rig.client.read("fapiprivate_get_allalgoorders", {"symbol": "BTCUSDT"})
    assert [row["algoStatus"] for row in rows].count("TRIGGERING") == 1
    deadline = time.monotonic() + 120
    while rig.position_quantity() != 0 and time.monotonic() < deadline:
        watch_risk_once(rig)
        time.sleep(0.2)
    assert rig.position_quantity() == 0
    assert position(rig, position_id).exit_reason == "unprotected"
    rig.assert_agrees()


def test_an_exit_goes_out_while_the_stop_still_rests(rig: FuturesRig, monkeypatch: pytest.MonkeyPatch) -> None:
    position_id = enter(rig, Side.SHORT)
    send, resting_then = rig.exchange.send_order, []

    def note(order: Any, instrument: Any) -> ExchangeOrder:
        resting_then.append([row["orderType"] for row in rig.waiting()])
        return send(order, instrument)

    monkeypatch.setattr(rig.exchange, "send_order", note)
    assert flatten(rig, "tester")["flat"]
    assert [sorted(kinds) for kinds in resting_then] == [["STOP_MARKET", "TAKE_PROFIT_MARKET"]]
    assert rig.trading_store.unprotected_spans(position_id)[1:] == []
    assert rig.waiting() == []


def test_a_new_pair_that_is_refused_leaves_the_old_one(rig: FuturesRig, monkeypatch: pytest.MonkeyPatch) -> None:
    position_id = enter(rig, Side.LONG, stop_frac=Decimal("0.02"), target_frac=Decimal("0.2"))
    before = sorted(row["clientAlgoId"] for row in rig.waiting())

    def refuse(order: Any) -> Any:
        raise OrderRejected("refused", -4131)

    monkeypatch.setattr(rig.exchange, "_send_algo", refuse)
    move(rig, Side.LONG, 0.025)
    (problem,) = manage_positions(rig)["problems"]
    assert "the old one is left" in problem
    assert sorted(row["clientAlgoId"] for row in rig.waiting()) == before
    assert position(rig, position_id).status is PositionStatus.OPEN
    monkeypatch.undo()
    assert manage_positions(rig)["clean"]
    (stop,) = [row for row in rig.waiting() if row["orderType"] == "STOP_MARKET"]
    assert Decimal(stop["triggerPrice"]) == position(rig, position_id).stop_price


def test_a_short_near_the_least_notional_keeps_its_stop(rig: FuturesRig) -> None:
    """At its target it is worth less than an entry must be: what reduces it need not be worth that."""
    rules = rig.exchange.instruments(["BTC/USDT"])["BTC/USDT"]
    least = rules.min_notional_quote * Decimal("1.03") + rules.step_size * 60_000
    position_id = enter(rig, Side.SHORT, notional=least, stop_frac=Decimal("0.05"), target_frac=Decimal("0.3"))
    rig.admin.shock(-0.2, "BTC/USDT")
    assert position(rig, position_id).quantity * rig.bid() < rules.min_notional_quote
    for _ in range(2):
        assert manage_positions(rig)["clean"]
    assert position(rig, position_id).status is PositionStatus.OPEN
    assert sorted(row["orderType"] for row in rig.waiting()) == ["STOP_MARKET", "TAKE_PROFIT_MARKET"]
    assert flatten(rig, "tester")["flat"]
    assert rig.position_quantity() == 0
    rig.assert_agrees()


def test_nothing_is_entered_beside_a_contract_of_ones_own(rig: FuturesRig) -> None:
    """The exchange nets both: a short would eat the person's contract, and its stop would be refused."""
    market = {"symbol": "BTCUSDT"}
    rig.client.read("fapiprivate_post_leverage", {**market, "leverage": 3})
    rig.client.read("fapiprivate_post_order", {**market, "side": "BUY", "type": "MARKET", "quantity": "0.05"})
    rig.make_ready()
    rig.model_store = RuleModels(rig.clock.now() - timedelta(days=1))
    predict_signals(rig, rig.bar())
    filter_signals(rig, rig.bar())
    size_positions(rig, rig.bar())
    (decision,) = [d for d in rig.trading_store.decisions(rig.bar()) if d.symbol == "BTC/USDT"]
    assert "were held here before the first start" in decision.reason

    rig.step()
    rig.make_ready()
    intent = rig.decide_side(Side.SHORT)
    done = place_brackets(rig, intent.intent_id)
    assert done["outcome"] == "expired"
    assert "./tradewind accept BTC" in done["reason"]
    assert position(rig, intent.intent_id).status in CLOSED
    assert rig.position_quantity() == Decimal("0.05")

    rig.client.read("fapiprivate_post_order", {**market, "side": "SELL", "type": "MARKET", "quantity": "0.05"})
    rig.step()
    accept_difference(rig, "BTC", "closed my own", "ann")
    accept_difference(rig, "USDT", "closed my own", "ann")
    rig.make_ready()
    assert place_brackets(rig, rig.decide_side(Side.SHORT).intent_id)["outcome"] == "filled"


def test_an_entry_accepted_and_then_hung_is_looked_up_and_not_sent_again(
    make_futures_rig: Callable[..., FuturesRig],
) -> None:
    rig = make_futures_rig(timeout_s=1.0)
    rig.make_ready()
    intent = rig.decide_side(Side.SHORT)
    rig.admin.add_fault("hang_after", method="POST", path="/fapi/v1/order", times=1, seconds=5)
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    assert rig.position_quantity() == -intent.quantity
    assert len(rig.waiting()) == 2
    rig.assert_agrees()


def test_protection_accepted_and_then_dropped_is_found(make_futures_rig: Callable[..., FuturesRig]) -> None:
    rig = make_futures_rig(timeout_s=2.0)
    rig.make_ready()
    intent = rig.decide_side(Side.LONG)
    rig.admin.add_fault("drop_after", method="POST", path="/fapi/v1/algoOrder", times=1)
    place_brackets(rig, intent.intent_id)
    manage_positions(rig)
    stops = [row for row in rig.waiting() if row["orderType"] == "STOP_MARKET"]
    assert len(stops) == (1 if rig.position_quantity() else 0)
    rig.assert_agrees()


@pytest.mark.parametrize("side", SIDES)
def test_flatten_leaves_by_reduce_only_market_orders(rig: FuturesRig, side: Side) -> None:
    position_id = enter(rig, side)
    assert flatten(rig, "tester")["flat"]
    assert rig.position_quantity() == 0
    assert rig.waiting() == []
    assert position(rig, position_id).status in CLOSED
    assert rig.trading_store.latch().mode is TradingMode.HALTED
    rig.assert_agrees()


@pytest.mark.parametrize("side", SIDES)
def test_a_step_that_grows_delays_no_flatten_and_leaves_only_dust(rig: FuturesRig, side: Side) -> None:
    """The refusal itself says that the rules have changed: they are read again at once, however new they are."""
    position_id = enter(rig, side, two_lots=True, stop_frac=Decimal("0.05"), target_frac=Decimal("0.05"))
    rig.admin.change_rules("BTC/USDT", tick="1", step="0.0001", min_notional="5")
    assert flatten(rig, "tester")["flat"]
    assert abs(rig.position_quantity()) < Decimal("0.0001")
    assert rig.waiting() == []
    assert position(rig, position_id).status is PositionStatus.DUST
    rig.assert_agrees()


def test_a_short_that_ran_away_trips_the_breaker_s_second_pair_of_eyes(rig: FuturesRig) -> None:
    enter(rig, Side.SHORT, notional=Decimal(2400), stop_frac=Decimal("0.25"), target_frac=Decimal("0.25"))
    rig.admin.shock(0.14, "BTC/USDT")
    result = manage_positions(rig)
    assert result["breached"]
    assert rig.trading_store.latch().mode is TradingMode.HALTED
    assert rig.position_quantity() == 0
    rig.assert_agrees()


def test_a_liquidated_position_is_closed_in_the_ledger(rig: FuturesRig) -> None:
    position_id = enter(rig, Side.SHORT, notional=Decimal(1000), stop_frac=Decimal("0.9"), target_frac=Decimal("0.5"))
    rig.admin.shock(0.36, "BTC/USDT")  # a third of the notional is its margin
    rig.admin.step_ms(60_000)
    assert rig.position_quantity() == 0
    manage_positions(rig)
    closed = position(rig, position_id)
    assert closed.status in CLOSED
    assert closed.exit_reason == "liquidated"
    assert rig.waiting() == []
    rig.assert_agrees()


def test_the_stages_open_a_short_where_a_short_is_expected(rig: FuturesRig) -> None:
    """predict → filter → size → place on the stored bars, with a champion that foresees a fall."""
    rig.collect(6000)
    rig.model_store = RuleModels(rig.clock.now() - timedelta(days=1))
    flip = rig.model_store._model.predict

    def foresee_a_fall(rows: Any, regimes: Any) -> Any:
        from dataclasses import replace

        return {
            symbol: replace(p, p_long=0.1, p_short=0.7, expected_r_long=-0.5, expected_r_short=0.5)
            for symbol, p in flip(rows, regimes).items()
        }

    rig.model_store._model.predict = foresee_a_fall
    rig.make_ready()
    bar = rig.bar()
    predict_signals(rig, bar)
    filter_signals(rig, bar)
    intents = size_positions(rig, bar)
    decisions = rig.trading_store.decisions(bar)
    for decision in decisions:
        verdicts = {v.filter: v for v in decision.verdicts}
        assert verdicts["signal"].numbers["side"] == "short" or decision.prediction is None
        if decision.intent is not None:
            assert decision.intent.side is Side.SHORT
            liquidation = verdicts["liquidation"]
            assert liquidation.passed
            assert 0 < float(liquidation.numbers["share_of_the_way"] or 0) < 0.7
    assert intents, [decision.reason for decision in decisions]
    for intent_id in intents:
        assert place_brackets(rig, intent_id)["outcome"] in ("filled", "rejected", "expired")
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()


@pytest.mark.parametrize("side", SIDES)
def test_a_contract_opened_by_hand_is_put_under_a_stop(rig: FuturesRig, side: Side) -> None:
    rig.make_ready()
    by_hand = {"symbol": "BTCUSDT", "side": "BUY" if side is Side.LONG else "SELL", "type": "MARKET"}
    for quantity in ("0.01", "0.02"):
        rig.client.read("fapiprivate_post_order", {**by_hand, "quantity": quantity})
    done = adopt_purchase(rig, "BTC/USDT", Decimal("0.03"), "ann")
    adopted = position(rig, done["position_id"])
    assert (adopted.status, adopted.side, adopted.quantity) == (PositionStatus.OPEN, side, Decimal("0.03"))
    far = adopted.stop_price / adopted.entry_price
    assert Decimal("0.965") < far < Decimal("0.971") if side is Side.LONG else Decimal("1.029") < far < Decimal("1.035")
    (stop,) = [row for row in rig.waiting() if row["orderType"] == "STOP_MARKET"]
    assert (Decimal(stop["triggerPrice"]), Decimal(stop["quantity"])) == (adopted.stop_price, adopted.quantity)
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()
    assert flatten(rig, "tester")["flat"]
    assert rig.position_quantity() == 0
    assert rig.waiting() == []
    rig.assert_agrees()


def test_an_income_that_names_no_market_ends_no_reconciliation(rig: FuturesRig) -> None:
    """A rebate is the account's own result; rows of older versions may even name a contract as the exchange does."""
    rig.make_ready()
    assert manage_positions(rig)["clean"]
    before = cash_flow_quote(rig)
    rows = [
        Payment(rig.account, f"rebate:{symbol}", symbol, "api_rebate", "USDT", Decimal("0.25"), rig.clock.now())
        for symbol in ("", "LUNAUSDT")
    ]
    rig.trading_store.insert_payments(rows)
    assert cash_flow_quote(rig) - before == Decimal("0.5")
    told = manage_positions(rig)["differences"]
    assert told == ["balance_deficit"], "the paper exchange has not paid them: that is all there is to say"


@pytest.mark.parametrize("side", SIDES)
def test_a_contract_that_was_delisted_is_given_up_at_the_price_of_its_settlement(
    rig: FuturesRig, make_futures_rig: Callable[..., FuturesRig], side: Side
) -> None:
    position_id = enter(rig, side)
    quantity = position(rig, position_id).quantity * sign_of(side)
    cash = cash_flow_quote(rig)
    rig.admin.delist("BTC/USDT")
    later = make_futures_rig(rig.paper_account)  # a process of its own
    assert tend_all(later) != []
    with pytest.raises(BadInput, match="--settled-at"):
        write_off(later, position_id, "delisted", "kim")
    held = later.exchange.balances()
    assert "BTC" not in held
    settled_at = (held["USDT"].total - ensure_baseline(later)["USDT"] - cash) / quantity
    done = write_off(later, position_id, "delisted", "kim", settled_at=settled_at)
    assert done["clean"]
    given_up = position(later, position_id)
    assert (given_up.status, given_up.exit_reason) == (PositionStatus.CLOSED, "written_off")
    assert abs(given_up.realised_quote) < 20, "what the settlement brought is part of the result"
    assert cash_flow_quote(later) == pytest.approx(held["USDT"].total - ensure_baseline(later)["USDT"])
    assert manage_positions(later)["clean"]
