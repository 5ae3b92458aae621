"""What a run of the chain leaves behind, be it replay, paper or live: trades, equity, funnel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tradewind.core.types import Bars, Side


@dataclass(frozen=True, slots=True)
class Trade:
    """One closed position. Times are epoch milliseconds UTC, prices and money in quote units, costs included in net."""

    position_id: str
    symbol: str
    side: Side
    family: str
    regime: str
    bar_ms: int  # the bar that was decided on
    entry_ms: int
    entry_price: float  # average over the entry's fills
    exit_ms: int
    exit_price: float  # average over all exits
    quantity: float
    initial_stop_price: float
    target_price: float
    stop_path: tuple[tuple[int, float], ...]  # (moment, stop price) each time the stop was set
    net_r: float
    net_quote: float
    fees_quote: float
    exit_reason: str


@dataclass(frozen=True, slots=True)
class EquityPoint:
    """Marked equity at a moment."""

    at_ms: int
    equity_quote: float


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """How one filter judged all candidates of a run; `first_refusals` counts where it was the first to say no."""

    filter: str
    passed: int
    refused: int
    first_refusals: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything the report draws and `--json` writes."""

    title: str
    labels: Sequence[str]  # such as "synthetic market" or "looks back": shown on top of every page
    strategy_version: str
    start_ms: int
    end_ms: int
    initial_equity_quote: float
    trades: Sequence[Trade]
    equity: Sequence[EquityPoint]
    funnel: Sequence[FunnelRow]
    decisions: Sequence[Mapping[str, object]]  # the decision table: symbol, bar, outcome, reason, expected_r, …
    bars: Mapping[str, Bars] = field(default_factory=dict)
    notes: Sequence[str] = ()
