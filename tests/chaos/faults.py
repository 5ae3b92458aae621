"""What may happen to a task, drawn by seed: the kind, the step, and how it is done to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.arena import Arena
from tests.chaos.crashing import Fuse, mined, run_and_die
from tests.chaos.markets import SpotMarket
from tests.chaos.troubles import ON_BOTH, ON_FUTURES, ON_SPOT, TROUBLES, Stage, Trouble, draw_trouble
from tests.support.trading_rig import Rig
from tradewind.errors import TradewindError

# At a moment between two outside calls of the task.
KILLED = "kill -9"
TWICE = "twice at once"
POSTGRES = "PostgreSQL restarted"
REDIS = "Redis flushed"
EXCHANGE = "exchange restarted"
BETWEEN_CALLS = (KILLED, TWICE, POSTGRES, REDIS, EXCHANGE)

# In one call to the exchange, whichever it is: rules of the paper exchange.
IN_A_CALL: dict[str, list[dict[str, Any]]] = {
    "accepted, then hangs": [{"action": "hang_after", "seconds": 2}],
    "accepted, then dropped": [{"action": "drop_after"}],
    "5xx": [
        {"action": "error_after", "status": 503},
        {"action": "error_before", "status": 500},
        {"action": "timeout_after"},
        {"action": "timeout_before"},
    ],
    "429, 418": [
        {"action": "rate_limited", "retry_after_s": 1},
        {"action": "banned", "retry_after_s": 1},
    ],
    "connection refused": [{"action": "refuse"}],
}
PARTIAL = "partial fill"
# In one answer about prices, or in a few after each other.
ABSURD: dict[str, list[dict[str, Any]]] = {
    "zero bid": [{"shape": "zero"}, {"shape": "empty"}, {"shape": "no_bids"}],
    "one-sided, crossed": [{"shape": "crossed"}, {"shape": "no_asks"}],
    "absurd jump": [{"shape": "jumped", "price_frac": frac} for frac in (-0.99, -0.6, 1.5, 50.0)],
}
OLD_KINDS = (*BETWEEN_CALLS, *IN_A_CALL, PARTIAL)
SPOT_KINDS = (*OLD_KINDS, *ABSURD, *ON_BOTH, *ON_SPOT)
FUTURES_KINDS = (*OLD_KINDS, *ABSURD, *ON_BOTH, *ON_FUTURES)
KINDS = (*OLD_KINDS, *ABSURD, *TROUBLES)
# Twice as often what kills, resends or doubles; restarts cost seconds each.
WEIGHTS = {KILLED: 3, TWICE: 2, POSTGRES: 0.5, EXCHANGE: 0.5, "zero bid": 2, "halted": 2, "TRIGGERING hangs": 2}


@dataclass(frozen=True)
class Steps:
    """How many moments, exchange calls and questions for prices a job has when nothing goes wrong."""

    moments: int
    calls: int
    prices: int


@dataclass(frozen=True)
class Fault:
    """One accident: its kind, the numbered step it strikes at, and the exchange's rule or trouble where it has one."""

    kind: str
    step: int
    rule: dict[str, Any] = field(default_factory=dict)
    trouble: Trouble | None = None

    @property
    def words(self) -> str:
        detail = self.trouble.words if self.trouble is not None else " ".join(str(v) for v in self.rule.values())
        return f"{self.kind} at step {self.step}" + (f" ({detail})" if detail else "")

    def strike(
        self, arena: Arena, build: Callable[[], Rig], job: Callable[[Rig], Any], begun: Callable[[bool], None]
    ) -> bool:
        """Run the job while this happens to it; False when the job was over before the step.

        `begun` is called at the moment a trouble has begun, and told whether the job had just asked whether the market
        trades: one cancellation may then follow. What lasts is left for the caller to end.
        """
        if self.kind == KILLED:
            return run_and_die(build, lambda rig: quietly(job, rig), self.step)
        rig = build()
        if self.rule:
            rule = rig.admin.add_fault(**self.rule)
            quietly(job, rig)
            if self.kind in ABSURD:
                return True  # it may also meet the looks that follow
            (now,) = [found for found in rig.admin.faults() if found["id"] == rule["id"]]
            rig.admin.clear_faults()
            return bool(now["struck"])
        accidents: dict[str, Callable[[], Any]] = {
            TWICE: lambda: quietly(job, build()),
            POSTGRES: arena.restart_postgres,
            REDIS: arena.flush_redis,
            EXCHANGE: arena.restart_exchange,
        }

        def happens() -> None:
            assert self.trouble is not None
            self.trouble.start(arena.exchange.admin)
            begun(fuse.has_asked)

        fuse = Fuse(self.step, accidents.get(self.kind, happens))
        quietly(job, mined(rig, fuse))
        return fuse.struck


def draw(rng: random.Random, kind: str, steps: Steps, stage: Stage) -> Fault:
    """A fault of this kind at a random step of a job with so many."""
    if kind in BETWEEN_CALLS:
        return Fault(kind, rng.randrange(steps.moments))
    if kind in TROUBLES:
        return Fault(kind, rng.randrange(steps.moments), trouble=draw_trouble(rng, kind, stage))
    market: SpotMarket = stage.market
    if kind == PARTIAL:
        frac = rng.choice([0.1, 0.4, 0.9])
        rule = {"action": "partial_fill", "frac": frac, "method": "POST", "path": market.entry_path, "times": 1}
        return Fault(kind, 1, rule)
    if kind in ABSURD:
        step = 1 + rng.randrange(steps.prices + 2)  # beyond the job's own it meets the looks that follow
        when: dict[str, Any] = {"nth": step} if rng.random() < 0.7 else {"times": rng.randrange(2, 5)}
        bent = {"action": "book", **rng.choice(ABSURD[kind]), "path": "*/bookTicker", **when}
        return Fault(kind, step, bent | ({"of_symbol": stage.symbol} if rng.random() < 0.7 else {}))
    step = 1 + rng.randrange(steps.calls)
    return Fault(kind, step, {**rng.choice(IN_A_CALL[kind]), "path": market.path, "nth": step})


def draw_kind(rng: random.Random, kinds: tuple[str, ...]) -> str:
    return rng.choices(kinds, [WEIGHTS.get(kind, 1) for kind in kinds])[0]


def quietly(job: Callable[..., Any], *args: Any) -> Any:
    """A task that fails is a red square in the UI; what counts is what it leaves behind."""
    try:
        return job(*args)
    except TradewindError:
        return None
