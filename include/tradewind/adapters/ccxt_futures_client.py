"""The exchange client of USDⓈ-M futures: our symbols on the exchange's contracts, rules with margin.

A market is called BTC/USDT here as on spot; the contract behind it is ccxt's BTC/USDT:USDT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

from redis import Redis

from tradewind.core.types import BracketSupport, Instrument, MaintenanceBracket, MarginRules

from .ccxt_client import CcxtClient, ClientConfig
from .ccxt_instruments import instrument_from_market

DEFAULT_LEVERAGE: Final = 3
# Without a key the brackets cannot be asked for: more than any market's first bracket keeps is assumed.
_STRICT_BRACKETS: Final = (MaintenanceBracket(Decimal(0), Decimal("0.05"), Decimal(0), 10),)


def contract_of(symbol: str) -> str:
    """ccxt's name of the perpetual contract that settles in the symbol's quote currency."""
    return symbol if ":" in symbol else f"{symbol}:{symbol.split('/')[1]}"


class CcxtFuturesClient(CcxtClient):
    """`leverage` is what positions are opened with, at most what a contract allows."""

    def __init__(self, config: ClientConfig, redis: Redis | None = None, leverage: int = DEFAULT_LEVERAGE) -> None:
        super().__init__(replace(config, symbols=tuple(contract_of(symbol) for symbol in config.symbols)), redis)
        self.leverage = leverage

    def _name(self, symbol: str) -> str:
        return contract_of(symbol)

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each contract that the exchange lists, under our symbols."""
        return {symbol: self._instrument(symbol, market) for symbol, market in self._listed_markets(symbols).items()}

    def _instrument(self, symbol: str, market: Mapping[str, Any]) -> Instrument:
        brackets = self._brackets.get(str(market["id"]), _STRICT_BRACKETS)
        return replace(
            instrument_from_market(market, attached_brackets=False),
            symbol=symbol,
            bracket=BracketSupport.EMULATED,
            margin=MarginRules(min(self.leverage, brackets[0].leverage), brackets),
        )

    @cached_property
    def _brackets(self) -> dict[str, tuple[MaintenanceBracket, ...]]:
        """Maintenance brackets by the exchange's own name of the contract; asked for once a process."""
        if not self.config.api_key:
            return {}
        return {
            str(row["symbol"]): tuple(
                MaintenanceBracket(
                    Decimal(str(level["notionalFloor"])),
                    Decimal(str(level["maintMarginRatio"])),
                    Decimal(str(level["cum"])),
                    int(level["initialLeverage"]),
                )
                for level in sorted(row["brackets"], key=lambda level: Decimal(str(level["notionalFloor"])))
            )
            for row in self.read("fapiprivate_get_leveragebracket")
        }
