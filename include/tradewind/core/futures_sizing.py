"""What margin changes in deciding: how far the stop must stay from the price at which the exchange would liquidate."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from .futures import liquidation_of_entry, stop_share_of_liquidation
from .params import StrategyParams
from .sizing import Sizing
from .types import Instrument, Side, Verdict

LIQUIDATION = "liquidation"


def allowed_sides(instruments: Mapping[str, Instrument]) -> tuple[Side, ...]:
    """Both sides where every market has margin; on spot only what is bought first can be sold."""
    if instruments and all(instrument.margin is not None for instrument in instruments.values()):
        return (Side.LONG, Side.SHORT)
    return (Side.LONG,)


def check_liquidation(side: Side, sizing: Sizing | None, instrument: Instrument, params: StrategyParams) -> Verdict:
    """The stop lies within `max_stop_to_liquidation_frac` of the way from the entry to the liquidation price.

    Both are reckoned at the entry's limit, which is the worst price it may fill at, with the commission of the exit
    taken from the margin. Raises ValueError for an instrument without margin rules.
    """
    if instrument.margin is None:
        raise ValueError(f"{instrument.symbol} is no future: nothing of it is ever liquidated")
    if sizing is None:
        return Verdict(LIQUIDATION, False, "nothing to size")
    price = liquidation_of_entry(
        side, sizing.quantity, sizing.entry_limit_price, instrument.margin, instrument.taker_fee_frac
    )
    share = stop_share_of_liquidation(sizing.entry_limit_price, sizing.stop_price, price)
    limit = Decimal(str(params.max_stop_to_liquidation_frac))
    numbers: dict[str, float | int | str | bool | None] = {
        "liquidation_price": None if price is None else float(price),
        "stop_price": float(sizing.stop_price),
        "entry_limit_price": float(sizing.entry_limit_price),
        "leverage": instrument.margin.leverage,
        "share_of_the_way": float(share),
        "limit": params.max_stop_to_liquidation_frac,
    }
    reason = "nothing is liquidated" if price is None else f"the stop is {share:.0%} of the way to liquidation"
    return Verdict(LIQUIDATION, share <= limit, reason, numbers)
