"""What the account itself pays in each market, as the exchange tells it: fee tiers, promotions, regions, taxes.

A rate is asked for again after hours; until then, and while the exchange does not answer, the last one counts. All
processes of a deployment share what one was told. Discounts for paying in an exchange's own coin are not counted: they
end with the coin.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from redis.exceptions import RedisError

from tradewind.errors import RetryError, StopError

from .ccxt_client import CcxtClient

_log = logging.getLogger(__name__)
_MOST_FRAC: Final = Decimal("0.1")
_LASTS_S: Final = 6 * 3600.0
_KEPT_S: Final = 7 * 86_400
# Rates that are merely old are asked for a few at a time, so that no cycle waits for all of them;
_OLD_AT_ONCE: Final = 5
# what was not told is not asked for again before this.
_RETRY_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class FeeRates:
    """Fractions of what is traded (0.001 = 0.1 %); a rebate is negative."""

    maker_frac: Decimal
    taker_frac: Decimal

    def __post_init__(self) -> None:
        if not all(-_MOST_FRAC < rate < _MOST_FRAC for rate in (self.maker_frac, self.taker_frac)):
            raise ValueError("a fee of a tenth of what is traded is no fee")


class AccountFees:
    """The rates of one client's account, by our symbols."""

    def __init__(self, client: CcxtClient) -> None:
        self._client = client
        config = client.config
        self._ask = _ASKERS.get((config.exchange_id, config.market_type)) if config.api_key else None
        self._known: dict[str, tuple[float, FeeRates]] = {}  # when told, wall time in seconds
        self._refused_until_s: dict[str, float] = {}

    def of(self, symbols: Sequence[str]) -> dict[str, FeeRates]:
        """The account's rates in each of these markets; one for which the exchange does not tell them is absent."""
        if self._ask is None:
            return {}
        if any(self._age_s(symbol) > _LASTS_S for symbol in symbols):
            self._take_cached(symbols)
        old = sorted((s for s in symbols if self._age_s(s) > _LASTS_S), key=self._age_s, reverse=True)
        missing = [symbol for symbol in old if symbol not in self._known]
        for symbol in missing + [symbol for symbol in old if symbol in self._known][:_OLD_AT_ONCE]:
            if time.monotonic() >= self._refused_until_s.get(symbol, 0.0) and not self._learn(symbol, self._ask):
                break
        return {symbol: self._known[symbol][1] for symbol in symbols if symbol in self._known}

    def _age_s(self, symbol: str) -> float:
        told = self._known.get(symbol)
        return float("inf") if told is None else abs(time.time() - told[0])

    def _learn(self, symbol: str, ask: Asker) -> bool:
        """Ask for one market's rates; False when the exchange does not answer, so that the others need not be tried."""
        try:
            rates = ask(self._client, self._client.market(symbol))
        except (RetryError, StopError) as error:
            _log.warning("The account's fees in %s are not told: %s", symbol, error)
            self._refused_until_s[symbol] = time.monotonic() + _RETRY_S
            return not isinstance(error, RetryError)
        except (LookupError, TypeError, ValueError, AttributeError, InvalidOperation):
            _log.warning("The account's fees in %s are told in a form that is not known here", symbol)
            self._refused_until_s[symbol] = time.monotonic() + _RETRY_S
            return True
        self._known[symbol] = (time.time(), rates)
        self._share(symbol)
        return True

    # ----------------------------------------------------------------------------------------------------------- cache
    @property
    def _key(self) -> str:
        return f"tradewind:fees:{self._client.config.limit_key}"

    def _take_cached(self, symbols: Sequence[str]) -> None:
        if self._client.redis is None:
            return
        try:
            told: Any = self._client.redis.hmget(self._key, list(symbols))
        except RedisError as error:
            _log.info("The cache is away (%s): fees are asked for", type(error).__name__)
            return
        for symbol, packed in zip(symbols, told, strict=True):
            if packed is None:
                continue
            at_s, maker, taker = json.loads(packed)
            if symbol not in self._known or at_s > self._known[symbol][0]:
                self._known[symbol] = (at_s, FeeRates(Decimal(maker), Decimal(taker)))

    def _share(self, symbol: str) -> None:
        if self._client.redis is None:
            return
        at_s, rates = self._known[symbol]
        try:
            self._client.redis.hset(self._key, symbol, json.dumps([at_s, str(rates.maker_frac), str(rates.taker_frac)]))
            self._client.redis.expire(self._key, _KEPT_S)
        except RedisError as error:
            _log.info("The cache is away (%s): each process asks for fees itself", type(error).__name__)


# ------------------------------------------------------------------------------------------------------ each in its way
Asker = Callable[[CcxtClient, Mapping[str, Any]], FeeRates]


def _binance_spot(client: CcxtClient, market: Mapping[str, Any]) -> FeeRates:
    """Three commissions are added up, each a rate by liquidity and one by side; the dearer side counts."""
    told = client.read("private_get_account_commission", {"symbol": market["id"]})
    parts = [told[f"{name}Commission"] for name in ("standard", "special", "tax") if told.get(f"{name}Commission")]
    side = max(sum((Decimal(part.get(name) or 0) for part in parts), Decimal(0)) for name in ("buyer", "seller"))
    maker, taker = (sum((Decimal(part[name]) for part in parts), side) for name in ("maker", "taker"))
    if not parts:
        raise KeyError("standardCommission")
    return FeeRates(maker, taker)


def _binance_futures(client: CcxtClient, market: Mapping[str, Any]) -> FeeRates:
    told = client.read("fapiprivate_get_commissionrate", {"symbol": market["id"]})
    return FeeRates(Decimal(told["makerCommissionRate"]), Decimal(told["takerCommissionRate"]))


def _okx(client: CcxtClient, market: Mapping[str, Any]) -> FeeRates:
    """A fee is negative there. Since 2025 each market belongs to a fee group; before, its quote currency decided."""
    (told,) = client.read("private_get_account_trade_fee", {"instType": "SPOT", "instId": market["id"]})["data"]
    groups = {str(group["groupId"]): group for group in told.get("feeGroup") or ()}
    own = groups.get(str((market.get("info") or {}).get("groupId")))
    if own is None and len(groups) == 1:
        (own,) = groups.values()
    if own is not None:
        return FeeRates(-Decimal(own["maker"]), -Decimal(own["taker"]))
    ending = "" if market["quote"] == "USDT" or not told.get("takerUSDC") else "USDC"
    return FeeRates(-Decimal(told[f"maker{ending}"]), -Decimal(told[f"taker{ending}"]))


def _bybit(client: CcxtClient, market: Mapping[str, Any]) -> FeeRates:
    told = client.read("private_get_v5_account_fee_rate", {"category": "spot", "symbol": market["id"]})
    (row,) = [row for row in told["result"]["list"] if row["symbol"] == market["id"]]
    return FeeRates(Decimal(row["makerFeeRate"]), Decimal(row["takerFeeRate"]))


def _bitget(client: CcxtClient, market: Mapping[str, Any]) -> FeeRates:
    wanted = {"symbol": market["id"], "businessType": "spot"}
    told = client.read("private_common_get_v2_common_trade_rate", wanted)["data"]
    return FeeRates(Decimal(told["makerFeeRate"]), Decimal(told["takerFeeRate"]))


_ASKERS: Final[Mapping[tuple[str, str], Asker]] = {
    ("binance", "spot"): _binance_spot,
    ("binance", "usdm"): _binance_futures,
    ("okx", "spot"): _okx,
    ("bybit", "spot"): _bybit,
    ("bitget", "spot"): _bitget,
}
