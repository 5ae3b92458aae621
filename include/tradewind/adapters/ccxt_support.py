"""What each exchange gives an entry, read from ccxt's own table of features; nothing is asked over the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tradewind.adapters.ccxt_factory import ClientConfig, build_exchange
from tradewind.core.types import BracketSupport

EXCHANGES: Final = ("binance", "bybit", "okx", "bitget", "kraken", "coinbase", "kucoin", "gate")
# These trade today; for the others no adapter is written.
TRADED: Final = ("binance", "bybit", "okx", "bitget")
# ccxt's table says more than its createOrder does: it refuses a stop and a target with a spot entry there.
_REFUSED_ON_SPOT: Final = frozenset({"bitget"})
_WORDS: Final = {
    "bybit": "stop and target attached to the entry; a moved stop rests alone, its target is watched every 2 s",
    "okx": "stop and target attached to the entry; a moved pair is one OCO again",
    "bitget": "entry first, then its stop within 5 s, else a market exit; the target is watched every 2 s",
}


@dataclass(frozen=True, slots=True)
class Support:
    """One exchange's spot market: its bracket in the best case, and what ccxt knows of its orders.

    `attached` is ccxt's word for a stop and a target that rest with the entry's fill; `stop_orders`, whether a stop can
    be placed at all; `fill_or_kill`, whether an entry can be sent whole or not at all.
    """

    exchange: str
    bracket: BracketSupport
    attached: bool
    stop_orders: bool
    fill_or_kill: bool
    traded: bool

    @property
    def words(self) -> str:
        """What an entry gets there, for a person."""
        return (
            _WORDS.get(self.exchange)
            or {
                BracketSupport.OPOCO: "one list: OPOCO where a market allows it, else OTOCO",
                BracketSupport.OTOCO: "one list: OTOCO",
                BracketSupport.ATTACHED: "stop and target attached to the entry",
                BracketSupport.EMULATED: "entry first, then its protection within 5 s, else a market exit",
            }[self.bracket]
        )


def support_of(exchange_id: str) -> Support:
    """Raises NotSupported for an exchange that ccxt does not know."""
    exchange = build_exchange(ClientConfig(exchange_id=exchange_id, weight_per_minute=0.0), None)
    spot: Any = (exchange.features or {}).get("spot") or {}
    orders: Any = spot.get("createOrder") or {}
    attached = bool(orders.get("attachedStopLossTakeProfit")) and exchange_id not in _REFUSED_ON_SPOT
    bracket = BracketSupport.ATTACHED if attached else BracketSupport.EMULATED
    if hasattr(exchange, "private_post_orderlist_opoco"):
        # ccxt's table says nothing of Binance's lists: they are reached by methods that bear their endpoints' names.
        bracket = BracketSupport.OPOCO
    return Support(
        exchange=exchange_id,
        bracket=bracket,
        attached=attached,
        stop_orders=bool(orders.get("stopLossPrice")),
        fill_or_kill=bool((orders.get("timeInForce") or {}).get("FOK")),
        traded=exchange_id in TRADED,
    )
