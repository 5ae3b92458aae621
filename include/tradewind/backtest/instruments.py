"""Trading rules for candles that come without an exchange: the grid is read off the prices themselves."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from tradewind.core.params import StrategyParams
from tradewind.core.types import Bars, BracketSupport, FloatArray, Instrument

_MAX_DECIMALS = 6
_A_FEW = 200
_ATOM_DECIMALS = 8  # matching counts money in 1e-8: tick × step may not be finer


def inferred_instrument(bars: Bars, params: StrategyParams) -> Instrument:
    """Tick: the coarsest power of ten that all prices lie on (at most 6 decimals); step: about a hundredth of a quote
    unit's worth, never finer than the tick allows; minimum notional 5; fees as the strategy assumes them.
    """
    base, _, quote = bars.symbol.partition("/")
    decimals = _price_decimals(bars)
    price = float(np.median(bars.close)) if len(bars) else 1.0
    step_decimals = int(np.clip(np.ceil(np.log10(price) + 2), 0, _ATOM_DECIMALS - decimals))
    fee = Decimal(repr(params.fee_frac))
    step = Decimal(1).scaleb(-step_decimals)
    return Instrument(
        symbol=bars.symbol,
        base=base,
        quote=quote or "USDT",
        tick_size=Decimal(1).scaleb(-decimals),
        step_size=step,
        min_quantity=step,
        max_quantity=Decimal(9_000_000),
        min_notional_quote=Decimal(5),
        maker_fee_frac=fee,
        taker_fee_frac=fee,
        bracket=BracketSupport.OTOCO,
    )


def _price_decimals(bars: Bars) -> int:
    columns = (bars.open, bars.high, bars.low, bars.close)
    for decimals in range(_MAX_DECIMALS):
        # A few prices refuse most grids; only one that they lie on is worth looking at all.
        if all(_lies_on(column[:_A_FEW], decimals) for column in columns) and all(
            _lies_on(column, decimals) for column in columns
        ):
            return decimals
    return _MAX_DECIMALS


def _lies_on(prices: FloatArray, decimals: int) -> bool:
    """Every price is a multiple of the power of ten, within a ten-thousandth of it."""
    return bool((np.abs(prices - np.round(prices, decimals)) <= 10.0 ** -(decimals + 4)).all())
