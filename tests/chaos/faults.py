"""What may happen to a task, drawn by seed: the kind, the step, and how it is done to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.arena import Arena
from tests.chaos.crashing import Fuse, mined, run_and_die
from tests.chaos.markets import SpotMarket
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
KINDS = (*BETWEEN_CALLS, *IN_A_CALL, PARTIAL)
# Twice as often what kills, resends or doubles; restarts cost seconds each.
WEIGHTS = {KILLED: 4, TWICE: 3, "accepted, then hangs": 2, "accepted, then dropped": 2}


@dataclass(frozen=True)
class Steps:
    """How many moments and exchange calls a job has when nothing goes wrong."""

    moments: int
    calls: int


@dataclass(frozen=True)
class Fault:
    """One accident: its kind, the numbered step it strikes at, and the exchange's rule where it needs one."""

    kind: str
    step: int
    rule: dict[str, Any] = field(default_factory=dict)

    def strike(self, arena: Arena, build: Callable[[], Rig], job: Callable[[Rig], Any]) -> bool:
        """Run the job while this happens to it; False when the job was over before the step."""
        if self.kind == KILLED:
            return run_and_die(build, lambda rig: quietly(job, rig), self.step)
        rig = build()
        if self.rule:
            rule = rig.admin.add_fault(**self.rule)
            quietly(job, rig)
            (now,) = [found for found in rig.admin.faults() if found["id"] == rule["id"]]
            rig.admin.clear_faults()
            return bool(now["struck"])
        accidents: dict[str, Callable[[], Any]] = {
            TWICE: lambda: quietly(job, build()),
            POSTGRES: arena.restart_postgres,
            REDIS: arena.flush_redis,
            EXCHANGE: arena.restart_exchange,
        }
        fuse = Fuse(self.step, accidents[self.kind])
        quietly(job, mined(rig, fuse))
        return fuse.struck


def draw(rng: random.Random, kind: str, steps: Steps, market: SpotMarket) -> Fault:
    """A fault of this kind at a random step of a job with so many."""
    if kind in BETWEEN_CALLS:
        return Fault(kind, rng.randrange(steps.moments))
    if kind == PARTIAL:
        frac = rng.choice([0.1, 0.4, 0.9])
        rule = {"action": "partial_fill", "frac": frac, "method": "POST", "path": market.entry_path, "times": 1}
        return Fault(kind, 1, rule)
    step = 1 + rng.randrange(steps.calls)
    return Fault(kind, step, {**rng.choice(IN_A_CALL[kind]), "path": market.path, "nth": step})


def draw_kind(rng: random.Random) -> str:
    return rng.choices(KINDS, [WEIGHTS.get(kind, 1) for kind in KINDS])[0]


def quietly(job: Callable[..., Any], *args: Any) -> Any:
    """A task that fails is a red square in the UI; what counts is what it leaves behind."""
    try:
        return job(*args)
    except TradewindError:
        return None
