"""How a replay is run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from tradewind.core.inputs import CycleInputs
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.resampling import BASE_MS
from tradewind.core.types import ClosedTrade

from .signals import ModelSpan, moment

if TYPE_CHECKING:
    from .funding import FundingRates  # which needs the timeline, and that these settings


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """Money, clockwork and circumstances of a replay.

    Parameters
    ----------
    max_capital_quote : the most equity that sizing may use; None for all of it.
    decision_delay_s : from a bar's close to the decision, as live measures it; the entry meets the next bar's open.
    models : which version decides from when, ascending; before the first none does. None: their age is not judged.
    matching : None for the strategy's own spread and slippage.
    recorded : circumstances of a live run by bar (ms): decisions are made at these bars alone, for every symbol of
        theirs, at their moment and under their permission. None: the replay's own breaker and clock.
    recent_trades : what was closed before the start, for cooldowns and pauses.
    base_held : by asset what the account has at first beside its capital; `baseline` is the part that is not ours.
    funding : the rates that futures settle; None settles none.
    visit_every_bar : walk each bar while something is held, instead of passing over the quiet ones.
    detailed : False where only trades and equity are wanted: the loop is then compiled (`compiled`), and orders, fills,
        decisions and the funnel are made by a second, detailed run when somebody reads them.
    """

    capital_quote: Decimal = Decimal(10_000)
    max_capital_quote: Decimal | None = None
    account: str = "replay"
    decision_delay_s: float = 5.0
    models: tuple[ModelSpan, ...] | None = None
    matching: MatchingSettings | None = None
    recorded: Mapping[int, CycleInputs] | None = None
    recent_trades: tuple[ClosedTrade, ...] = ()
    base_held: Mapping[str, Decimal] = field(default_factory=dict)
    baseline: Mapping[str, Decimal] = field(default_factory=dict)
    funding: FundingRates | None = None
    visit_every_bar: bool = False
    detailed: bool = True
    shown_decisions: int = 400

    def trained_until(self, bar_ms: int) -> datetime | None:
        """The end of the data of the model that decides at this bar; the bar's own close where no model does."""
        if self.models is None:
            return moment(bar_ms + BASE_MS)
        at = bisect_right(self.models, bar_ms, key=lambda span: span.start_ms)
        return moment(self.models[at - 1].trained_until_ms) if at else None
