"""The market's clock: wall time by default, or frozen and stepped by hand, or running at another speed.

Requests authenticate on wall time whatever this clock says.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MarketClock:
    """Market time as a function of wall time: `market_ms + (wall - wall_ms) × speed`; speed 0 is a frozen clock."""

    market_ms: int = 0
    wall_ms: int = 0
    speed: float = 1.0

    def now_ms(self, wall_ms: int) -> int:
        return self.market_ms + int((wall_ms - self.wall_ms) * self.speed)

    @property
    def mode(self) -> str:
        if self.speed == 0:
            return "stepped"
        return "real" if self.speed == 1 and self.market_ms == self.wall_ms else "running"

    @classmethod
    def frozen(cls, market_ms: int, wall_ms: int) -> MarketClock:
        return cls(market_ms, wall_ms, 0.0)

    def at_speed(self, speed: float, wall_ms: int) -> MarketClock:
        """The same moment, going on at `speed`."""
        return MarketClock(self.now_ms(wall_ms), wall_ms, speed)

    def as_row(self) -> dict[str, Any]:
        return asdict(self)
