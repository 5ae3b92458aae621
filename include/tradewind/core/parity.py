"""What a live run did against what its replay did: decision by decision, order by order, fill by fill.

Money is compared exactly. Floats (features' children: probabilities, measures, expected values) agree within the
tolerance of the leak checks, because a live window and a whole history round differently. Words are not compared; the
filter that spoke first is.

A difference has a cause, or it is unexplained. Causes are facts that the rows themselves show: a cycle that live
missed, an order that live was not allowed to send, an execution at another moment than the replay's, a portfolio that
differs since an earlier execution did. A differing input (a probability, a regime, a price) has none: that is what this
comparison is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from .codec import encode
from .inputs import BAR
from .ledger import in_time
from .types import Decision, Fill, Order, OrderRole

RELATIVE: Final = 1e-6
ABSOLUTE: Final = 1e-9
UNEXPLAINED: Final = ""
_PORTFOLIO_FILTERS: Final = frozenset({"cooldown", "positions", "correlation", "exposure", "size"})
_ORDER_FIELDS: Final = (
    "position_id", "symbol", "role", "is_buy", "lot", "generation", "order_type", "quantity", "price", "stop_price",
    "list_client_id",
)  # fmt: skip
_ORDER_ENDS: Final = ("state", "filled_quantity")
_FILL_FIELDS: Final = ("symbol", "is_buy", "quantity", "price", "fee", "fee_asset", "is_maker", "at")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same. `cause` is empty when nothing in the rows explains it."""

    kind: str  # decision, order or fill
    subject: str
    at: datetime
    field: str
    live: str
    replay: str
    cause: str = UNEXPLAINED


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How much was compared, and every difference."""

    decisions: int
    orders: int
    fills: int
    differences: tuple[Difference, ...]

    @property
    def unexplained(self) -> int:
        return sum(difference.cause == UNEXPLAINED for difference in self.differences)

    def to_json(self) -> dict[str, Any]:
        """Counts and differences as plain values."""
        encoded: dict[str, Any] = encode(self)
        return encoded | {"unexplained": self.unexplained}


@dataclass(frozen=True, slots=True)
class Ledger:
    """One side of the comparison."""

    decisions: Sequence[Decision]
    orders: Sequence[Order]
    fills: Sequence[Fill]


def compare(live: Ledger, replayed: Ledger, cutoff: datetime, code_changed_at: datetime | None = None) -> ParityReport:
    """Compare what both did before `cutoff`: the moment from which the replay no longer sees the market.

    Decisions of bars that closed before it, orders planned and fills made before it; an order's end only where live
    reached it before. `code_changed_at`: live decisions before it were made by other code than this, which explains
    whatever differs until then.
    """
    executions = _orders(live, replayed, cutoff) + _fills(live, replayed, cutoff)
    decisions = _decisions(live, replayed, cutoff)
    # What was done at a close comes before what was decided at it, live and in a replay.
    found = sorted([*executions, *decisions], key=lambda d: (d.at, d.kind == "decision", d.kind, d.subject, d.field))
    explained = _explain(found, code_changed_at)
    return ParityReport(
        decisions=sum(decision.bar + BAR < cutoff for decision in live.decisions),
        orders=sum(order.planned_at < cutoff for order in live.orders),
        fills=sum(fill.at < cutoff for fill in live.fills),
        differences=tuple(explained),
    )


# ----------------------------------------------------------------------------------------------------------- decisions
def _decisions(live: Ledger, replayed: Ledger, cutoff: datetime) -> list[Difference]:
    theirs = {(d.symbol, d.bar): d for d in replayed.decisions}
    found = []
    for decision in live.decisions:
        if decision.bar + BAR >= cutoff:
            continue
        subject, at = f"{decision.symbol} {decision.bar:%Y-%m-%d %H:%M}", decision.bar + BAR
        other = theirs.pop((decision.symbol, decision.bar), None)
        if other is None:
            found.append(Difference("decision", subject, at, "presence", decision.outcome.value, "absent"))
            continue
        ours, replay_values = _flat(decision_facts(decision)), _flat(decision_facts(other))
        for name in sorted(ours.keys() | replay_values.keys()):
            a, b = ours.get(name), replay_values.get(name)
            if not _same(a, b):
                found.append(Difference("decision", subject, at, name, str(a), str(b)))
    for (symbol, bar), decision in theirs.items():
        if bar + BAR < cutoff:
            subject = f"{symbol} {bar:%Y-%m-%d %H:%M}"
            found.append(Difference("decision", subject, bar + BAR, "presence", "absent", decision.outcome.value))
    return found


def decision_facts(decision: Decision) -> dict[str, Any]:
    """What of a decision must be the same, as nested plain values; words are left to the first refusal's name."""
    facts: dict[str, Any] = encode(decision)
    verdicts = {v.filter: {"passed": v.passed, **encode(v.numbers)} for v in decision.verdicts}
    verdicts.get("correlation", {}).pop("with", None)
    prediction = facts["prediction"]
    if prediction is not None:
        prediction.pop("features_sha256")
    return facts | {"verdicts": verdicts, "reason": decision.reason.partition(":")[0]}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        pairs = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        pairs = [(str(number), item) for number, item in enumerate(value)]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in pairs:
        flat |= _flat(item, f"{prefix}.{name}" if prefix else name)
    return flat


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float | int) and not isinstance(b, bool):
        return abs(a - b) <= max(ABSOLUTE, RELATIVE * abs(a))
    return bool(a == b)


