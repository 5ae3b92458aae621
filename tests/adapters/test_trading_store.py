"""The ledger in PostgreSQL: what is decided stays, what moves moves by allowed steps, what is held is held by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from tradewind.adapters.database import Database
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.codec import decode
from tradewind.core.params import PositionRules, StrategyParams
from tradewind.core.ports import StoredPrediction, WriteOff
from tradewind.core.types import (
    BracketLot,
    Decision,
    Fill,
    Intent,
    Order,
    OrderRole,
    OrderState,
    Outcome,
    Position,
    PositionStatus,
    Prediction,
    RegimeFamily,
    Side,
    Verdict,
)
from tradewind.errors import LedgerMismatch, LockNotAcquired, StoreUnavailable

NOW = datetime(2025, 3, 1, 12, 0, 3, 123456, tzinfo=UTC)
BAR = datetime(2025, 3, 1, 11, 45, tzinfo=UTC)
PARAMS = StrategyParams()
RULES = PARAMS.position_rules


def order(client_order_id: str = "twe1", **changes: object) -> Order:
    base = Order(
        client_order_id=client_order_id,
        account="main",
        position_id="pos-1",
        symbol="BTC/USDT",
        role=OrderRole.ENTRY,
        is_buy=True,
        lot=0,
        generation=0,
        order_type="LIMIT",
        quantity=Decimal("0.01000"),
        price=Decimal("60000.10"),
        stop_price=None,
        list_client_id="twl1",
        state=OrderState.PLANNED,
        exchange_order_id=None,
        filled_quantity=Decimal(0),
        planned_at=NOW,
        sent_at=None,
        updated_at=NOW,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def position(**changes: object) -> Position:
    base = Position(
        position_id="pos-1",
        account="main",
        strategy_version=PARAMS.strategy_version,
        symbol="BTC/USDT",
        side=Side.LONG,
        family=RegimeFamily.TRENDING,
        status=PositionStatus.OPENING,
        bar=BAR,
        opened_at=None,
        closed_at=None,
        quantity=Decimal(0),
        entry_quantity=Decimal(0),
        entry_price=None,
        initial_stop_price=Decimal("59000"),
        stop_price=Decimal("59000"),
        target_price=Decimal("62000"),
        atr_quote=400.125,
        best_close=None,
        managed_bar=None,
        realised_quote=Decimal(0),
        fees_quote=Decimal(0),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def fill(trade_id: str, **changes: object) -> Fill:
    base = Fill(
        account="main",
        symbol="BTC/USDT",
        trade_id=trade_id,
        client_order_id="twe1",
        is_buy=True,
        quantity=Decimal("0.01"),
        price=Decimal("60000.10"),
        fee=Decimal("0.00001"),
        fee_asset="BTC",
        is_maker=False,
        at=NOW,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def decision() -> Decision:
    intent = Intent(
        intent_id="BTCUSDT-1",
        account="main",
        strategy_version=PARAMS.strategy_version,
        symbol="BTC/USDT",
        side=Side.LONG,
        bar=BAR,
        entry_limit_price=Decimal("60000.10"),
        stop_price=Decimal("59000.00"),
        lots=(BracketLot(0, Decimal("0.005"), Decimal("61000.5")), BracketLot(1, Decimal("0.005"), Decimal("62000"))),
        atr_quote=400.1 + 0.2,
        risk_quote=Decimal("10.0000001"),
        notional_quote=Decimal("600.001"),
        expected_r=0.1 + 0.2,
        expires_at=NOW,
    )
    prediction = Prediction(
        "BTC/USDT", BAR, "v1", RegimeFamily.TRENDING, 0.1 + 0.2, 1 / 3, 0.3666, 1e-17, -2.5e22, "ab" * 32
    )
    verdicts = (
        Verdict("signal", True, "fine", {"p": 1 / 3, "n": 3, "one": 1.0, "none": None, "flag": True, "word": "x"}),
        Verdict("size", True, ""),
    )
    return Decision(
        "main", PARAMS.strategy_version, "BTC/USDT", BAR, Outcome.INTENT, "", verdicts, prediction, None, None, intent
    )


def test_decision_comes_back_exactly_and_is_never_rewritten(store: PgTradingStore) -> None:
    original = decision()
    assert store.insert_decisions([original]) == 1
    assert store.insert_decisions([replace(original, reason="another")]) == 0
    assert store.decisions(BAR) == [original]
    back = store.decisions(BAR)[0]
    assert back.prediction is not None
    assert back.prediction.p_long.hex() == (0.1 + 0.2).hex()
    assert store.intent("BTCUSDT-1") == original.intent
    assert store.decision_of("BTCUSDT-1") == original
    with pytest.raises(LedgerMismatch):
        store.intent("never decided")


def test_stages_keep_their_first_rows(store: PgTradingStore) -> None:
    first = StoredPrediction("BTC/USDT", decision().prediction, "", {"rsi": 0.5, "bars": 300}, "c0de")
    assert store.insert_predictions(BAR, [first]) == 1
    assert store.insert_predictions(BAR, [replace(first, prediction=None, reason="late")]) == 0
    assert store.predictions(BAR) == {"BTC/USDT": first}
    verdicts = {"BTC/USDT": decision().verdicts}
    assert store.insert_verdicts(BAR, verdicts) == 1
    assert store.insert_verdicts(BAR, {"BTC/USDT": ()}) == 0
    assert store.verdicts(BAR) == verdicts


def test_cycle_record_may_be_completed_but_not_undone(store: PgTradingStore) -> None:
    store.record_cycle(BAR, "missed", "watch", {"why": "nobody came"})
    store.record_cycle(BAR, "done", "run-1", {"intents": 1})
    store.record_cycle(BAR, "failed", "run-2", {})
    cycle = store.cycle(BAR)
    assert cycle is not None
    assert (cycle.state, cycle.run_id, cycle.detail) == ("done", "run-1", {"intents": 1})


def test_planning_twice_returns_the_first_rows(store: PgTradingStore) -> None:
    with store.position_lock("pos-1") as held:
        assert held
        first = store.plan_orders([order()])
        assert first == [order()]
        store.move_order("twe1", OrderState.SENT, at=NOW, sent_at=NOW)
        again = store.plan_orders([order(quantity=Decimal(5))])
        assert [row.state for row in again] == [OrderState.SENT]
        assert again[0].quantity == Decimal("0.01000")
        with pytest.raises(LedgerMismatch, match="their places"):
            store.plan_orders([order("other")])


def test_planning_needs_the_lock(store: PgTradingStore) -> None:
    with pytest.raises(LockNotAcquired):
        store.plan_orders([order()])
    assert store.order("twe1") is None


def test_order_moves_by_allowed_steps_with_events(store: PgTradingStore) -> None:
    with store.position_lock("pos-1"):
        store.plan_orders([order()])
        store.move_order("twe1", OrderState.SENT, at=NOW, sent_at=NOW)
    store.move_order("twe1", OrderState.UNKNOWN, at=NOW, reason="time-out")
    store.move_order("twe1", OrderState.WORKING, at=NOW, exchange_order_id="77")
    store.move_order("twe1", OrderState.PARTIAL, at=NOW, filled_quantity=Decimal("0.004"))
    store.move_order("twe1", OrderState.PARTIAL, at=NOW, filled_quantity=Decimal("0.003"))
    done = store.move_order("twe1", OrderState.FILLED, at=NOW, filled_quantity=Decimal("0.01"))
    assert (done.exchange_order_id, done.filled_quantity) == ("77", Decimal("0.01"))
    with pytest.raises(LedgerMismatch):
        store.move_order("twe1", OrderState.CANCELLED, at=NOW)
    steps = [(event["from_state"], event["to_state"]) for event in store.order_events("twe1")]
    assert steps == [
        ("", "planned"),
        ("planned", "sent"),
        ("sent", "unknown"),
        ("unknown", "working"),
        ("working", "partial"),
        ("partial", "filled"),
    ]
    assert store.orders_in([OrderState.FILLED]) == [done]
    assert store.orders_by_exchange_id("BTC/USDT", ["77", "78"]) == {"77": "twe1"}


def test_lock_is_held_by_one(store: PgTradingStore, postgres_url: str) -> None:
    second = Database(postgres_url)
    other = PgTradingStore(second, "main", PARAMS.strategy_version)
    with store.position_lock("pos-1") as mine:
        assert mine
        with other.position_lock("pos-1") as theirs:
            assert not theirs
        with other.position_lock("pos-2") as elsewhere:
            assert elsewhere
    with other.position_lock("pos-1") as later:
        assert later
    second.close()


def test_a_lost_lock_cannot_write_or_send(store: PgTradingStore, postgres_url: str) -> None:
    second = Database(postgres_url)
    other = PgTradingStore(second, "main", PARAMS.strategy_version)
    with pytest.raises(StoreUnavailable), store.position_lock("pos-1"):  # noqa: PT012 - the end of the lock is the point
        stored = store.open_position(position(), RULES)
        store.plan_orders([order()])
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        with other.position_lock("pos-1") as taken_over:
            assert taken_over
            other.save_position(replace(stored, status=PositionStatus.OPEN), "taken over", NOW)
        with pytest.raises(LockNotAcquired):
            store.save_position(stored, "late write", NOW)
        with pytest.raises(LockNotAcquired):
            store.move_order("twe1", OrderState.SENT, at=NOW)
    kept = store.position("pos-1")
    assert kept is not None
    assert kept.status is PositionStatus.OPEN
    second.close()


def test_position_keeps_what_was_decided(store: PgTradingStore) -> None:
    with store.position_lock("pos-1"):
        assert store.open_position(position(), RULES) == position()
        opened = position(
            status=PositionStatus.OPEN, quantity=Decimal("0.00999"), entry_price=Decimal("60000.1"), opened_at=NOW
        )
        store.save_position(replace(opened, initial_stop_price=Decimal(1)), "filled", NOW, quantity=Decimal("0.00999"))
        assert store.open_position(position(), RULES) == opened
    assert store.live_positions() == [opened]
    assert [event["event"] for event in store.position_events("pos-1")] == ["planned", "filled"]


def test_a_position_keeps_the_rules_it_was_opened_with(store: PgTradingStore) -> None:
    with store.position_lock("pos-1"):
        store.open_position(position(), RULES)
        store.open_position(position(), replace(RULES, horizon_bars=7))
    assert decode(PositionRules, store.position_rules(["pos-1", "pos-2"])["pos-1"]) == RULES
    assert store.position_rules(["pos-2"]) == {}


def test_the_parameters_behind_a_strategy_version_are_found_again(store: PgTradingStore) -> None:
    assert store.strategy_params(PARAMS.strategy_version) is None
    store.remember_strategy(PARAMS)
    assert decode(StrategyParams, store.strategy_params(PARAMS.strategy_version)) == PARAMS


def test_an_order_is_seen_and_never_unseen(store: PgTradingStore) -> None:
    with store.position_lock("pos-1"):
        store.plan_orders([order(), order("twe2", lot=1)])
    store.mark_seen(["twe1"], NOW)
    store.mark_seen(["twe1", "unknown"], NOW - timedelta(seconds=1))
    seen = {found.client_order_id: found.seen_at for found in store.orders_of("pos-1")}
    assert seen == {"twe1": NOW, "twe2": None}


def test_fills_once_and_totals_exact(store: PgTradingStore) -> None:
    with store.position_lock("pos-1"):
        store.open_position(position(), RULES)
        store.plan_orders([order()])
    assert store.insert_fills([fill("1"), fill("2")]) == 2
    assert store.insert_fills([fill("1"), fill("3", is_buy=False, fee=Decimal("0.6"), fee_asset="USDT")]) == 1
    total = store.ledger_totals()["BTC/USDT"]
    assert total.base_quantity == Decimal("0.01") - 2 * Decimal("0.00001")
    assert total.cash_quote == -Decimal("600.001") - Decimal("0.6")
    assert [one.trade_id for one in store.fills_of("pos-1")] == ["1", "2", "3"]
    assert store.last_fill_at(["BTC/USDT", "ETH/USDT"]) == {"BTC/USDT": NOW}
    assert [p.position_id for p in store.positions_with_fills_since(NOW)] == ["pos-1"]


def test_trade_ids_are_numbers_not_text_where_fills_share_a_millisecond(store: PgTradingStore) -> None:
    """10 came after 9, also where PostgreSQL sorts text: an entry's fill told what had closed its position."""
    with store.position_lock("pos-1"):
        store.open_position(position(), RULES)
        store.plan_orders([order()])
    store.insert_fills([fill("10", is_buy=False), fill("9"), fill("100", is_buy=False)])
    assert [one.trade_id for one in store.fills_of("pos-1")] == ["9", "10", "100"]


