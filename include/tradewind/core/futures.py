"""Linear perpetual futures (USDⓈ-M): margin, maintenance, liquidation, funding. Exact, in Decimal.

A position of signed quantity q, opened for a signed cost c (quantity times average entry price), is worth q·P − c at
the mark price P. In isolated margin only the money set aside for it answers for it: it is liquidated where that money
plus its unrealised result no longer exceeds the maintenance margin, which grows with its notional by brackets.

Sources: Binance's published formulas for the liquidation price, the maintenance amount and the funding rate of USDⓈ-M
contracts.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_DOWN, Decimal
from typing import Final

from .types import MaintenanceBracket, MarginRules, Side

ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)
FUNDING_INTERVAL_MS: Final = 8 * 3_600_000
INTEREST_RATE: Final = Decimal("0.0001")  # for each funding interval
RATE_UNITS: Final = 10**8  # the engine counts rates in units of 1e-8
_PREMIUM_SHARE: Final = Decimal(20)  # of the paper market: the price change of an interval is so many times its premium
_FUNDING_DAMPER: Final = Decimal("0.0005")
_FUNDING_CAP: Final = Decimal("0.003")
_RATE_STEP: Final = Decimal("0.00000001")


def make_brackets(levels: Sequence[tuple[str, str, int]]) -> tuple[MaintenanceBracket, ...]:
    """Brackets from (notional floor, rate, leverage), lowest first; the amounts follow from continuity.

    Amount of level n = floor of n × (rate of n − rate of n−1) + amount of n−1.
    """
    made: list[MaintenanceBracket] = []
    for floor, rate, leverage in levels:
        level, amount = (Decimal(floor), Decimal(rate)), ZERO
        if made:
            amount = level[0] * (level[1] - made[-1].rate) + made[-1].amount
        made.append(MaintenanceBracket(level[0], level[1], amount, leverage))
    return tuple(made)


def bracket_of(notional: Decimal, brackets: Sequence[MaintenanceBracket]) -> MaintenanceBracket:
    """The bracket that a notional (quote, its sign ignored) falls into."""
    size = abs(notional)
    return next((b for b in reversed(brackets) if size >= b.notional_floor), brackets[0])


def maintenance_margin(notional: Decimal, brackets: Sequence[MaintenanceBracket]) -> Decimal:
    """What must stay as margin for a position of this notional."""
    bracket = bracket_of(notional, brackets)
    return abs(notional) * bracket.rate - bracket.amount


def unrealised_pnl(quantity: Decimal, entry_price: Decimal, mark_price: Decimal) -> Decimal:
    """Result of closing a signed quantity at the mark price, before fees."""
    return quantity * (mark_price - entry_price)


def liquidation_price_in(
    bracket: MaintenanceBracket,
    wallet: Decimal,
    quantity: Decimal,
    entry_price: Decimal,
    *,
    others_maintenance: Decimal = ZERO,
    others_pnl: Decimal = ZERO,
) -> Decimal:
    """The published formula, inside one bracket.

    LP = (wallet − others' maintenance + others' unrealised result + amount − side·size·entry) / (size·(rate − side)).
    In isolated margin `wallet` is the position's own margin and both figures of the others are zero.
    """
    side, size = (ONE if quantity > 0 else -ONE), abs(quantity)
    money = wallet - others_maintenance + others_pnl + bracket.amount - side * size * entry_price
    return money / (size * (bracket.rate - side))


def liquidation_price(
    margin: Decimal, quantity: Decimal, entry_price: Decimal, brackets: Sequence[MaintenanceBracket]
) -> Decimal | None:
    """Where an isolated position is liquidated, in the bracket that its notional has there. None: at no price.

    The margin balance falls and the maintenance margin is continuous in the price, so that one bracket alone fits.
    """
    if quantity == 0:
        return None
    size = abs(quantity)
    found: Decimal | None = None
    for number, bracket in enumerate(brackets):
        price = liquidation_price_in(bracket, margin, quantity, entry_price)
        ceiling = brackets[number + 1].notional_floor if number + 1 < len(brackets) else None
        if price * size >= bracket.notional_floor and (ceiling is None or price * size < ceiling):
            found = price
            break
    return found if found is not None and found > 0 else None


def liquidation_of_entry(
    side: Side, quantity: Decimal, entry_price: Decimal, rules: MarginRules, fee_frac: Decimal = ZERO
) -> Decimal | None:
    """Where an entry of this size would be liquidated, its margin being notional over leverage less the exit's fee."""
    notional = quantity * entry_price
    margin = notional / rules.leverage - notional * fee_frac
    signed = quantity if side is Side.LONG else -quantity
    return liquidation_price(margin, signed, entry_price, rules.brackets)


# ------------------------------------------------------------------------------------------------------------- funding
def funding_rate(premium: Decimal) -> Decimal:
    """The rate of one interval from the average premium: premium + clamp(interest − premium, ±0.05 %), at most 0.3 %.

    Rounded towards zero to eight decimals.
    """
    damped = min(max(INTEREST_RATE - premium, -_FUNDING_DAMPER), _FUNDING_DAMPER)
    rate = min(max(premium + damped, -_FUNDING_CAP), _FUNDING_CAP)
    return rate.quantize(_RATE_STEP, ROUND_DOWN)


def rate_of_move(before: int | None, now: int | None) -> Decimal:
    """The paper market's rate, from its prices (ticks) one interval ago and now; without either nothing has moved."""
    premium = ZERO if not before or not now else (Decimal(now) / before - 1) / _PREMIUM_SHARE
    return funding_rate(premium)


def funding_payment(quantity: Decimal, mark_price: Decimal, rate: Decimal) -> Decimal:
    """What a holder of the signed quantity receives (negative: pays): longs pay shorts when the rate is positive."""
    return -quantity * mark_price * rate


def funding_times(after_ms: int, until_ms: int) -> range:
    """The funding moments in (after, until]: 00:00, 08:00 and 16:00 UTC."""
    first = after_ms // FUNDING_INTERVAL_MS + 1
    return range(first * FUNDING_INTERVAL_MS, until_ms + 1, FUNDING_INTERVAL_MS)


# -------------------------------------------------------------------------------------------------------------- caution
def stop_share_of_liquidation(entry: Decimal, stop: Decimal, liquidation: Decimal | None) -> Decimal:
    """How much of the way from the entry to the liquidation price the stop takes; 0 where nothing is liquidated."""
    if liquidation is None or entry == liquidation:
        return ZERO if liquidation is None else ONE
    return (entry - stop) / (entry - liquidation)
