"""One market's or one position's trouble stays its own: it is said in words, alerted, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog

from tradewind.core.ports import Ports
from tradewind.errors import (
    AuthenticationFailed,
    ClockSkewed,
    ExchangeUnreachable,
    LockNotAcquired,
    RateLimited,
    StoreUnavailable,
    TradewindError,
)

log = structlog.get_logger(__name__)
T = TypeVar("T")

# These are about the account or the connection: asking for each market alone would fail as often.
_OF_THE_ACCOUNT: Final = (AuthenticationFailed, ClockSkewed, ExchangeUnreachable, RateLimited, StoreUnavailable)
# These pass by themselves, or are said elsewhere: no alert for each position.
_PASSING: Final = (*_OF_THE_ACCOUNT, LockNotAcquired)


def each_symbol(question: Callable[[Sequence[str]], T], symbols: Sequence[str]) -> tuple[list[T], dict[str, str]]:
    """What the exchange answers for these symbols: all at once, or one by one where one of them spoils the answer.

    Returns the answers, and what went wrong in words by symbol. Raises what is about the account as a whole.
    """
    try:
        return ([question(symbols)] if symbols else []), {}
    except _OF_THE_ACCOUNT:
        raise
    except Exception as error:
        if len(symbols) == 1:
            log.warning("a market does not answer", symbol=symbols[0], exc_info=True)
            return [], {symbols[0]: said(error)}
    answers: list[T] = []
    troubles: dict[str, str] = {}
    for symbol in symbols:
        own, trouble = each_symbol(question, [symbol])
        answers += own
        troubles |= trouble
    return answers, troubles


def alone(ports: Ports, position_id: str, symbol: str, work: Callable[[], str]) -> str:
    """Do `work` for one position; returns what kept it from being done, in its own words or an error's, or "".

    No error leaves: one of a kind that nobody foresaw is logged with its traceback and alerted as critical.
    """
    try:
        return work()
    except _PASSING as error:
        return said(error)
    except TradewindError as error:
        severity, words = "warning", said(error)
    except Exception as error:
        log.exception("a position was not tended", position_id=position_id, symbol=symbol)
        severity, words = "critical", said(error)
    ports.alerts.raise_alert(
        severity, f"untended-{position_id}", f"{symbol}: a position could not be tended", f"{position_id}: {words}"
    )
    return words


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}"
