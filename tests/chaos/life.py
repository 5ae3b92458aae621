"""One trade from entry over a moved stop to the breaker's flatten, with a fault in each part, healed and judged."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from tests.chaos.arena import Arena
from tests.chaos.crashing import Fuse, mined
from tests.chaos.faults import Fault, Steps, draw, quietly
from tests.chaos.markets import SYMBOL, SpotMarket
from tests.support.trading_rig import Rig
from tradewind.core.brackets import floor_to_step, is_tradable
from tradewind.core.orders import AT_EXCHANGE, is_final
from tradewind.core.types import Intent, OrderRole, PositionStatus, Side, TradingMode
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.reconciling import asset_flows
from tradewind.jobs.safety import carry_on_flatten, trip_circuit_breaker, watch_risk_once
from tradewind.jobs.trading import place_brackets

PHASES = ("entry", "stop replacement", "flatten")
# The deadline of protection, the watch's next look, and the time its own work takes.
NAKED_BOUND_S = 10.0
_OVER = (PositionStatus.CLOSED, PositionStatus.DUST)
_ZERO = Decimal(0)


@dataclass
class Judgement:
    """What one fault left behind, after healing; each entry says in words what is wrong."""

    doubled: list[str] = field(default_factory=list)
    naked: list[str] = field(default_factory=list)
    lost_fills: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    unlatched: list[str] = field(default_factory=list)
    naked_s: float = 0.0

    @property
    def wrongs(self) -> dict[str, list[str]]:
        found = {name: getattr(self, name) for name in COLUMNS}
        return {name: words for name, words in found.items() if words}


COLUMNS = ("doubled", "naked", "lost_fills", "unequal", "undecided", "expired", "unlatched")


class Life:
    """One account's one trade."""

    def __init__(self, arena: Arena, rng: random.Random, market: SpotMarket | None = None) -> None:
        self.arena, self._rng, self.market = arena, rng, market or SpotMarket()
        self.build, self._truth = arena.new_account(self.market)
        self.rig = self.build()
        self.rig.make_ready()
        self.intent: Intent = self.market.decide(self.rig)

    @property
    def id(self) -> str:
        return self.intent.intent_id

    def is_open(self) -> bool:
        position = self.rig.trading_store.position(self.id)
        return position is not None and position.status is PositionStatus.OPEN

    # --------------------------------------------------------------------------------------------------------- phases
    def job(self, phase: str) -> Callable[[Rig], Any]:
        """What the task of a phase runs."""
        if phase == "entry":
            return lambda rig: place_brackets(rig, self.id)
        return manage_positions if phase == "stop replacement" else trip_circuit_breaker

    def prepare(self, phase: str) -> None:
        watch_risk_once(self.rig)
        if phase == "stop replacement":
            self._want_better_stop()

    def count_steps(self, phase: str) -> Steps:
        """Run a phase's job with nothing going wrong, counting its steps."""
        self.prepare(phase)
        fuse = Fuse(None)
        rule = self.rig.admin.add_fault("delay", seconds=0.0, path=self.market.path)
        self.job(phase)(mined(self.build(), fuse))
        (counted,) = [found for found in self.rig.admin.faults() if found["id"] == rule["id"]]
        self.rig.admin.clear_faults()
        return Steps(fuse.seen, counted["seen"])

    def suffer(self, phase: str, kind: str, steps: Steps) -> Judgement | None:
        """One fault of the kind in the phase, healed and judged; None when the job was over before its step."""
        return self.undergo(phase, draw(self._rng, kind, steps, self.market))

    def undergo(self, phase: str, fault: Fault) -> Judgement | None:
        """The same with a fault that is given."""
        self.prepare(phase)
        struck = fault.strike(self.arena, self.build, self.job(phase))
        judgement = self._judge(phase, self._heal(phase))
        return judgement if struck or judgement.wrongs else None

    def _want_better_stop(self) -> None:
        """What the bar rule leaves behind: a wanted stop that does not rest yet."""
        store = self.rig.trading_store
        with store.position_lock(self.id) as held:
            assert held
            position = store.position(self.id)
            assert position is not None
            nearer = Decimal("1.01") if self.market.side is Side.LONG else Decimal("0.99")
            moved = floor_to_step(position.stop_price * nearer, Decimal("0.01"))
            store.save_position(replace(position, stop_price=moved), "stop_moved", self.rig.clock.now())

    # -------------------------------------------------------------------------------------------------------- healing
    def _heal(self, phase: str) -> float:
        """What the watch's next looks, the next minutes and a person pressing Clear do; returns the naked seconds."""
        rig = self.rig
        began = time.monotonic()
        while self._naked() and time.monotonic() - began < 2 * NAKED_BOUND_S:
            quietly(watch_risk_once, rig)
            time.sleep(0.1)
        naked_s = time.monotonic() - began if time.monotonic() - began > 0.5 else 0.0
        if phase == "entry":
            if self._rng.random() < 0.3:
                rig.admin.step_ms(200_000)  # past the intent's expiry
            quietly(place_brackets, rig, self.id)
        quietly(manage_positions, rig)
        # What nobody answered for is old enough to be proven absent.
        rig.database.execute(
            "UPDATE orders SET sent_at = sent_at - interval '60 seconds' WHERE account = %s AND state = 'unknown'",
            (rig.account,),
        )
        quietly(manage_positions, rig)
        if phase == "entry":
            quietly(place_brackets, rig, self.id)
        if phase == "flatten":
            if rig.trading_store.latch().mode is not TradingMode.HALTED:  # killed before it could latch
                quietly(trip_circuit_breaker, rig)
            for _ in range(3):
                if quietly(carry_on_flatten, rig) is True:
                    break
            quietly(manage_positions, rig)
        manage_positions(rig)
        return naked_s

    def _naked(self) -> bool:
        held, guarded = self.market.held(self._truth), self.market.guarded(self._truth)
        instrument = self._truth.exchange.instruments([SYMBOL])[SYMBOL]
        bare = floor_to_step(held - guarded, instrument.step_size)
        return is_tradable(bare, self.intent.stop_price, instrument)

    # -------------------------------------------------------------------------------------------------------- judging
    def _judge(self, phase: str, naked_s: float) -> Judgement:
        found = Judgement()
        self._judge_orders(found)
        self._judge_protection(found, naked_s)
        self._judge_ledger(found)
        if phase == "flatten":
            self._judge_flat(found)
        return found

    def _judge_orders(self, found: Judgement) -> None:
        everything = self.market.placed(self._truth)
        entered = sum((order.executed for order in everything if order.opens), _ZERO)
        if entered > self.intent.quantity:
            found.doubled.append(f"entered {entered} of {self.intent.quantity}")
        ids = [order.client_id for order in everything]
        found.doubled += [f"{name} is there {ids.count(name)} times" for name in {*ids} if ids.count(name) > 1]
        held, guarded = self.market.held(self._truth), self.market.guarded(self._truth)
        if held < 0:
            found.doubled.append(f"{-held} sold of what the account held before")
        if guarded > max(held, _ZERO):
            found.doubled.append(f"stops rest for {guarded}, held is {held}")
        late = self.intent.expires_at.timestamp() * 1000
        found.expired += [order.client_id for order in everything if order.opens and order.at_ms > late]
        for order in self.rig.trading_store.orders_of(self.id):
            if not is_final(order.state) and order.state not in AT_EXCHANGE:
                found.undecided.append(f"{order.role.value} {order.client_order_id} is {order.state.value}")

    def _judge_protection(self, found: Judgement, naked_s: float) -> None:
        if self._naked():
            found.naked.append("held without a stop after healing")
        spans = self.rig.trading_store.unprotected_spans(self.id)
        found.naked_s = max([naked_s, *(span.seconds for span in spans if span.seconds is not None)])
        if found.naked_s > NAKED_BOUND_S:
            found.naked.append(f"without a stop for {found.naked_s:.1f} s")
        found.naked += [f"a span is open: {span.cause}" for span in spans if span.ended_at is None]

    def _judge_ledger(self, found: Judgement) -> None:
        rig = self.rig
        rows = rig.database.rows("SELECT trade_id FROM fills WHERE account = %s", (rig.account,))
        known = {row["trade_id"] for row in rows}
        fills = self._truth.exchange.fills_since(SYMBOL, self.intent.bar)
        found.lost_fills += [fill.trade_id for fill in fills if fill.trade_id not in known]
        baseline, flows = rig.trading_store.baseline() or {}, asset_flows(rig)
        for asset in {*baseline, *flows}:
            expected, actual = baseline.get(asset, _ZERO) + flows.get(asset, _ZERO), self._truth.holds(asset)
            if expected != actual:
                found.unequal.append(f"{asset}: {actual} there, {expected} in the ledger")
        position = rig.trading_store.position(self.id)
        resting = self.market.resting(self._truth)
        if (position is None or position.status in _OVER) and resting:
            found.unequal.append(f"{len(resting)} orders rest for a position that is over")
        record = rig.trading_store.last_reconciliation()
        if record is None or not record.clean:
            found.unequal.append(f"reconciliation is not clean: {record and record.report}")

    def _judge_flat(self, found: Judgement) -> None:
        store = self.rig.trading_store
        opened = any(row["mode"] == "active" for row in store.latch_history())
        if store.latch().mode is not TradingMode.HALTED or opened:
            found.unlatched.append("the latch opened by itself")
        if store.live_positions():
            found.unequal.append("not flat")
        position = store.position(self.id)
        sold = [o for o in store.orders_of(self.id) if o.role is not OrderRole.ENTRY]
        if position is not None and sum((o.filled_quantity for o in sold), _ZERO) > position.entry_quantity:
            found.doubled.append("more was sold than bought")