# ----------------------------------------------------------------------------------------------------------- execution
def _orders(live: Ledger, replayed: Ledger, cutoff: datetime) -> list[Difference]:
    theirs = {order.client_order_id: order for order in replayed.orders}
    found = []
    for order in live.orders:
        if order.planned_at >= cutoff:
            continue
        other = theirs.pop(order.client_order_id, None)
        if other is None:
            words = f"{order.role.value} {order.state.value}" + (f": {order.reason}" if order.reason else "")
            found.append(Difference("order", order.client_order_id, order.planned_at, "presence", words, "absent"))
            continue
        names = _ORDER_FIELDS if order.updated_at >= cutoff else (*_ORDER_FIELDS, *_ORDER_ENDS)
        for name in names:
            a, b = getattr(order, name), getattr(other, name)
            if a != b:
                words = f"{a}" + (f" ({order.reason})" if name == "state" and order.reason else "")
                found.append(
                    Difference(
                        "order", order.client_order_id, order.planned_at, name, words, str(b), _refused(order, name)
                    )
                )
    for order in theirs.values():
        if order.planned_at < cutoff:
            words = f"{order.role.value} {order.state.value}"
            found.append(Difference("order", order.client_order_id, order.planned_at, "presence", "absent", words))
    return found


def _refused(order: Order, name: str) -> str:
    """An entry that live withdrew says why."""
    if name in _ORDER_ENDS and order.role is OrderRole.ENTRY and order.sent_at is None and order.reason:
        return f"live did not send it: {order.reason}"
    return UNEXPLAINED


def _fills(live: Ledger, replayed: Ledger, cutoff: datetime) -> list[Difference]:
    ours, theirs = _by_order(live.fills, cutoff), _by_order(replayed.fills, cutoff)
    found = []
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key), theirs.get(key)
        subject = f"{key[0]} #{key[1]}"
        if a is None or b is None:
            present = a or b
            assert present is not None
            words = f"{present.quantity} at {present.price}"
            sides = (words, "absent") if b is None else ("absent", words)
            found.append(Difference("fill", subject, present.at, "presence", *sides))
            continue
        cause = ""
        if a.at != b.at and not a.is_maker:
            seconds = (a.at - b.at).total_seconds()
            cause = f"live executed it {seconds:+.1f} s from where the replay does"
        for name in _FILL_FIELDS:
            if getattr(a, name) != getattr(b, name):
                values = str(getattr(a, name)), str(getattr(b, name))
                found.append(Difference("fill", subject, min(a.at, b.at), name, *values, cause))
    return found


def _by_order(fills: Sequence[Fill], cutoff: datetime) -> dict[tuple[str, int], Fill]:
    """Fills by (order, how many of its fills came before)."""
    found: dict[tuple[str, int], Fill] = {}
    counts: dict[str, int] = {}
    for fill in sorted(fills, key=in_time):
        if fill.at < cutoff:
            number = counts[fill.client_order_id] = counts.get(fill.client_order_id, -1) + 1
            found[(fill.client_order_id, number)] = fill
    return found


# -------------------------------------------------------------------------------------------------------------- causes
def _explain(found: Sequence[Difference], code_changed_at: datetime | None) -> list[Difference]:
    explained: list[Difference] = []
    parted: str = ""  # the first explained execution difference: from there on the accounts are two
    for difference in found:
        cause = difference.cause
        if not cause and code_changed_at is not None and difference.at <= code_changed_at:
            cause = "live was run by other code than this"
        if not cause and parted and _follows(difference):
            cause = f"follows from {parted}"
        if not cause and difference.kind == "decision" and difference.field == "presence":
            cause = "live missed this cycle" if difference.live == "absent" else ""
        if cause and not parted and difference.kind in ("order", "fill"):
            parted = f"{difference.kind} {difference.subject} at {difference.at:%Y-%m-%d %H:%M}"
        explained.append(
            Difference(
                difference.kind, difference.subject, difference.at, difference.field, difference.live,
                difference.replay, cause,
            )
        )  # fmt: skip
    return explained


def _follows(difference: Difference) -> bool:
    """May this be the consequence of an account that differs, with every input of the market the same?"""
    if difference.kind in ("order", "fill"):
        return True
    top, _, rest = difference.field.partition(".")
    if top == "verdicts":
        return rest.partition(".")[0] in _PORTFOLIO_FILTERS
    return top in ("intent", "outcome", "reason")
