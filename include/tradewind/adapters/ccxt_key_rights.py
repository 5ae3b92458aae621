"""What the exchange says an API key may do: a key that may withdraw is one leak away from an empty account.

A right that the exchange does not tell is None, which is not the same as "no".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tradewind.adapters.ccxt_client import CcxtClient
from tradewind.core.ports import KeyRights
from tradewind.errors import BadInput, NotSupported, OrderRejected

UNTOLD: Final = KeyRights(None, None, None)


def key_rights(client: CcxtClient) -> KeyRights:
    """The rights of the client's key; all None where the exchange has no way to tell, as Binance's testnet.

    Raises a RetryError when the exchange does not answer, AuthenticationFailed for a key it does not know.
    """
    config = client.config
    ask = _ASKERS.get(config.exchange_id)
    if ask is None or config.testnet or not config.api_key:
        return UNTOLD
    try:
        return ask(client)
    except (NotSupported, OrderRejected, BadInput):
        return UNTOLD


def _binance(client: CcxtClient) -> KeyRights:
    told = client.read("sapi_get_account_apirestrictions")
    right = "enableFutures" if client.config.market_type == "usdm" else "enableSpotAndMarginTrading"
    moves = ("enableWithdrawals", "enableInternalTransfer", "permitsUniversalTransfer")
    return KeyRights(_flag(told, right), any(_flag(told, name) is True for name in moves), _flag(told, "ipRestrict"))


def _bybit(client: CcxtClient) -> KeyRights:
    told = client.read("private_get_v5_user_query_api")["result"]
    granted: Mapping[str, Any] = told.get("permissions") or {}
    trades = "SpotTrade" in (granted.get("Spot") or ()) and str(told.get("readOnly")) == "0"
    withdraws = any(name in (granted.get("Wallet") or ()) for name in ("Withdraw", "AccountTransfer"))
    return KeyRights(trades, withdraws, "*" not in (told.get("ips") or ["*"]))


def _okx(client: CcxtClient) -> KeyRights:
    (told,) = client.read("private_get_account_config")["data"]
    granted = {part.strip() for part in str(told.get("perm", "")).split(",")}
    return KeyRights("trade" in granted, "withdraw" in granted, bool(told.get("ip")))


def _bitget(client: CcxtClient) -> KeyRights:
    told = client.read("private_spot_get_v2_spot_account_info")["data"]
    granted = {str(part) for part in told.get("authorities") or ()}
    # Written apart for reading and writing: "stow" is spot trade, "wtow" withdraw, "ttow" transfer.
    return KeyRights("stow" in granted, bool(granted & {"wtow", "ttow"}), bool(told.get("ips")))


_ASKERS: Final[Mapping[str, Callable[[CcxtClient], KeyRights]]] = {
    "binance": _binance,
    "bybit": _bybit,
    "okx": _okx,
    "bitget": _bitget,
}


def _flag(told: Mapping[str, Any], name: str) -> bool | None:
    """ccxt hands booleans on as they came: some exchanges write them as text."""
    value = told.get(name)
    return None if value is None else str(value).lower() == "true"
