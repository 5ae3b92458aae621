"""What a paid scorer has used of its day: tokens, their cost, and the account that processes share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Protocol

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests and tokens with their cost; of one request, or of a whole UTC day."""

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """What a million tokens cost, in US dollars; thinking counts as answering."""

    prompt_usd: Decimal = Decimal("0.30")
    answer_usd: Decimal = Decimal("2.50")

    def usage(self, prompt_tokens: int, answer_tokens: int) -> Usage:
        """One request's usage."""
        cost = (prompt_tokens * self.prompt_usd + answer_tokens * self.answer_usd) / _MILLION
        return Usage(1, prompt_tokens, answer_tokens, cost)


class UsageStore(Protocol):
    """The account of a scorer's days, shared by all processes."""

    def usage(self, scorer: str, day: date) -> Usage: ...
    def add_usage(self, scorer: str, day: date, used: Usage) -> None: ...
