"""What a bench measures: rows with their bounds, and the clockwork that takes medians."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a bench.

    Parameters
    ----------
    bench : the subject, for example `data`.
    what : what was measured, in words that a reader understands without the code.
    value : the figure, in `unit`; a median where several runs were taken.
    unit : `s`, `ms`, `rows/s`, `x` for a ratio, `MiB`, and so on.
    bound : what the figure is held to; None for one that only informs.
    sense : whether the bound is the most or the least the figure may be.
    spread : smallest and largest of the runs; None for a single one.
    """

    bench: str
    what: str
    value: float
    unit: str
    bound: float | None = None
    sense: Literal["at most", "at least"] = "at most"
    spread: tuple[float, float] | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bound; a figure that is no number keeps none."""
        if self.bound is None:
            return True
        return self.value <= self.bound if self.sense == "at most" else self.value >= self.bound

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`; a figure that is no number is null."""
        row = asdict(self)
        row["value"] = self.value if math.isfinite(self.value) else None
        return row | {"holds": self.holds}


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What the person who runs a bench may choose.

    Parameters
    ----------
    candles_dir : a directory with files named `SOL_USDT-15m.parquet`; None measures on the synthetic market.
    quick : a tenth of the work, to see that a bench runs; its figures hold to no bound.
    engines_python : a Python with backtesting and vectorbt, to measure them in the same run; None states their seconds.
    say : receives a line at each step.
    """

    candles_dir: Path | None = None
    quick: bool = False
    engines_python: Path | None = None
    say: Callable[[str], None] = field(default=lambda _line: None)


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def times(work: Callable[[], object], runs: int = 5, *, before: Callable[[], object] | None = None) -> list[float]:
    """Wall seconds of `runs` calls in order; `before` prepares each and is not counted."""
    taken = []
    for _ in range(runs):
        if before is not None:
            before()
        taken.append(seconds(work))
    return taken


def row_of(
    bench: str,
    what: str,
    values: Sequence[float],
    unit: str,
    bound: float | None = None,
    sense: Literal["at most", "at least"] = "at most",
) -> Row:
    """A row from several runs' figures: their median, with the smallest and the largest beside it."""
    return Row(bench, what, statistics.median(values), unit, bound, sense, (min(values), max(values)))


def percentile(values: Sequence[float], share_frac: float) -> float:
    """The nearest-rank percentile: the smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share_frac * len(ordered)) - 1)]
