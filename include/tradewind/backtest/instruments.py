"""Trading rules for candles that come without an exchange: the grid is read off the prices themselves."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np

from tradewind.core.matching_rules import ATOM_DECIMALS
from tradewind.core.params import StrategyParams
from tradewind.core.types import Bars, BracketSupport, FloatArray, Instrument

_MAX_DECIMALS = 6  # of a price from 1 on; a smaller one has as many more as it is smaller
_A_FEW = 200


def inferred_instrument(bars: Bars, params: StrategyParams) -> Instrument:
    """Tick: the coarsest power of ten that all prices lie on (at most 6 decimals, for prices under 1 as many more as
    they have noughts); step: about a hundredth of a quote unit's worth, never so fine that a tick times a step is under
    the eighth decimal; minimum notional 5; fees as the strategy assumes them.
    """
    base, _, quote = bars.symbol.partition("/")
    price = float(np.median(bars.close)) if len(bars) else 1.0
    decimals = _price_decimals(bars, _MAX_DECIMALS + max(0, -int(np.floor(np.log10(price))) - 1))
    step_decimals = int(np.clip(np.ceil(np.log10(price) + 2), 0, max(0, ATOM_DECIMALS - decimals)))
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


def judged_fees(instrument: Instrument, params: StrategyParams) -> Instrument:
    """The rules with fees of at most what the strategy is judged with: a dearer market is refused when it is traded."""
    most = Decimal(repr(params.fee_frac))
    maker, taker = min(instrument.maker_fee_frac, most), min(instrument.taker_fee_frac, most)
    return replace(instrument, maker_fee_frac=maker, taker_fee_frac=taker)


def _price_decimals(bars: Bars, most: int) -> int:
    columns = (bars.open, bars.high, bars.low, bars.close)
    for decimals in range(most):
        # A few prices refuse most grids; only one that they lie on is worth looking at all.
        if all(_lies_on(column[:_A_FEW], decimals) for column in columns) and all(
            _lies_on(column, decimals) for column in columns
        ):
            return decimals
    return most


def _lies_on(prices: FloatArray, decimals: int) -> bool:
    """Every price is a multiple of the power of ten and not none of it, within a ten-thousandth of it."""
    rounded = np.round(prices, decimals)
    return bool(((rounded > 0) & (np.abs(prices - rounded) <= 10.0 ** -(decimals + 4))).all())
