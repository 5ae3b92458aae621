"""Injected faults: rules that name a call, when they strike, and what goes wrong.

A rule is data: `{"action": ..., "method": "POST", "path": "/api/v3/order*", "nth": 2 | "every": 3 | "probability": 0.1,
"times": 1, "seed": 7, ...action's own fields}`. Without `nth`, `every` and `probability` it strikes on every call.
`command_before` and `command_after` carry out one of the operator's commands (`command`, with its `body`) at the call;
`book` bends the books of `of_symbol` (of all without it) into `shape` in this answer alone, a jump by `price_frac`.
Rules live in memory: a restart ends them.
"""

from __future__ import annotations

import fnmatch
import random
from dataclasses import dataclass, field
from typing import Any

from tradewind.errors import BadInput
from tradewind.paper.books import Bent, Shape

BEFORE_ACTIONS = ("refuse", "error_before", "rate_limited", "banned", "skewed", "timeout_before", "restart_before")
"""The call is not carried out; `restart_before` also ends the process and starts it anew."""
AFTER_ACTIONS = ("hang_after", "drop_after", "error_after", "timeout_after", "restart_after")
"""The call is carried out and committed, but its answer does not arrive."""
SHAPING_ACTIONS = ("delay", "partial_fill", "reject_leg", "missing_candles", "late_candles", "corrected_candle", "book")
COMMAND_ACTIONS = ("command_before", "command_after")
"""The call is carried out and answered; what the operator does comes before it, or after it and before the answer."""
ACTIONS = BEFORE_ACTIONS + AFTER_ACTIONS + SHAPING_ACTIONS + COMMAND_ACTIONS
_FIELDS = {
    "action", "method", "path", "nth", "every", "probability", "times", "seed", "symbol",
    "status", "retry_after_s", "seconds", "seconds_max", "seconds_mean", "frac", "leg", "from_ms",
    "to_ms", "bars", "price_frac", "shape", "of_symbol", "command", "body",
}  # fmt: skip


@dataclass(slots=True)
class FaultRule:
    rule_id: int
    action: str
    method: str
    path: str
    nth: int | None
    every: int | None
    probability: float | None
    times: int | None
    symbol: str | None
    options: dict[str, Any]
    rng: random.Random
    seen: int = 0
    struck: int = 0

    def strikes(self, method: str, path: str, symbol: str | None) -> bool:
        """Count a matching call, and say whether the fault happens now."""
        if self.method not in ("*", method) or not fnmatch.fnmatchcase(path, self.path):
            return False
        if self.symbol is not None and self.symbol != symbol:
            return False
        if self.times is not None and self.struck >= self.times:
            return False
        self.seen += 1
        if self.nth is not None and self.seen != self.nth:
            return False
        if self.every is not None and self.seen % self.every != 0:
            return False
        if self.probability is not None and self.rng.random() >= self.probability:
            return False
        self.struck += 1
        return True

    def seconds(self) -> float:
        """The delay of this strike: fixed, drawn from a range, or with `seconds_mean` exponential beyond `seconds`."""
        if "seconds_mean" in self.options:
            least = float(self.options.get("seconds", 0.0))
            return least + self.rng.expovariate(1 / float(self.options["seconds_mean"]))
        low = float(self.options.get("seconds", 1.0))
        high = float(self.options.get("seconds_max", low))
        return self.rng.uniform(low, high) if high > low else low

    def bent(self) -> Bent:
        """How a `book` rule bends books."""
        return Bent(Shape(self.options["shape"]), 1 + float(self.options.get("price_frac", 0.0)))

    def as_row(self) -> dict[str, Any]:
        return {
            "id": self.rule_id, "action": self.action, "method": self.method, "path": self.path, "nth": self.nth,
            "every": self.every, "probability": self.probability, "times": self.times, "symbol": self.symbol,
            "seen": self.seen, "struck": self.struck, **self.options,
        }  # fmt: skip


@dataclass(slots=True)
class Faults:
    """The rules in force, in the order they were added."""

    rules: list[FaultRule] = field(default_factory=list)
    _next_id: int = 1

    def add(self, spec: dict[str, Any]) -> FaultRule:
        """Add a rule. Raises BadInput naming the field that is wrong."""
        unknown = set(spec) - _FIELDS
        if unknown:
            raise BadInput(f"a fault rule has no field {sorted(unknown)[0]!r}; fields are {', '.join(sorted(_FIELDS))}")
        if spec.get("action") not in ACTIONS:
            raise BadInput(f"action is {spec.get('action')!r}; it must be one of {', '.join(ACTIONS)}")
        if spec["action"] == "book" and spec.get("shape") not in list(Shape):
            raise BadInput(f"shape is {spec.get('shape')!r}; it must be one of {', '.join(Shape)}")
        options = {k: v for k, v in spec.items() if k not in FaultRule.__slots__ and k not in ("seed",)}
        rule = FaultRule(
            self._next_id, str(spec["action"]), str(spec.get("method", "*")).upper(), str(spec.get("path", "*")),
            spec.get("nth"), spec.get("every"), spec.get("probability"), spec.get("times"), spec.get("symbol"),
            options, random.Random(spec.get("seed", 0)),
        )  # fmt: skip
        self._next_id += 1
        self.rules.append(rule)
        return rule

    def remove(self, rule_id: int | None) -> int:
        """Remove one rule, or all of them; returns how many went."""
        kept = [r for r in self.rules if rule_id is not None and r.rule_id != rule_id]
        gone = len(self.rules) - len(kept)
        self.rules = kept
        return gone

    def struck_by(self, method: str, path: str, symbol: str | None) -> list[FaultRule]:
        return [r for r in self.rules if r.strikes(method, path, symbol)] if self.rules else []


def distort_candles(rows: list[list[Any]], rule: FaultRule) -> list[list[Any]]:
    """Candle rows as a faulty exchange would send them.

    missing_candles drops rows that open in [from_ms, to_ms); late_candles drops the newest `bars`; corrected_candle
    moves the close of the newest finished candle by `price_frac`, inside its high and low.
    """
    if rule.action == "missing_candles":
        low, high = rule.options.get("from_ms", 0), rule.options.get("to_ms", 1 << 62)
        return [r for r in rows if not low <= r[0] < high]
    if rule.action == "late_candles":
        return rows[: max(0, len(rows) - int(rule.options.get("bars", 1)))]
    if len(rows) >= 2:
        row = list(rows[-2])
        moved = float(row[4]) * (1 + float(rule.options.get("price_frac", 0.001)))
        decimals = len(row[4].partition(".")[2])
        row[4] = f"{moved:.{decimals}f}"
        row[2], row[3] = max(row[2], row[4], key=float), min(row[3], row[4], key=float)
        return [*rows[:-2], row, rows[-1]]
    return rows
