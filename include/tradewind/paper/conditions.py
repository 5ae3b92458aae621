"""What the operator has made of the markets: statuses, books, rules, price ranges. All of it survives a restart.

The engines are told in `MarketConditions`, which spot and futures share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

from tradewind.core.futures_engine import FuturesEngine
from tradewind.core.matching import Engine
from tradewind.core.matching_arithmetic import PPM
from tradewind.core.matching_conditions import Grid, PriceRange
from tradewind.core.matching_rules import SymbolRules
from tradewind.errors import BadInput
from tradewind.paper.books import LASTING, STILL, Bent, Shape, dry_sides

STATUSES: Final = ("TRADING", "HALT", "BREAK", "CANCEL_ONLY")
RULES: Final = ("tick", "step", "min_notional", "min_quantity", "max_quantity", "max_market_quantity")


@dataclass(slots=True)
class Conditions:
    """By symbol. `market_rules` are the rules that the market was made with; the engines hold today's."""

    market_rules: Mapping[str, SymbolRules]
    spot: Engine
    futures: FuturesEngine
    statuses: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    """Symbols whose prices do not come in; known anew after a restart, so never kept."""
    delisted: set[str] = field(default_factory=set)
    """Symbols that are no longer known to anybody."""
    books: dict[str, Shape] = field(default_factory=dict)
    rules: dict[str, dict[str, str]] = field(default_factory=dict)
    ranges: dict[str, tuple[str, str]] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    _futures_rules: dict[str, SymbolRules] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._futures_rules = dict(self.futures.rules)

    # ---------------------------------------------------------------------------------------------------------- memory
    def as_row(self) -> dict[str, Any]:
        return {
            "statuses": self.statuses, "delisted": sorted(self.delisted), "books": self.books, "rules": self.rules,
            "ranges": self.ranges, "hanging": sorted(self.hanging),
        }  # fmt: skip

    def restore(self, row: Mapping[str, Any]) -> None:
        self.statuses = dict(row.get("statuses", {}))
        self.delisted, self.hanging = set(row.get("delisted", [])), set(row.get("hanging", []))
        self.books = {symbol: Shape(shape) for symbol, shape in row.get("books", {}).items()}
        self.ranges = {symbol: (down, up) for symbol, (down, up) in row.get("ranges", {}).items()}
        for symbol, changed in row.get("rules", {}).items():
            self.change_rules(symbol, changed)
        self.apply()

    def apply(self) -> None:
        """Tell the engines. The sets are shared, so they are changed in place."""
        told = self.spot.conditions
        closed = {symbol for symbol, status in self.statuses.items() if status != "TRADING"}
        for shared, now in (
            (told.halted, closed | self.broken | self.delisted),
            (told.cancel_only, {symbol for symbol, status in self.statuses.items() if status == "CANCEL_ONLY"}),
            (told.still, {symbol for symbol, shape in self.books.items() if shape in STILL}),
            (told.hanging, self.hanging),
        ):
            shared.clear()
            shared.update(now)
        told.dry = {symbol: dry_sides(shape) for symbol, shape in self.books.items() if dry_sides(shape)}
        told.ranges = {
            symbol: PriceRange(int(Decimal(down) * PPM), int(Decimal(up) * PPM))
            for symbol, (down, up) in self.ranges.items()
        }
        told.grids = {symbol: self._grid(symbol, changed) for symbol, changed in self.rules.items()}

    # ---------------------------------------------------------------------------------------------------------- changes
    def set_status(self, symbol: str, status: str) -> None:
        """Raises BadInput for a status that Binance's spot does not know."""
        if status not in STATUSES:
            raise BadInput(f"status is {status!r}; it must be one of {', '.join(STATUSES)}")
        self.statuses.pop(symbol, None)
        if status != "TRADING":
            self.statuses[symbol] = status
        self.apply()

    def calm(self) -> None:
        """Every market as it was made: listed and trading, with its own book and rules. What it did stays done."""
        for symbol in list(self.rules):
            self.change_rules(symbol, {})
        for kept in (self.statuses, self.books, self.ranges, self.delisted, self.hanging):
            kept.clear()
        self.apply()

    def bend(self, symbol: str, shape: str | None) -> None:
        """Give the book a lasting shape, or (None) its own back. Raises BadInput for another shape."""
        if shape is not None and shape not in LASTING:
            raise BadInput(f"shape is {shape!r}; it must be one of {', '.join(LASTING)}, or null")
        self.books.pop(symbol, None)
        if shape is not None:
            self.books[symbol] = Shape(shape)
        self.apply()

    def limit_range(self, symbol: str, limits: tuple[str, str] | None) -> None:
        """Let takers trade within (down, up) times the average price alone, or (None) at any price."""
        self.ranges.pop(symbol, None)
        if limits is not None:
            self.ranges[symbol] = limits
        self.apply()

    def change_rules(self, symbol: str, changed: Mapping[str, str]) -> None:
        """Today's rules where they are not those the market was made with. Resting orders stay as they are.

        Raises BadInput for a rule that is not one, and for a grid that is not a multiple of the market's own, since
        orders and trades are counted in that.
        """
        unknown = set(changed) - set(RULES)
        if unknown:
            raise BadInput(f"there is no rule {sorted(unknown)[0]!r}; rules are {', '.join(RULES)}")
        made = dict(changed)
        grid = self._grid(symbol, made)
        for engine, base in ((self.spot, self.market_rules[symbol]), (self.futures, self._futures_rules[symbol])):
            engine.rules[symbol] = _changed(base, made, grid)
        self.rules.pop(symbol, None)
        if made:
            self.rules[symbol] = made
        self.apply()

    def _grid(self, symbol: str, changed: Mapping[str, str]) -> Grid:
        base = self.market_rules[symbol]
        found = [Decimal(changed.get(name, unit)) / unit for name, unit in (("tick", base.tick), ("step", base.step))]
        if any(multiple != int(multiple) or multiple < 1 for multiple in found):
            raise BadInput(
                f"a new grid of {symbol} must be a multiple of its tick {base.tick} and its step {base.step}"
            )
        return Grid(int(found[0]), int(found[1]))

    # ------------------------------------------------------------------------------------------------------------ reads
    def status(self, symbol: str) -> str:
        """The symbol's status in the words of Binance's spot."""
        return "BREAK" if symbol in self.broken else self.statuses.get(symbol, "TRADING")

    def book_of(self, symbol: str) -> Bent | None:
        shape = self.books.get(symbol)
        return Bent(shape) if shape is not None else None


def _changed(base: SymbolRules, changed: Mapping[str, str], grid: Grid) -> SymbolRules:
    """The market's rules with today's limits, still in its own units."""

    def lots(name: str, otherwise: int) -> int:
        return int(Decimal(changed[name]) / base.step) if name in changed else otherwise

    return replace(
        base,
        min_notional=Decimal(changed.get("min_notional", base.min_notional)),
        min_lots=max(grid.lots, lots("min_quantity", base.min_lots)),
        max_lots=lots("max_quantity", base.max_lots),
        max_market_lots=lots("max_market_quantity", base.max_market_lots),
    )