def test_closed_trades_in_r(store: PgTradingStore) -> None:
    with store.position_lock("pos-1"):
        store.open_position(position(), RULES)
        closed = position(
            status=PositionStatus.CLOSED,
            closed_at=NOW,
            entry_quantity=Decimal("0.01"),
            entry_price=Decimal("60000"),
            realised_quote=Decimal("-5"),
        )
        store.save_position(closed, "closed", NOW)
    (trade,) = store.closed_trades(NOW - timedelta(hours=1))
    assert (trade.net_quote, trade.net_r) == (Decimal("-5"), -0.5)
    assert store.closed_trades(NOW + timedelta(seconds=1)) == []


def test_unprotected_span_is_measured_once(store: PgTradingStore) -> None:
    with store.position_lock("pos-1"):
        store.open_position(position(), RULES)
    store.start_unprotected("pos-1", "replacement", NOW)
    store.start_unprotected("pos-1", "another cause", NOW + timedelta(seconds=1))
    assert store.end_unprotected("pos-1", NOW + timedelta(seconds=1.5)) == 1.5
    assert store.end_unprotected("pos-1", NOW) is None
    (span,) = store.unprotected_spans("pos-1")
    assert (span.cause, span.seconds) == ("replacement", 1.5)


def test_the_right_to_send_is_given_once(store: PgTradingStore) -> None:
    with store.position_lock("pos-1"):
        store.plan_orders([order()])
        store.move_order("twe1", OrderState.SENT, at=NOW, sent_at=NOW)
        with pytest.raises(LedgerMismatch):
            store.move_order("twe1", OrderState.SENT, at=NOW, sent_at=NOW)
        # A report that says the same (a leg that waits for its entry) only refreshes the row.
        assert store.move_order("twe1", OrderState.SENT, at=NOW, exchange_order_id="9").exchange_order_id == "9"


