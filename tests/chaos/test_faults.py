"""Every kind of fault in every part of a trade: nothing doubled, nothing naked beyond the bound, nothing lost.

A seeded selection within the suite; `--soak MINUTES` goes on drawing, `--faults NUMBER` until so many have struck, two
thirds of them on spot; both print the table. `--chaos-seed SEED` draws others.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.chaos.arena import Arena
from tests.chaos.faults import FUTURES_KINDS, KILLED, KINDS, OLD_KINDS, SPOT_KINDS, TWICE, Steps, draw_kind
from tests.chaos.life import COLUMNS, PHASES, Judgement, Life
from tests.chaos.markets import BnbMarket, FuturesMarket, SpotMarket
from tradewind.core.types import Side

pytestmark = pytest.mark.chaos

SEED = 20240305
# Restarts take seconds each, and strike the same code as on spot.
FEW_ON_FUTURES = (KILLED, TWICE, "accepted, then dropped")
# What was paid in or out before decides nothing about a breach: every so many lives end in one.
BREACH_EVERY = 8


@dataclass(frozen=True)
class Plan:
    """How long to go on drawing, beyond the selection that the suite makes."""

    seed: int
    minutes: float
    faults: int

    @property
    def is_long(self) -> bool:
        return bool(self.minutes or self.faults)


@dataclass
class Table:
    """How many faults of each kind struck, what they left wrong, and the longest time without a stop."""

    kinds: Sequence[str]
    struck: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, Counter[str]] = field(default_factory=dict)
    naked_s: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def add(self, kind: str, where: str, judgement: Judgement) -> None:
        self.struck[kind] += 1
        self.naked_s[kind] = max(self.naked_s[kind], judgement.naked_s)  # type: ignore[assignment]  # seconds
        for column, words in judgement.wrongs.items():
            self.wrong.setdefault(kind, Counter())[column] += 1
            self.words.append(f"{where}: {column}: {'; '.join(words)}")

    @property
    def faults(self) -> int:
        return self.struck.total()

    def __str__(self) -> str:
        heads = [column.replace("_", " ") for column in COLUMNS]
        widths = [max(len(head), 5) + 2 for head in heads]

        def line(kind: str, struck: int, counts: Sequence[int], naked_s: float) -> str:
            numbers = "".join(f"{n:>{width}}" for n, width in zip(counts, widths, strict=True))
            return f"{kind:24}{struck:>7}{numbers}{naked_s:>13.2f} s"

        lines = [f"{'fault':24}{'struck':>7}" + "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True))]
        lines[0] += f"{'longest bare':>15}"
        counted = {kind: [self.wrong.get(kind, Counter())[column] for column in COLUMNS] for kind in self.kinds}
        lines += [line(kind, self.struck[kind], counted[kind], self.naked_s[kind]) for kind in self.kinds]
        totals = [sum(column) for column in zip(*counted.values(), strict=True)]
        lines.append(line("all", self.faults, totals, max(self.naked_s.values(), default=0.0)))
        return "\n".join(lines)


class Drawing:
    """Lives on one kind of market, one fault in each part of a trade."""

    def __init__(self, arena: Arena, seed: int, markets: Sequence[SpotMarket], kinds: tuple[str, ...]) -> None:
        self.arena, self.rng, self.markets, self.kinds = arena, random.Random(seed), markets, kinds
        self.steps = {type(market): self._count_steps(market) for market in markets}
        self.table = Table([*kinds, "breach"])
        self.lives = 0

    def _count_steps(self, market: SpotMarket) -> dict[str, Steps]:
        life = Life(self.arena, self.rng, market)
        steps = {phase: life.count_steps(phase) for phase in PHASES}
        life.close()
        return steps

    def live(self, wanted: dict[str, list[str]]) -> None:
        """One trade with one fault a phase: the phase's next wanted kind, else a drawn one."""
        market = self.markets[self.lives % len(self.markets)]
        self.lives += 1
        life = Life(self.arena, self.rng, market)
        try:
            for phase in PHASES:
                if phase != "entry" and not life.is_open():
                    break
                if phase == "flatten" and not wanted[phase] and self.lives % BREACH_EVERY == 0:
                    judgement = life.breach()
                    self.table.add("breach", life.words, judgement)
                    break
                kind = wanted[phase].pop() if wanted[phase] else draw_kind(self.rng, self.kinds)
                fault = life.draw(kind, self.steps[type(market)][phase])
                if (judged := life.undergo(phase, fault)) is not None:
                    self.table.add(kind, life.words, judged)
        finally:
            life.close()

    def run(self, wanted: dict[str, list[str]], plan: Plan, share: float) -> None:
        """The selection, then whatever the plan asks for: a share of its time or of its faults."""
        deadline = time.monotonic() + plan.minutes * 60 * share
        while any(wanted.values()) or time.monotonic() < deadline or self.table.faults < plan.faults * share:
            self.live(wanted)


def spread(rng: random.Random, always: Sequence[str], once: Sequence[str]) -> dict[str, list[str]]:
    """Kinds by phase: some in every one, the others in one that is drawn."""
    wanted = {phase: list(always) for phase in PHASES}
    for kind in once:
        wanted[rng.choice(PHASES)].append(kind)
    for kinds in wanted.values():
        rng.shuffle(kinds)
    return wanted


def report(drawing: Drawing, plan: Plan, what: str, capsys: pytest.CaptureFixture[str], least: int) -> None:
    table = drawing.table
    words = "\n".join([f"{what}, seed {plan.seed}, {drawing.lives} lives", str(table), *table.words])
    if plan.is_long:
        with capsys.disabled():
            print(f"\n\n{words}")
    assert not table.words, words
    assert table.faults >= least


@pytest.fixture
def plan(request: pytest.FixtureRequest, soak_minutes: float) -> Plan:
    option = request.config.getoption
    return Plan(int(option("--chaos-seed") or SEED), soak_minutes, int(option("--faults")))


@pytest.mark.timeout(0)
def test_no_fault_doubles_bares_or_loses_anything(arena: Arena, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = Drawing(arena, plan.seed, [SpotMarket(), BnbMarket()], SPOT_KINDS)
    new = [kind for kind in SPOT_KINDS if kind not in OLD_KINDS]
    drawing.run(spread(drawing.rng, OLD_KINDS, new), plan, 2 / 3)
    report(drawing, plan, "spot", capsys, 20)


@pytest.mark.timeout(0)
def test_nor_does_one_on_futures(arena: Arena, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    """Long and short in turn."""
    markets = [FuturesMarket(side) for side in (Side.SHORT, Side.LONG)]
    drawing = Drawing(arena, plan.seed + 1, markets, FUTURES_KINDS)
    new = [kind for kind in FUTURES_KINDS if kind not in OLD_KINDS]
    drawing.run(spread(drawing.rng, FEW_ON_FUTURES, new), plan, 1 / 3)
    report(drawing, plan, "futures", capsys, 10)


def test_every_kind_is_drawn_somewhere() -> None:
    assert {*SPOT_KINDS, *FUTURES_KINDS} == set(KINDS)
    wanted = spread(random.Random(1), OLD_KINDS, [kind for kind in SPOT_KINDS if kind not in OLD_KINDS])
    assert {kind for kinds in wanted.values() for kind in kinds} == set(SPOT_KINDS)
