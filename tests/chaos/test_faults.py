"""Every kind of fault in every part of a trade: nothing doubled, nothing naked beyond the bound, nothing lost.

A seeded selection within the suite; `--soak MINUTES` goes on drawing and prints the table.
"""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from tests.chaos.arena import Arena
from tests.chaos.faults import KILLED, KINDS, TWICE, Steps, draw_kind
from tests.chaos.life import COLUMNS, PHASES, Judgement, Life
from tests.chaos.markets import FuturesMarket, SpotMarket
from tradewind.core.types import Side

pytestmark = pytest.mark.chaos

SEED = 20240305
# Restarts take seconds each, and strike the same code as on spot.
FUTURES_KINDS = (KILLED, TWICE, "accepted, then dropped")


class Table:
    """How many faults of each kind struck, what they left wrong, and the longest time without a stop."""

    def __init__(self) -> None:
        self.struck: Counter[str] = Counter()
        self.wrong: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.naked_s: dict[str, float] = dict.fromkeys(KINDS, 0.0)
        self.words: list[str] = []

    def add(self, kind: str, phase: str, life: Life, judgement: Judgement) -> None:
        self.struck[kind] += 1
        self.naked_s[kind] = max(self.naked_s[kind], judgement.naked_s)
        for column, words in judgement.wrongs.items():
            self.wrong[kind][column] += 1
            self.words.append(f"{kind} during {phase} of {life.rig.account}: {column}: {'; '.join(words)}")

    @property
    def faults(self) -> int:
        return self.struck.total()

    def __str__(self) -> str:
        heads = [column.replace("_", " ") for column in COLUMNS]
        lines = [f"{'fault':24}{'struck':>8}" + "".join(f"{head:>12}" for head in heads) + f"{'longest bare':>14}"]
        for kind in KINDS:
            counts = "".join(f"{self.wrong[kind][column]:>12}" for column in COLUMNS)
            lines.append(f"{kind:24}{self.struck[kind]:>8}{counts}{self.naked_s[kind]:>12.2f} s")
        totals = [sum(self.wrong[kind][column] for kind in KINDS) for column in COLUMNS]
        longest = max(self.naked_s.values())
        lines.append(f"{'all':24}{self.faults:>8}" + "".join(f"{n:>12}" for n in totals) + f"{longest:>12.2f} s")
        return "\n".join(lines)


def live_and_suffer(
    arena: Arena,
    rng: random.Random,
    table: Table,
    kinds: dict[str, list[str]],
    steps: dict[str, Steps],
    market: SpotMarket,
) -> None:
    """One trade with one fault a phase: the phase's next wanted kind, else a drawn one."""
    life = Life(arena, rng, market)
    for phase in PHASES:
        if phase != "entry" and not life.is_open():
            break
        kind = kinds[phase].pop() if kinds[phase] else draw_kind(rng)
        judgement = life.suffer(phase, kind, steps[phase])
        if judgement is not None:
            table.add(kind, phase, life, judgement)
    arena.close()


def count_steps(arena: Arena, rng: random.Random, market: SpotMarket) -> dict[str, Steps]:
    life = Life(arena, rng, market)
    steps = {phase: life.count_steps(phase) for phase in PHASES}
    arena.close()
    return steps


@pytest.mark.timeout(0)
def test_no_fault_doubles_bares_or_loses_anything(
    arena: Arena, soak_minutes: float, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, market = random.Random(SEED), SpotMarket()
    steps = count_steps(arena, rng, market)
    table = Table()
    wanted = {phase: rng.sample(KINDS, len(KINDS)) for phase in PHASES}
    deadline = time.monotonic() + soak_minutes * 60
    while wanted["entry"] or time.monotonic() < deadline:
        live_and_suffer(arena, rng, table, wanted, steps, market)
    if soak_minutes:
        with capsys.disabled():
            print(f"\n\nsteps: {steps}\n{table}\n" + "\n".join(table.words))
    assert not table.words, "\n".join([str(table), *table.words])
    assert table.faults >= 20


@pytest.mark.timeout(0)
def test_nor_does_one_on_futures(arena: Arena, soak_minutes: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Long and short in turn; beside the selection a third of the soak's time."""
    rng = random.Random(SEED + 1)
    markets = [FuturesMarket(side) for side in (Side.SHORT, Side.LONG)]
    steps = count_steps(arena, rng, markets[0])
    table = Table()
    wanted: dict[str, list[str]] = {phase: rng.sample(FUTURES_KINDS, len(FUTURES_KINDS)) for phase in PHASES}
    deadline = time.monotonic() + soak_minutes * 20
    while wanted["entry"] or time.monotonic() < deadline:
        live_and_suffer(arena, rng, table, wanted, steps, markets[table.faults % 2])
    if soak_minutes:
        with capsys.disabled():
            print(f"\n\nfutures, steps: {steps}\n{table}\n" + "\n".join(table.words))
    assert not table.words, "\n".join([str(table), *table.words])
    assert table.faults >= 5
