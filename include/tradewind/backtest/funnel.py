"""Verdicts counted by filter: over the bars that the columns refuse, and over those decided in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tradewind.core.filters import FILTER_ORDER, READING_ORDER
from tradewind.core.types import Decision

from .results import FunnelRow
from .signals import BoolArray


@dataclass(slots=True)
class Funnel:
    """How often each filter passed, refused, and was the first to refuse."""

    passed: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, passed: int, refused: int, first: int) -> None:
        self.passed[name] = self.passed.get(name, 0) + passed
        self.refused[name] = self.refused.get(name, 0) + refused
        self.first[name] = self.first.get(name, 0) + first

    def count(self, decision: Decision) -> None:
        """A decision made in full."""
        first = next((v.filter for v in decision.verdicts if not v.passed), None)
        for verdict in decision.verdicts:
            self.add(verdict.filter, int(verdict.passed), int(not verdict.passed), int(verdict.filter == first))

    def with_decisions(self, decisions: Iterable[Decision]) -> Funnel:
        """These counts and those of decisions made in full."""
        whole = Funnel(dict(self.passed), dict(self.refused), dict(self.first))
        for decision in decisions:
            whole.count(decision)
        return whole

    def count_columns(self, masks: Mapping[str, BoolArray], length: int) -> BoolArray:
        """Count the rows that a column's filter refuses; returns which of them all pass. Masks are of one length."""
        undecided = np.ones(length, dtype=bool)
        chosen: BoolArray = np.logical_and.reduce(list(masks.values()))
        rest = ~chosen
        for name in sorted(masks, key=FILTER_ORDER.index):
            mask = masks[name]
            first = int((undecided & ~mask & rest).sum())
            self.add(name, int((mask & rest).sum()), int((~mask & rest).sum()), first)
            undecided &= mask
        return chosen

    def rows(self) -> list[FunnelRow]:
        return [
            FunnelRow(name, self.passed[name], self.refused[name], self.first[name])
            for name in READING_ORDER
            if name in self.passed
        ]
