"""A fund's book, kept as funds keep it: units and their value. What the breaker's references are checked against."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import strategies as st

from tests.support.trading import PARAMS

# What histories are made of: sums, and shares of what is there.
MONEY = st.decimals("0.01", "50000", places=2)
RESULT_FRAC = st.decimals("-0.12", "0.12", places=4)


@dataclass(slots=True)
class Fund:
    """Money in units. Losses are shares of a unit's value, whatever was paid in or out meanwhile.

    `opening` and `peak` are values of one unit, None while there is nothing to compare with.
    """

    money: Fraction
    most: Fraction | None = None  # what trading may use of it
    units: Fraction = field(init=False)
    opening: Fraction | None = None
    peak: Fraction | None = None
    daily_limit: Fraction = Fraction(str(PARAMS.max_daily_loss_frac))
    drawdown_limit: Fraction = Fraction(str(PARAMS.max_drawdown_frac))

    def __post_init__(self) -> None:
        self._found()

    def _found(self) -> None:
        """Units of one each, or none where there is no money."""
        self.units, self.opening, self.peak = max(self.money, Fraction(0)), None, None

    @property
    def unit(self) -> Fraction:
        return self.money / self.units

    @property
    def has_units(self) -> bool:
        return self.units > 0

    def win(self, result: Fraction) -> None:
        self.money += result

    def pay_in(self, amount: Fraction) -> None:
        """Units are bought, or given back, at their present value; where they are worth nothing all begins anew."""
        if not self.has_units or self.money <= 0:
            self.money += amount
            self._found()
            self.opening = self.peak = self.unit if self.has_units else None
            return
        unit = self.unit
        self.money += amount
        self.units = self.money / unit if self.money > 0 else Fraction(0)

    def mark(self) -> None:
        if self.has_units:
            self.opening = self.unit if self.opening is None else self.opening
            self.peak = self.unit if self.peak is None else max(self.peak, self.unit)

    def begin_day(self) -> None:
        self.opening = self.unit if self.has_units else None

    def resume(self) -> None:
        self.opening = self.peak = self.unit if self.has_units else None

    @property
    def is_breached(self) -> bool:
        """Is as much lost as may be, of what was there and might be used, in the money of now?"""
        return any(
            reference is not None
            and self.units * reference > 0
            and self.units * reference - self.money >= limit * self._usable(self.units * reference)
            for reference, limit in ((self.opening, self.daily_limit), (self.peak, self.drawdown_limit))
        )

    def _usable(self, money: Fraction) -> Fraction:
        return money if self.most is None else min(money, self.most)

    def loss_to_breach(self) -> Fraction:
        """The smallest loss from here that breaches; zero or less where it is breached already."""
        return min(
            self.money - self.units * reference + limit * self._usable(self.units * reference)
            for reference, limit in ((self.opening, self.daily_limit), (self.peak, self.drawdown_limit))
            if reference is not None
        )
