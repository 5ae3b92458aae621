from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trading import BAR, NOW, D, order
from tradewind.core.orders import (
    ALLOWED_MOVES,
    FINAL,
    ForbiddenMove,
    absence_proven,
    client_order_id,
    intent_id,
    is_allowed,
    is_ours,
    list_client_id,
    next_state,
    resolve,
)
from tradewind.core.types import ExchangeOrder, OrderRole, OrderState

BINANCE_ID = re.compile(r"^[a-zA-Z0-9-_]{1,36}$")


def seen(state: OrderState, filled: str = "0") -> ExchangeOrder:
    return ExchangeOrder("id", "1", None, "SOL/USDT", True, "LIMIT", state, D("10"), D(filled), None, None, NOW)


def test_every_state_has_its_moves_and_final_ones_have_none() -> None:
    assert set(ALLOWED_MOVES) == set(OrderState)
    for state in FINAL:
        assert not ALLOWED_MOVES[state]
    assert not any(OrderState.PLANNED in moves for moves in ALLOWED_MOVES.values())
    assert not is_allowed(OrderState.PLANNED, OrderState.UNKNOWN)  # it never left: nothing to be unknown
    assert not is_allowed(OrderState.UNKNOWN, OrderState.SENT)  # never resent


@given(st.sampled_from(list(OrderState)), st.lists(st.sampled_from(list(OrderState)), max_size=8))
def test_observations_in_any_order_never_leave_a_final_state(start: OrderState, observed: list[OrderState]) -> None:
    state = start
    for observation in observed:
        try:
            after = next_state(state, observation)
        except ForbiddenMove:
            assert state in FINAL or state is OrderState.PLANNED
            assert observation in FINAL or state is OrderState.PLANNED
            continue
        assert after is state or is_allowed(state, after)
        if state in FINAL:
            assert after is state
        state = after


def test_late_news_change_nothing() -> None:
    assert next_state(OrderState.PARTIAL, OrderState.WORKING) is OrderState.PARTIAL
    assert next_state(OrderState.FILLED, OrderState.PARTIAL) is OrderState.FILLED
    with pytest.raises(ForbiddenMove):
        next_state(OrderState.FILLED, OrderState.CANCELLED)


def test_an_order_that_was_never_sent_cannot_be_at_the_exchange() -> None:
    for observed in (OrderState.WORKING, OrderState.FILLED):
        with pytest.raises(ForbiddenMove, match="planned"):
            next_state(OrderState.PLANNED, observed)


def test_ids_are_derived_and_acceptable_to_the_exchange() -> None:
    made = client_order_id("acct", "1-abc", "SOL/USDT", BAR, 0, OrderRole.ENTRY, 0)
    assert made == client_order_id(
        "acct", "1-abc", "SOL/USDT", BAR.astimezone(timezone(timedelta(hours=9))), 0, OrderRole.ENTRY, 0
    )
    assert BINANCE_ID.match(made)
    assert is_ours(made)
    assert is_ours(list_client_id("acct", "1-abc", "SOL/USDT", BAR, 0, 0))


KEYS = st.tuples(
    st.sampled_from(["a", "ab", "demo"]),
    st.sampled_from(["1", "1-b", "b1"]),
    st.sampled_from(["SOL/USDT", "OL/USDT"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(lambda d: d.replace(tzinfo=UTC, microsecond=0)),
    st.integers(0, 12),
    st.sampled_from(list(OrderRole)),
    st.integers(0, 120),
)


@given(KEYS, KEYS)
def test_two_orders_share_an_id_only_when_they_are_the_same(a: tuple, b: tuple) -> None:  # type: ignore[type-arg]
    assert (client_order_id(*a) == client_order_id(*b)) == (a == b)
    assert client_order_id(*a) != list_client_id(*a[:5], a[6])


@pytest.mark.parametrize("foreign", [None, "", "web_123", "tw", "twe123", "x-R4BD3S82", "twq" + "0" * 32])
def test_what_others_sent_is_not_ours(foreign: str | None) -> None:
    assert not is_ours(foreign)


def test_a_bar_without_a_time_zone_names_nothing() -> None:
    with pytest.raises(ValueError, match="time zone"):
        client_order_id("a", "1", "SOL/USDT", datetime(2024, 1, 1), 0, OrderRole.ENTRY, 0)


def test_the_intent_is_readable_and_its_own() -> None:
    assert intent_id("a", "1", "SOL/USDT", BAR).startswith("SOLUSDT-20240305T1200-")
    assert intent_id("a", "1", "SOL/USDT", BAR) != intent_id("b", "1", "SOL/USDT", BAR)


# ------------------------------------------------------------------------------------------------------------- resolve
RECV_S = 5.0
LATE = NOW + timedelta(seconds=10.001)


def test_absence_is_proven_only_after_the_window_and_five_seconds() -> None:
    assert not absence_proven(NOW, NOW + timedelta(seconds=10), RECV_S)
    assert absence_proven(NOW, LATE, RECV_S)


def test_found_means_its_state() -> None:
    unknown = order(state=OrderState.UNKNOWN)
    assert resolve(unknown, seen(OrderState.FILLED), NOW, RECV_S).state is OrderState.FILLED


def test_not_known_yet_is_awaited() -> None:
    answer = resolve(order(state=OrderState.UNKNOWN), None, NOW + timedelta(seconds=9), RECV_S)
    assert (answer.state, answer.next_generation) == (None, None)


def test_an_absent_entry_is_expired_and_never_sent_again() -> None:
    answer = resolve(order(state=OrderState.UNKNOWN), None, LATE, RECV_S)
    assert (answer.state, answer.next_generation) == (OrderState.EXPIRED, None)


@pytest.mark.parametrize("role", [OrderRole.STOP, OrderRole.TARGET, OrderRole.EXIT])
def test_an_absent_exit_gets_a_successor(role: OrderRole) -> None:
    answer = resolve(order(state=OrderState.UNKNOWN, role=role, generation=3), None, LATE, RECV_S)
    assert (answer.state, answer.next_generation) == (OrderState.EXPIRED, 4)


def test_planned_and_never_sent_needs_no_waiting() -> None:
    planned = replace(order(state=OrderState.PLANNED), sent_at=None)
    assert resolve(planned, None, NOW, RECV_S).state is OrderState.EXPIRED
