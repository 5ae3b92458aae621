"""How much: a fixed share of equity at risk over the distance to the stop, costs included, inside every cap.

The worst case is sized: the entry pays its limit price, the stop fills half a spread and the slippage beyond itself,
both sides pay the taker fee. Everything is `Decimal`; the quantity is floored to the step, so that rounding only ever
lowers the risk.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from .brackets import (
    ONE,
    ZERO,
    can_be_opened,
    decimal_of,
    entry_limit_price,
    floor_to_step,
    held_after_fee,
    initial_stop_price,
    split_lots,
)
from .params import Geometry, StrategyParams
from .positions import Costs, sign_of
from .types import BracketLot, Instrument, Side, Verdict

SIZE = "size"
Number = TypeVar("Number", Decimal, float)


@dataclass(frozen=True, slots=True)
class Room:
    """What the portfolio still allows one entry, in quote: money to spend, exposure, risk."""

    equity_quote: Decimal
    free_quote: Decimal
    exposure_quote: Decimal  # notional left under the symbol's and the total limit
    risk_quote: Decimal  # risk left under the slot, the open-risk limit and the correlated positions


@dataclass(frozen=True, slots=True)
class Sizing:
    """A feasible size with its prices. `bound_by` names the cap that decided."""

    quantity: Decimal
    entry_limit_price: Decimal
    stop_price: Decimal
    lots: tuple[BracketLot, ...]
    risk_quote: Decimal
    notional_quote: Decimal
    bound_by: str


def slot_risk(equity_quote: Decimal, params: StrategyParams) -> Decimal:
    """What one entry may risk at most, in quote."""
    return equity_quote * decimal_of(params.risk_frac)


def least_risk(equity_quote: Decimal, params: StrategyParams) -> Decimal:
    """What one entry must risk at least to be worth its costs, in quote."""
    return slot_risk(equity_quote, params) * decimal_of(params.min_risk_share_frac)


def cost_frac(instrument: Instrument) -> Decimal:
    """What an entry takes of the free money, as a fraction of its notional: all of it, or its margin; and the fee."""
    paid = ONE if instrument.margin is None else ONE / instrument.margin.leverage
    return paid + instrument.taker_fee_frac


def unit_risk(sign: int, entry: Number, stop: Number, fee_frac: Number, market_frac: Number) -> Number:
    """Quote lost by one unit that is entered at `entry` and stopped at `stop`: distance, both fees, the market cost.

    Exact in `Decimal`; the replay asks it in floats, and asks again in `Decimal` where that could make a difference.
    """
    return (entry - stop) * sign + (entry + stop) * fee_frac + stop * market_frac


def risk_per_unit(side: Side, entry: Decimal, stop: Decimal, costs: Costs) -> Decimal:
    """`unit_risk` with the strategy's costs."""
    return unit_risk(sign_of(side), entry, stop, decimal_of(costs.fee_frac), decimal_of(costs.market_frac))


@dataclass(slots=True)
class Reckoning:
    """How a size came about. `sizing` is None where it is not feasible; `refusal` then says why, as one of the names
    that `explain` knows. Caps in base units; a refusal before there are any leaves them empty.
    """

    entry: Decimal
    stop: Decimal
    caps: dict[str, Decimal]
    bound_by: str = ""
    quantity: Decimal = ZERO
    risk: Decimal = ZERO
    sellable: Decimal = ZERO
    refusal: str = ""
    sizing: Sizing | None = None


def reckon_size(
    side: Side,
    reference: Decimal,
    atr_quote: float,
    volume_base: float,
    geometry: Geometry,
    room: Room,
    instrument: Instrument,
    params: StrategyParams,
) -> Reckoning:
    """The size of one entry: `reference` is the decision bar's close, `volume_base` its volume."""
    entry = entry_limit_price(side, reference, atr_quote, params, instrument)
    stop = initial_stop_price(side, reference, atr_quote, geometry, instrument)
    found = Reckoning(entry, stop, {})
    if not instrument.active:
        found.refusal = "inactive"
        return found
    if stop <= 0 or entry <= 0 or (entry - stop) * sign_of(side) <= 0:
        found.refusal = "wrong_side"
        return found
    unit_risk = risk_per_unit(side, entry, stop, Costs.of(params, float(instrument.taker_fee_frac)))
    found.caps = caps = {
        "risk": max(room.risk_quote, ZERO) / unit_risk,
        "balance": max(room.free_quote, ZERO) / (entry * cost_frac(instrument)),
        "exposure": max(room.exposure_quote, ZERO) / entry,
        "volume": decimal_of(volume_base) * decimal_of(params.max_bar_volume_frac),
        # A stop that fires is a market order: what it could not sell at once is not bought.
        "max_quantity": instrument.max_market_quantity,
    }
    found.bound_by = min(caps, key=caps.__getitem__)
    found.quantity = quantity = floor_to_step(caps[found.bound_by], instrument.step_size)
    found.risk = quantity * unit_risk
    found.sellable = held_after_fee(quantity, instrument)
    if not can_be_opened(quantity, entry, stop, instrument):
        found.refusal = "too_small"
    elif found.risk < least_risk(room.equity_quote, params):
        found.refusal = "too_little_risk"
    else:
        lots = split_lots(quantity, side, reference, entry, stop, geometry, params, instrument)
        found.sizing = Sizing(quantity, entry, stop, lots, found.risk, quantity * entry, found.bound_by)
    return found


def size_entry(
    side: Side,
    reference: Decimal,
    atr_quote: float,
    volume_base: float,
    geometry: Geometry,
    room: Room,
    instrument: Instrument,
    params: StrategyParams,
) -> tuple[Sizing | None, Verdict]:
    """`reckon_size` with its verdict, which carries every cap in base units."""
    found = reckon_size(side, reference, atr_quote, volume_base, geometry, room, instrument, params)
    return found.sizing, explain(found, room, instrument, params)


def explain(found: Reckoning, room: Room, instrument: Instrument, params: StrategyParams) -> Verdict:
    """A reckoning in words and numbers."""
    if found.refusal == "inactive":
        words = f"{instrument.symbol} is not open to entries: it does not trade now, or is about to be delisted"
        return Verdict(SIZE, False, words)
    prices: dict[str, float | int | str | bool | None] = {
        "entry_limit_price": float(found.entry),
        "stop_price": float(found.stop),
    }
    if found.refusal == "wrong_side":
        return Verdict(SIZE, False, "the stop is not on the losing side of a positive price", prices)
    numbers: dict[str, float | int | str | bool | None] = {
        **{f"{name}_cap_base": float(cap) for name, cap in found.caps.items()},
        "quantity": float(found.quantity),
        **prices,
        "risk_quote": float(found.risk),
        "notional_quote": float(found.quantity * found.entry),
        "bound_by": found.bound_by,
    }
    if found.refusal == "too_small":
        reason = (
            f"{found.sellable} {instrument.base} of it would be under the exchange's minimum "
            f"({instrument.min_notional_quote} {instrument.quote}, {instrument.min_quantity} {instrument.base}); "
            f"bound by {found.bound_by}"
        )
        return Verdict(SIZE, False, reason, numbers)
    if found.sizing is None:
        least = least_risk(room.equity_quote, params)
        reason = (
            f"only {found.risk:.2f} {instrument.quote} could be risked, under {least:.2f}; bound by {found.bound_by}"
        )
        return Verdict(SIZE, False, reason, numbers)
    numbers["lots"] = len(found.sizing.lots)
    return Verdict(SIZE, True, f"bound by {found.bound_by}", numbers)
