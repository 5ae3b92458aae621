"""Closed records of the compiled loop as trades: columns at once, rows when somebody reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradewind.backtest.results import Lazy, Trade, TradeTable
from tradewind.backtest.signals import SymbolSeries, moment
from tradewind.core.orders import intent_id
from tradewind.core.params import StrategyParams
from tradewind.core.regime import REGIMES, family_of
from tradewind.core.types import Side

from .layout import REASONS, Records


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """What the loop has closed, with all that a trade says beside: `moves` are the stops that were moved, in order."""

    closed: Records
    moves: Records
    symbols: Records
    candidates: Records
    series: Mapping[str, SymbolSeries]
    params: StrategyParams
    account: str
    atoms_per_unit: int

    def table(self, part: range) -> TradeTable:
        """The trades of some of the closed records."""
        found = self.closed[part.start : part.stop]
        units = self.symbols[found.symbol]
        quantity = found.entry_lots * units.base_per_lot / self.atoms_per_unit
        exit_price = found.exit_atoms / np.maximum(found.exit_lots * units.base_per_lot, 1)
        initial = found.initial_stop * units.tick_num / units.tick_den
        net = found.cash / self.atoms_per_unit
        net_r = net / (np.abs(found.entry_price - initial) * quantity)
        fees = found.fees / self.atoms_per_unit + found.base_fees_quote
        turnover = quantity * (found.entry_price + exit_price)
        columns = (found.entry_ms, found.exit_ms, net_r, net, fees, turnover)
        numbers = np.column_stack((found.entry_price, exit_price, quantity, initial, net_r, net, fees))
        return TradeTable(Lazy(lambda: self._rows(found, numbers.tolist())), *columns)

    def _rows(self, found: Records, numbers: Sequence[Sequence[float]]) -> list[Trade]:
        moved: dict[int, list[tuple[int, int]]] = {}
        for serial, at_ms, stop in self.moves.tolist():
            moved.setdefault(serial, []).append((at_ms, stop))
        return [self._row(p, own, moved.get(int(p.serial), ())) for p, own in zip(found, numbers, strict=True)]

    def _row(self, p: Any, numbers: Sequence[float], moved: Sequence[tuple[int, int]]) -> Trade:
        entry_price, exit_price, quantity, initial, net_r, net, fees = numbers
        name, unit = list(self.series)[p.symbol], self.symbols[p.symbol]
        num, den = int(unit.tick_num), int(unit.tick_den)
        regime = REGIMES[int(self.series[name].regimes[self.candidates[p.candidate].row])]
        family = family_of(regime)
        assert family is not None  # a market without one opens nothing
        entry_ms, bar_ms = int(p.entry_ms), int(p.bar_ms)
        return Trade(
            position_id=intent_id(self.account, self.params.strategy_version, name, moment(bar_ms)),
            symbol=name,
            side=Side.LONG,
            family=family.value,
            regime=regime.value,
            bar_ms=bar_ms,
            entry_ms=entry_ms,
            entry_price=entry_price,
            exit_ms=int(p.exit_ms),
            exit_price=exit_price,
            quantity=quantity,
            initial_stop_price=initial,
            target_price=int(p.target) * num / den,
            stop_path=((entry_ms, initial), *((at_ms, stop * num / den) for at_ms, stop in moved)),
            net_r=net_r,
            net_quote=net,
            fees_quote=fees,
            exit_reason=REASONS[int(p.reason)],
        )
