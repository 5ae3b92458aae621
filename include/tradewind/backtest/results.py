"""What a run of the chain leaves behind, be it replay, paper or live: trades, equity, funnel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, overload

import numpy as np

from tradewind.core.types import Bars, FloatArray, IntArray, Side

Item = TypeVar("Item")


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


class Lazy(Sequence[Item]):
    """Rows that are made when somebody reads them, once."""

    def __init__(self, make: Callable[[], Iterable[Item]]) -> None:
        self._make = make
        self._made: list[Item] | None = None

    def _rows(self) -> list[Item]:
        if self._made is None:
            self._made = list(self._make())
        return self._made

    def __len__(self) -> int:
        return len(self._rows())

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        return self._rows()[index]

    def __eq__(self, other: object) -> bool:
        return self._rows() == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # like a list


@dataclass(frozen=True, slots=True, eq=False)
class TradeTable(Sequence[Trade]):
    """Trades with their numbers as columns of equal length, in the order in which they were closed."""

    rows: Sequence[Trade]
    entry_ms: IntArray
    exit_ms: IntArray
    net_r: FloatArray
    net_quote: FloatArray
    fees_quote: FloatArray
    turnover_quote: FloatArray  # bought and sold

    @classmethod
    def of(cls, trades: Sequence[Trade]) -> TradeTable:
        """The same trades with columns."""
        if isinstance(trades, TradeTable):
            return trades
        return cls(
            trades,
            np.array([trade.entry_ms for trade in trades], dtype=np.int64),
            np.array([trade.exit_ms for trade in trades], dtype=np.int64),
            np.array([trade.net_r for trade in trades], dtype=np.float64),
            np.array([trade.net_quote for trade in trades], dtype=np.float64),
            np.array([trade.fees_quote for trade in trades], dtype=np.float64),
            np.array([trade.quantity * (trade.entry_price + trade.exit_price) for trade in trades], dtype=np.float64),
        )

    @classmethod
    def joined(cls, parts: Sequence[TradeTable]) -> TradeTable:
        """All parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        names = ("entry_ms", "exit_ms", "net_r", "net_quote", "fees_quote", "turnover_quote")
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return cls(Lazy(lambda: [trade for part in parts for trade in part.rows]), *columns)

    def __len__(self) -> int:
        return len(self.net_r)

    @overload
    def __getitem__(self, index: int) -> Trade: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Trade]: ...
    def __getitem__(self, index: int | slice) -> Trade | Sequence[Trade]:
        return self.rows[index]


@dataclass(frozen=True, slots=True)
class EquityPoint:
    """Marked equity at a moment."""

    at_ms: int
    equity_quote: float


@dataclass(frozen=True, slots=True, eq=False)
class EquityCurve(Sequence[EquityPoint]):
    """Marks as two columns of equal length, ascending in time; each is an `EquityPoint` when it is asked for."""

    at_ms: IntArray
    equity_quote: FloatArray

    @classmethod
    def of(cls, points: Sequence[EquityPoint]) -> EquityCurve:
        """The same marks as columns."""
        if isinstance(points, EquityCurve):
            return points
        return cls(
            np.array([point.at_ms for point in points], dtype=np.int64),
            np.array([point.equity_quote for point in points], dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.at_ms)

    @overload
    def __getitem__(self, index: int) -> EquityPoint: ...
    @overload
    def __getitem__(self, index: slice) -> EquityCurve: ...
    def __getitem__(self, index: int | slice) -> EquityPoint | EquityCurve:
        if isinstance(index, slice):
            return EquityCurve(self.at_ms[index], self.equity_quote[index])
        return EquityPoint(int(self.at_ms[index]), float(self.equity_quote[index]))


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