def test_a_closed_position_leaves_no_open_span(store: PgTradingStore) -> None:
    with store.position_lock("pos-1"):
        opened = store.open_position(position(), RULES)
        store.start_unprotected("pos-1", "exit", NOW)
        assert store.unprotected_now() == {"pos-1"}
        store.save_position(replace(opened, status=PositionStatus.CLOSED), "closed", NOW)
    assert store.unprotected_now() == set()
    (span,) = store.unprotected_spans("pos-1")
    assert span.seconds is not None
    assert span.seconds >= 0


def test_a_write_off_is_all_or_nothing_and_once(store: PgTradingStore) -> None:
    held = position(
        status=PositionStatus.OPEN, quantity=Decimal("0.02"), entry_quantity=Decimal("0.02"), entry_price=Decimal(100)
    )
    closed = replace(held, status=PositionStatus.CLOSED, exit_reason="written_off", closed_at=NOW)
    given_up = WriteOff(
        "pos-1", "main", "BTC/USDT", Decimal("0.02"), Decimal(2), Decimal("0.5"), "delisted", "ann", NOW
    )
    with store.position_lock("pos-1"):
        store.open_position(held, RULES)
        store.save_position(held, "filled", NOW)
        store.plan_orders([order(), order("tws1", role=OrderRole.STOP)])
    store.insert_fills([fill("1", quantity=Decimal("0.02"), fee=Decimal(0))])
    store.take_baseline({"BTC": Decimal(1), "USDT": Decimal(500)}, NOW)
    with pytest.raises(LockNotAcquired):
        store.write_off(closed, given_up, ["tws1"], source="command")
    assert (store.write_offs(), store.position("pos-1")) == ([], held)

    with store.position_lock("pos-1"):
        assert store.write_off(closed, given_up, ["tws1"], source="command") == given_up
        again = replace(given_up, reason="once more", quantity=Decimal(7))
        assert store.write_off(held, again, ["twe1"], source="command") == given_up
    assert store.write_offs() == [given_up]
    assert store.position("pos-1") == closed
    states = {found.client_order_id: (found.state, found.reason) for found in store.orders_of("pos-1")}
    assert states["tws1"] == (OrderState.EXPIRED, "its market is gone: delisted")
    assert states["twe1"][0] is OrderState.PLANNED
    assert [e["to_state"] for e in store.order_events("tws1")] == ["planned", "expired"]
    total = store.ledger_totals()["BTC/USDT"]
    assert total.base_quantity == 0
    assert total.cash_quote == Decimal("0.5") - Decimal("0.02") * Decimal("60000.10")
    assert store.baseline() == {"BTC": Decimal("1.02"), "USDT": Decimal(500)}
