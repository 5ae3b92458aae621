"""One trade from entry over a moved stop to the breaker's flatten, with a fault in each part, healed and judged."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any

from tests.chaos.arena import Arena
from tests.chaos.crashing import Fuse, mined
from tests.chaos.faults import ABSURD, Fault, Steps, draw, quietly
from tests.chaos.markets import SpotMarket
from tests.chaos.troubles import Stage, Trouble
from tests.support import invariants
from tests.support.invariants import NAKED_BOUND_S
from tests.support.trading_rig import Rig
from tradewind.core.brackets import floor_to_step
from tradewind.core.types import Instrument, Intent, MarketStatus, OrderRole, PositionStatus, TradingMode
from tradewind.errors import TradewindError
from tradewind.jobs.accepting import accept_difference, unexplained
from tradewind.jobs.equity import mark_equity
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import carry_on_flatten, trip_circuit_breaker, watch_risk_once
from tradewind.jobs.trading import place_brackets

PHASES = ("entry", "stop replacement", "flatten")
# How long one question takes on a machine with nothing else to do; on a slower one the bound is longer by as much.
_QUESTION_S = 0.05
# More than the watch's pause: what hangs for longer than a moment has hung by then.
_BETWEEN_LOOKS_MS = 4_000
_BREACH_FRAC = -0.25  # of a position of a fifth of the money: some 4 % of it, where the stop did not sell before
_ZERO = Decimal(0)


@dataclass
class Judgement:
    """What one fault left behind, after healing; each entry says in words what is wrong."""

    doubled: list[str] = field(default_factory=list)
    naked: list[str] = field(default_factory=list)
    shrunk: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    lost_fills: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    latch: list[str] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)
    blind: list[str] = field(default_factory=list)
    naked_s: float = 0.0

    @property
    def wrongs(self) -> dict[str, list[str]]:
        found = {name: getattr(self, name) for name in COLUMNS}
        return {name: words for name, words in found.items() if words}


COLUMNS = tuple(column.name for column in fields(Judgement) if column.name != "naked_s")


class Life:
    """One account's one trade."""

    def __init__(self, arena: Arena, rng: random.Random, market: SpotMarket | None = None) -> None:
        self.arena, self._rng, self.market = arena, rng, market or SpotMarket()
        self.build, self._truth, account = arena.new_account(self.market)
        self.stage = Stage(self.market, account)
        self.rig = self.build()
        self.rig.make_ready()
        self.started_quote = mark_equity(self.rig)
        self.intent: Intent = self.market.decide(self.rig)
        self.found = Judgement()
        self._closed_s = 0.0  # how long the symbol could not be traded
        self._question_s = _QUESTION_S
        self._protected: Decimal | None = None  # what stops rested for when the symbol closed
        self._money_moved = False
        self._healed_s = 0.0  # how long the watch's looks took to cover what was bare
        self.history: list[str] = []  # what happened to it, in words

    @property
    def id(self) -> str:
        return self.intent.intent_id

    def is_open(self) -> bool:
        position = self.rig.trading_store.position(self.id)
        return position is not None and position.status is PositionStatus.OPEN

    @property
    def words(self) -> str:
        where = f"{self.rig.account} on {type(self.market).__name__}, {self.market.side.value}"
        return f"{where}: {', then '.join(self.history)}"

    def close(self) -> None:
        self.arena.exchange.admin.calm()
        self.arena.close()

    # --------------------------------------------------------------------------------------------------------- phases
    def job(self, phase: str) -> Callable[[Rig], Any]:
        """What the task of a phase runs."""
        if phase == "entry":
            return lambda rig: place_brackets(rig, self.id)
        return manage_positions if phase == "stop replacement" else trip_circuit_breaker

    def prepare(self, phase: str) -> None:
        quietly(watch_risk_once, self.rig)
        if phase == "stop replacement":
            self._want_better_stop()

    def count_steps(self, phase: str) -> Steps:
        """Run a phase's job with nothing going wrong, counting its steps."""
        self.prepare(phase)
        fuse = Fuse(None)
        rules = [self.rig.admin.add_fault("delay", seconds=0.0, path=p) for p in (self.market.path, "*/bookTicker")]
        self.job(phase)(mined(self.build(), fuse))
        seen = {rule["id"]: rule["seen"] for rule in self.rig.admin.faults()}
        self.rig.admin.clear_faults()
        calls, prices = (seen[rule["id"]] for rule in rules)
        return Steps(fuse.seen, calls, prices)

    def draw(self, kind: str, steps: Steps) -> Fault:
        return draw(self._rng, kind, steps, self.stage)

    def undergo(self, phase: str, fault: Fault) -> Judgement | None:
        """A fault in the phase, healed and judged; None when the job was over before its step."""
        self.found = Judgement()
        self._protected = None
        self.history.append(f"{fault.words} during {phase}")
        self.prepare(phase)
        struck = fault.strike(self.arena, self.build, self.job(phase), lambda asked: self._begun(fault.trouble, asked))
        if fault.kind in ABSURD:
            self._live_on(phase)
            self.rig.admin.clear_faults()
        if fault.trouble is not None and struck:
            self._endure(phase, fault.trouble)
        self._heal(phase)
        self._judge(phase)
        return self.found if struck or self.found.wrongs else None

    def breach(self) -> Judgement:
        """The price falls (for a short: rises) until the breaker's limit is passed, or is not: it latches or does not.

        The loss is a share of the money that is there now, whatever was paid in or out before.
        """
        self.found = Judgement()
        self.history.append("breach")
        admin, sign = self.arena.exchange.admin, self.market.sign
        admin.shock(sign * _BREACH_FRAC, self.stage.symbol)
        lost_frac = -self._result_quote() / self._money_quote()
        for _ in range(2):
            self._look()
        halted = self.rig.trading_store.latch().mode is TradingMode.HALTED
        if halted != (lost_frac >= self._loss_limit) and abs(lost_frac - self._loss_limit) > Decimal("0.002"):
            self.found.latch.append(f"{lost_frac:.2%} lost and the latch is {'' if halted else 'not '}closed")
        quietly(trip_circuit_breaker, self.rig)
        self._heal("flatten")
        self._judge("flatten")
        admin.shock(1 / (1 + sign * _BREACH_FRAC) - 1, self.stage.symbol)
        return self.found

    def _want_better_stop(self) -> None:
        """What the bar rule leaves behind: a wanted stop that does not rest yet."""
        store = self.rig.trading_store
        with store.position_lock(self.id) as held:
            assert held
            position = store.position(self.id)
            assert position is not None
            nearer = 1 + Decimal(self.market.sign) / 100
            moved = floor_to_step(position.stop_price * nearer, Decimal("0.01"))
            store.save_position(replace(position, stop_price=moved), "stop_moved", self.rig.clock.now())

    # ------------------------------------------------------------------------------------------------ while it lasts
    def _begun(self, trouble: Trouble | None, had_asked: bool) -> None:
        """Between the question whether a market trades and a cancellation it may close: of one list, no more."""
        assert trouble is not None
        self._money_moved |= trouble.moves_money
        if trouble.closes and not trouble.ends_orders:
            stops = self.market.stops(self._truth)
            surprised = max(stops, default=_ZERO) if had_asked else _ZERO
            self._protected = sum(stops, _ZERO) - surprised

    def _endure(self, phase: str, trouble: Trouble) -> None:
        """The watch and the minutes go on while the trouble lasts; then it is lifted."""
        began = time.monotonic()
        self._live_on(phase)
        if self._protected is not None:
            now, held = self.market.guarded(self._truth), self.market.held(self._truth)
            self.found.shrunk += invariants.shrunk(self._protected, now, held)
        self.found.forgotten += invariants.forgotten(self.rig, self.rig.account, self._rules_of)
        trouble.stop(self.arena.exchange.admin)
        if trouble.closes:
            self._closed_s += time.monotonic() - began

    def _live_on(self, phase: str) -> None:
        for _ in range(2):
            self.arena.exchange.admin.step_ms(_BETWEEN_LOOKS_MS)
            self._look()
            self._run(manage_positions)
        if phase == "entry":
            self._run(lambda rig: place_brackets(rig, self.id))
        if phase == "flatten":
            self._run(carry_on_flatten)

    def _look(self) -> None:
        """One look of the watch, which nothing that happens to one symbol may keep from reading."""
        try:
            watch_risk_once(self.rig)
        except Exception as error:  # noqa: BLE001 - whatever it is, the watch saw nothing
            self.found.blind.append(f"the watch: {type(error).__name__}: {error}")

    def _run(self, job: Callable[[Rig], Any]) -> None:
        """A task's failure is repeated by the next one; one that no program expected is a defect."""
        try:
            job(self.rig)
        except TradewindError:
            pass
        except Exception as error:  # noqa: BLE001 - told in words
            self.found.blind.append(f"a task: {type(error).__name__}: {error}")

    # -------------------------------------------------------------------------------------------------------- healing
    def _heal(self, phase: str) -> None:
        """What the watch's next looks, the next minutes, a person pressing Clear and one explaining transfers do."""
        rig = self.rig
        began, self._healed_s = time.monotonic(), 0.0
        while self._bare() and time.monotonic() - began < 2 * self._bound_s:
            self._healed_s = time.monotonic() - began
            quietly(watch_risk_once, rig)
            time.sleep(0.1)
        if phase == "entry":
            if self._rng.random() < 0.3:
                rig.admin.step_ms(200_000)  # past the intent's expiry
            self._run(lambda rig: place_brackets(rig, self.id))
        self._run(manage_positions)
        # What nobody answered for is old enough to be proven absent.
        rig.database.execute(
            "UPDATE orders SET sent_at = sent_at - interval '60 seconds' WHERE account = %s AND state = 'unknown'",
            (rig.account,),
        )
        self._run(manage_positions)
        if phase == "entry":
            self._run(lambda rig: place_brackets(rig, self.id))
        if phase == "flatten":
            if rig.trading_store.latch().mode is not TradingMode.HALTED:  # killed before it could latch
                self._run(trip_circuit_breaker)
            for _ in range(3):
                if quietly(carry_on_flatten, rig) is True:
                    break
            self._run(manage_positions)
        if self._money_moved:
            if phase == "flatten" and rig.trading_store.live_positions():
                self.found.unequal.append("not flat before a person explained what they moved")
            self._explain()
        self._run(manage_positions)

    def _explain(self) -> None:
        """A person accepts what they moved themselves."""
        for asset in quietly(unexplained, self.rig) or {}:
            quietly(accept_difference, self.rig, asset, "moved by its owner", "owner")

    @property
    def _bound_s(self) -> float:
        """How long anything may be bare: the bound, on a machine as slow as this one was since the trade began."""
        began = time.monotonic()
        self._truth.exchange.balances()
        self._question_s = max(self._question_s, time.monotonic() - began)
        return NAKED_BOUND_S * self._question_s / _QUESTION_S

    def _bare(self) -> Decimal:
        """What is held without a stop, by the exchange's word and its rules of this moment."""
        held, guarded = self.market.held(self._truth), self.market.guarded(self._truth)
        return invariants.bare(held, guarded, self.intent.stop_price, self._instrument())

    def _instrument(self) -> Instrument:
        rules = self._rules_of(self.market.symbol)
        assert rules is not None
        return rules

    def _rules_of(self, symbol: str) -> Instrument | None:
        return self.arena.rules_of(self._truth, self.market, symbol)

    # -------------------------------------------------------------------------------------------------------- judging
    def _judge(self, phase: str) -> None:
        self._judge_orders()
        self._judge_protection()
        self._judge_ledger()
        if phase == "flatten":
            self._judge_flat()
        elif self.rig.trading_store.latch().mode is TradingMode.HALTED:
            lost_frac = -self._result_quote() / self._money_quote()
            if lost_frac < self._loss_limit:
                self.found.latch.append(f"halted although {lost_frac:.2%} is lost")

    @property
    def _loss_limit(self) -> Decimal:
        return Decimal(str(self.rig.params.max_daily_loss_frac))

    def _judge_orders(self) -> None:
        found, everything = self.found, self.market.placed(self._truth)
        entered = sum((order.executed for order in everything if order.opens), _ZERO)
        found.doubled += invariants.doubled([o.client_id for o in everything], entered, self.intent.quantity)
        held, guarded = self.market.held(self._truth), self.market.guarded(self._truth)
        if held < 0:
            found.doubled.append(f"{-held} sold of what the account held before")
        if guarded > max(held, _ZERO):
            found.doubled.append(f"stops rest for {guarded}, held is {held}")
        late = self.intent.expires_at.timestamp() * 1000
        found.expired += [order.client_id for order in everything if order.opens and order.at_ms > late]
        found.undecided += invariants.undecided(self.rig.trading_store.orders_of(self.id))

    def _judge_protection(self) -> None:
        found, spans = self.found, self.rig.trading_store.unprotected_spans(self.id)
        if (bare := self._bare()) and self.rig.exchange.market_status(self.market.symbol) is MarketStatus.TRADING:
            found.naked.append(f"{bare} held without a stop after healing")
        measured = [span.seconds - self._closed_s for span in spans if span.seconds is not None]
        found.naked_s = max([self._healed_s, *measured])
        bound_s = self._bound_s
        found.naked += invariants.bare_too_long(spans, bound_s, self._closed_s)
        if self._healed_s > bound_s:
            found.naked.append(f"the watch left it bare for {self._healed_s:.1f} s")

    def _judge_ledger(self) -> None:
        found, rig = self.found, self.rig
        rows = rig.database.rows("SELECT trade_id FROM fills WHERE account = %s", (rig.account,))
        fills = [
            fill
            for fill in self._truth.exchange.fills_since(self.market.symbol, self.intent.bar)
            if not fill.client_order_id.startswith("web_")
        ]
        found.lost_fills += invariants.lost_fills({row["trade_id"] for row in rows}, fills)
        found.unequal += invariants.unequal(rig, self._truth.holds)
        found.forgotten += invariants.forgotten(rig, rig.account, self._rules_of)
        position, resting = rig.trading_store.position(self.id), self.market.resting(self._truth)
        if (position is None or position.status in invariants.OVER) and resting:
            found.unequal.append(f"{len(resting)} orders rest for a position that is over")
        if not found.unequal:
            third = sum(self._third_fees_quote().values(), _ZERO)
            tolerance = Decimal("0.02") + third / 50
            if position is None or position.status in invariants.OVER:  # dust may count or not
                tolerance += abs(self.market.held(self._truth)) * self._mark()
            found.drifted += invariants.drifted(rig, self.started_quote, self._result_quote(), tolerance)

    def _result_quote(self) -> Decimal:
        """What the trade has brought by the exchange's word, every fee paid."""
        result, _ = self.market.result_quote(self._truth, self._mark())
        return result - sum(self._third_fees_quote().values(), _ZERO)

    def _third_fees_quote(self) -> dict[str, Decimal]:
        _, third = self.market.result_quote(self._truth, self._mark())
        quote = self.market.symbol.split("/")[1]
        return {asset: fee * self._truth.bid(f"{asset}/{quote}") for asset, fee in third.items()}

    def _mark(self) -> Decimal:
        book = self._truth.exchange.book_tops([self.market.symbol])[self.market.symbol]
        return book.bid if self.market.sign > 0 else book.ask

    def _money_quote(self) -> Decimal:
        """The money that was there before the trade, with what was paid in or out since."""
        quote = self.market.symbol.split("/")[1]
        return self.started_quote + self.rig.trading_store.accepted_differences().get(quote, _ZERO)

    def _judge_flat(self) -> None:
        found, store = self.found, self.rig.trading_store
        opened = any(row["mode"] == "active" for row in store.latch_history())
        if store.latch().mode is not TradingMode.HALTED or opened:
            found.latch.append("the latch opened by itself")
        if store.live_positions():
            found.unequal.append("not flat")
        position = store.position(self.id)
        sold = [o for o in store.orders_of(self.id) if o.role is not OrderRole.ENTRY]
        if position is not None and sum((o.filled_quantity for o in sold), _ZERO) > position.entry_quantity:
            found.doubled.append("more was sold than bought")
