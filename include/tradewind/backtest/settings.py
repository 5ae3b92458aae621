"""How a replay is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from tradewind.core.inputs import CycleInputs
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.types import ClosedTrade

from .signals import ModelSpan

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
    shown_decisions: int = 400
