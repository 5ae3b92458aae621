"""One log of events, once over HTTP and once in process: the same trades, the same orders, the same money.

Orders of every kind, lists, cancels, steps of the clock, faults and kills are thrown at a server with a database;
beside it the same commands go to an exchange object. `SOAK=1` makes it 100,000 events.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.support.paper_events import LIST_PATHS, SOAK, Commands, list_parameters, order_parameters
from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess
from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_types import ListKind, NewOrder, OrderStatus, Refusal
from tradewind.paper.clock import MarketClock
from tradewind.paper.exchange import PaperExchange
from tradewind.paper.markets_synthetic import SyntheticMarket
from tradewind.paper.store import SavedState
from tradewind.paper.views import order_view

START = 1_760_000_040_000
SYMBOLS = ("BTC/USDT", "ETH/USDT")
MOST_LOTS = {"BTCUSDT": 40_000, "ETHUSDT": 40_000}
DEPOSIT = {"USDT": "100000", "BTC": "5", "ETH": "50"}
EVENTS = 100_000 if SOAK else 1_000
CARRIED_OUT = ("drop_after", "error_after", "timeout_after")
NOT_CARRIED_OUT = ("refuse", "error_before", "timeout_before", "rate_limited", "skewed")
DIALECT_ALONE = (-1158, -1165, -1166, -1168, -1196, -1197, -1198, -1199, -1117, -1106, -1102)
"""Refusals that are made before the engine is asked."""


class TwinRun:
    """The server, its twin in process, and the log that both follow."""

    def __init__(self, server: PaperServerProcess, seed: int) -> None:
        self.rng = random.Random(seed)
        self.server = server
        self.commands = Commands(self.rng, MOST_LOTS)
        self.now = START
        server.admin.set_clock(START)
        self.account = server.create_account(**DEPOSIT)
        self.client = RawClient(server.url, self.account)
        self.twin = PaperExchange(SyntheticMarket(SYMBOLS, 7), None)
        self.twin.restore(SavedState(), START)
        self.twin.set_clock(MarketClock.frozen(START, START), START)
        self.twin.create_account({a: Decimal(v) for a, v in DEPOSIT.items()}, "a")
        self.seen: Counter[str] = Counter()
        self.restarts = 0

    def step(self) -> None:
        action = self.rng.random()
        symbol = self.rng.choice(list(MOST_LOTS))
        if action < 0.12:
            self.move()
        elif action < 0.55:
            self.place(symbol)
        elif action < 0.80:
            self.place_list(symbol)
        elif action < 0.94:
            self.cancel()
        else:
            self.amend()

    def price(self, symbol: str) -> int:
        found = self.twin.view.price(symbol, self.now)
        assert found is not None
        return found

    def move(self) -> None:
        self.now += self.rng.choice((500, 61_000, 61_000, 900_000, 7_200_000))
        self.server.admin.set_clock(self.now)
        self.twin.set_clock(MarketClock.frozen(self.now, START), START)
        self.seen["moved"] += 1

    def kill(self) -> None:
        """kill -9 and restart, at a fresh bar: what an account took from the book within a bar is not written down."""
        self.now = (self.now // 60_000 + 1) * 60_000
        self.server.admin.set_clock(self.now)
        self.twin.set_clock(MarketClock.frozen(self.now, START), START)
        self.server.kill()
        self.server.start()
        self.client = RawClient(self.server.url, self.account)
        self.restarts += 1

    def send(self, method: str, path: str, **sent: Any) -> tuple[httpx.Response | None, str]:
        """(answer or None when it was lost, the fault that struck)."""
        fault = ""
        if method == "POST" and self.rng.random() < 0.04:
            fault = self.rng.choice((*CARRIED_OUT, *NOT_CARRIED_OUT, "partial_fill", "reject_leg"))
            self.server.admin.add_fault(fault, method="POST", path="/api/v3/order*", times=1)
            self.seen[fault] += 1
        try:
            answer = self.client.signed(method, path, **sent)
        except httpx.HTTPError:
            assert fault in ("drop_after", "refuse"), fault
            answer = None
        if fault:
            self.server.admin.clear_faults()
        if fault in CARRIED_OUT:
            answer = None
        return answer, fault

    def place(self, symbol: str) -> None:
        new = self.commands.order(symbol, self.price(symbol))
        answer, fault = self.send("POST", "/api/v3/order", **order_parameters(new, self.twin.engine.rules[symbol]))
        if fault in NOT_CARRIED_OUT:
            return
        self.twin.refresh(symbol, self.now)
        cap = int(new.lots * 0.5) if fault == "partial_fill" else None
        try:
            self.twin.engine.place("a", new, self.now, take_cap_lots=cap)
            outcome = 200, "placed"
        except Refusal:
            outcome = 400, "refused"
        assert answer is None or answer.status_code == outcome[0], (new, outcome, answer.text)
        self.seen[outcome[1]] += 1

    def place_list(self, symbol: str) -> None:
        new = self.commands.order_list(symbol, self.price(symbol))
        path, sent = LIST_PATHS[new.kind], list_parameters(new, self.twin.engine.rules[symbol])
        answer, fault = self.send("POST", path, **sent)
        if fault in NOT_CARRIED_OUT:
            return
        if new.kind.is_sized_from_proceeds and new.orders[0].side.name != "BUY":
            assert answer is None or answer.json()["code"] == -1117
            return
        if answer is not None and answer.status_code == 400 and answer.json()["code"] in DIALECT_ALONE:
            self.seen["refused by the dialect"] += 1
            return
        self.twin.refresh(symbol, self.now)
        if fault == "reject_leg":
            new = doomed(new)
        cap = int(new.orders[0].lots * 0.5) if fault == "partial_fill" else None
        try:
            self.twin.engine.place_list("a", new, self.now, take_cap_lots=cap)
            outcome = 200, "list placed"
        except Refusal:
            outcome = 400, "list refused"
        assert answer is None or answer.status_code == outcome[0], (new, outcome, answer.text)
        self.seen[outcome[1]] += 1

    def cancel(self) -> None:
        resting = self.twin.engine.open_orders("a")
        if not resting:
            return
        order = self.rng.choice(resting)
        answer, _ = self.send("DELETE", "/api/v3/order", symbol=order.symbol, orderId=order.order_id)
        assert answer is not None
        assert answer.status_code == 200, answer.text
        self.twin.engine.cancel("a", order.order_id, self.now)
        self.seen["cancelled"] += 1

    def amend(self) -> None:
        resting = self.twin.engine.open_orders("a")
        if not resting:
            return
        order = self.rng.choice(resting)
        rules = self.twin.engine.rules[order.symbol]
        lots, name = self.rng.randrange(1, order.lots + 2), self.commands.name()
        answer, _ = self.send(
            "PUT", "/api/v3/order/amend/keepPriority", symbol=order.symbol, orderId=order.order_id,
            newQty=str(rules.quantity(lots)), newClientOrderId=name,
        )  # fmt: skip
        self.twin.refresh(order.symbol, self.now)
        try:
            self.twin.engine.amend("a", order.order_id, lots, name, self.now)
            outcome = 200, "amended"
        except Refusal:
            outcome = 400, "amendment refused"
        assert answer is not None
        assert answer.status_code == outcome[0], (order, lots, answer.text)
        self.seen[outcome[1]] += 1

    def compare(self) -> None:
        """Both sides say the same, and what they say is lawful."""
        twin, state = self.twin, self.server.admin.state()["accounts"][self.account.account_id]
        twin.collect()
        keys = ("trade_id", "symbol", "order_id", "price_ticks", "lots", "commission_atoms", "is_maker", "time_ms")
        mine = [f for (_, _), fills in twin.fills.items() for f in fills]
        assert sorted(tuple(f[k] for k in keys) for f in state["fills"]) == sorted(
            tuple(getattr(f, k) for k in keys) for f in mine
        )
        assert state["orders"] == [order_view(o, twin.engine.rules[o.symbol]) for o in twin.engine.orders.values()]
        balances = {a: (Decimal(b["free"]), Decimal(b["locked"])) for a, b in state["balances"].items()}
        assert balances == twin.balances("a")
        net: Counter[str] = Counter()
        for fill in state["fills"]:
            rules = twin.engine.rules[fill["symbol"]]
            net[rules.base] += fill["side"] * fill["lots"] * rules.base_atoms_per_lot
            net[rules.quote] -= fill["side"] * fill["quote_atoms"]
            net[fill["commission_asset"]] -= fill["commission_atoms"]
        for asset, (free, locked) in balances.items():
            assert free >= 0, asset
            assert locked >= 0, asset
            assert free + locked == Decimal(DEPOSIT[asset]) + Decimal(net[asset]).scaleb(-8)
        for order_list in twin.engine.lists.values():
            orders = [twin.engine.orders[i] for i in order_list.order_ids]
            assert order_list.is_done == (not any(o.is_open for o in orders))
            if order_list.kind.has_working_leg:
                waiting = any(o.status is OrderStatus.PENDING_NEW for o in orders[1:])
                assert waiting == orders[0].is_open
            if order_list.kind in (ListKind.OCO, ListKind.OTOCO, ListKind.OPOCO):
                assert sum(o.filled_lots > 0 for o in orders[-2:]) <= 1


def doomed(new: NewOrderList) -> NewOrderList:
    """The list as the fault `reject_leg` makes it."""
    leg = min(2, len(new.orders) - 1)
    orders: list[NewOrder] = list(new.orders)
    orders[leg] = replace(orders[leg], tags=(("fault", "reject"),))
    return replace(new, orders=tuple(orders))


@pytest.mark.timeout(7200 if SOAK else 300)
def test_http_and_in_process_end_alike(empty_postgres_url: str) -> None:
    with PaperServerProcess(empty_postgres_url) as server:
        run = TwinRun(server, 11)
        for i in range(1, EVENTS + 1):
            run.step()
            if i % (5000 if SOAK else 500) == 0:
                run.kill()
                run.compare()
        assert "defect" not in server.log()
    for what in (
        "placed",
        "amended",
        "list placed",
        "refused",
        "cancelled",
        "moved",
        "drop_after",
        "partial_fill",
        "reject_leg",
    ):
        assert run.seen[what] > 0, run.seen
    print(f"{EVENTS} events, {run.restarts} kills: {dict(run.seen)}")
