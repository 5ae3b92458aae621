"""The exchange's trading rules as exact Decimals, taken from its raw filters where it publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from tradewind.core.timeframes import from_ms
from tradewind.core.types import BracketSupport, Instrument

_NO_END_MS: Final = 4_000_000_000_000  # in the year 2096; Binance's perpetuals end in 2100
# Entries end so long before a market does: twice what a position is held for.
_LAST_DAYS: Final = timedelta(days=2)


def instrument_from_market(market: Mapping[str, Any], *, attached_brackets: bool) -> Instrument:
    """One of ccxt's market structures as an Instrument.

    Binance publishes filters as decimal strings: those are used, since ccxt's floats have lost their exactness. Other
    exchanges go through ccxt's numbers, whose shortest decimal form is what was published.
    """
    info: Mapping[str, Any] = market.get("info") or {}
    filters = {entry["filterType"]: entry for entry in info.get("filters") or ()}
    price, lot = filters.get("PRICE_FILTER", {}), filters.get("LOT_SIZE", {})
    market_lot = filters.get("MARKET_LOT_SIZE") or info.get("lotSizeFilter") or {}
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    limits = market["limits"]
    # Announced delistings: of Binance's perpetuals, okx's and bitget's spot markets.
    ends = (market.get("expiry"), info.get("deliveryDate"), info.get("expTime"), info.get("offTime"))
    delisted_at = next((moment for moment in map(_moment, ends) if moment is not None), None)
    step = _decimal(lot.get("stepSize"), market["precision"]["amount"], default="1e-8")
    made = Instrument(
        symbol=market["symbol"],
        base=market["base"],
        quote=market["quote"],
        tick_size=_decimal(price.get("tickSize"), market["precision"]["price"], default="1e-8"),
        step_size=step,
        min_quantity=_decimal(lot.get("minQty"), limits["amount"]["min"], default=str(step)),
        max_quantity=_decimal(lot.get("maxQty"), limits["amount"]["max"], default="1e12"),
        # okx gives this limit in quote, not in base: there it is left to the exchange to refuse.
        max_market_quantity=_decimal(market_lot.get("maxQty"), market_lot.get("maxMarketOrderQty"), default="0"),
        min_notional_quote=_decimal(notional.get("minNotional"), limits["cost"]["min"], default="0"),
        maker_fee_frac=_decimal(market.get("maker"), default="0.001"),
        taker_fee_frac=_decimal(market.get("taker"), default="0.001"),
        bracket=_bracket(info, attached=attached_brackets),
        active=market.get("active") is not False,
        listed_at=_moment(market.get("created")),
    )
    return made if delisted_at is None else ending(made, delisted_at)


def ending(instrument: Instrument, delisted_at: datetime) -> Instrument:
    """A market with its announced end: without entries where that leaves too little time for a position.

    What is held when a market ends cannot be sold any more.
    """
    has_time = delisted_at - datetime.now(UTC) >= _LAST_DAYS
    return replace(instrument, delisted_at=delisted_at, active=instrument.active and has_time)


def _bracket(info: Mapping[str, Any], *, attached: bool) -> BracketSupport:
    if info.get("opoAllowed") is True:
        return BracketSupport.OPOCO
    if info.get("otoAllowed") is True and info.get("ocoAllowed") is True:
        return BracketSupport.OTOCO
    return BracketSupport.ATTACHED if attached else BracketSupport.EMULATED


def _decimal(*candidates: Any, default: str) -> Decimal:
    """The first value given, exact and without trailing zeros or an exponent above zero."""
    raw = next((candidate for candidate in candidates if candidate is not None), default)
    value = Decimal(str(raw)).normalize()
    exponent = value.as_tuple().exponent
    return value.quantize(Decimal(1)) if isinstance(exponent, int) and exponent > 0 else value


def _moment(ms: Any) -> datetime | None:
    """None also for the date by which a contract says that it has no end, and for a negative one."""
    return from_ms(int(ms)) if ms and 0 < int(ms) < _NO_END_MS else None
