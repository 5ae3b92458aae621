"""The operator's client: what tests and the demo use to steer a running paper exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import httpx

from tradewind.errors import BadInput, ExchangeUnreachable
from tradewind.listeners import own_listeners_only


@dataclass(frozen=True, slots=True)
class PaperAccount:
    """A key of an account on the paper exchange."""

    account_id: str
    api_key: str
    api_secret: str
    can_trade: bool = True


@dataclass(frozen=True, slots=True)
class ClockReading:
    """`mode` is real, stepped or running; times are epoch milliseconds."""

    mode: str
    market_ms: int
    wall_ms: int
    speed: float


class PaperAdmin:
    """Admin calls to the exchange at `url`. Usable as a context manager.

    Every method raises ExchangeUnreachable when nobody answers and BadInput when the exchange refuses what was asked.
    """

    def __init__(self, url: str, token: str, timeout_s: float = 60.0) -> None:
        self._client = httpx.Client(
            base_url=url,
            headers={"X-Tradewind-Admin": token},
            timeout=timeout_s,
            event_hooks={"request": [own_listeners_only]},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    # ----------------------------------------------------------------------------------------------------------- clock
    def clock(self) -> ClockReading:
        return ClockReading(**self._call("GET", "clock"))

    def set_clock(self, market_ms: int) -> ClockReading:
        """Freeze the market at a time. Going forward, the market is walked there."""
        return ClockReading(**self._call("POST", "clock", {"set_ms": market_ms}))

    def step(self, bars: int = 1, timeframe: str = "15m") -> ClockReading:
        """Freeze the market and move it on by so many bars; resting orders meet every base bar in between."""
        return ClockReading(**self._call("POST", "clock", {"step_bars": bars, "timeframe": timeframe}))

    def step_ms(self, milliseconds: int) -> ClockReading:
        return ClockReading(**self._call("POST", "clock", {"step_ms": milliseconds}))

    def run(self, speed: float) -> ClockReading:
        """Let the market run at so many times the speed of the wall clock, from where it is."""
        return ClockReading(**self._call("POST", "clock", {"speed": speed}))

    def use_real_clock(self) -> ClockReading:
        return ClockReading(**self._call("POST", "clock", {"mode": "real"}))

    # -------------------------------------------------------------------------------------------------------- accounts
    def create_account(
        self,
        balances: Mapping[str, Decimal | str] | None = None,
        *,
        futures_balances: Mapping[str, Decimal | str] | None = None,
        account_id: str | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
        can_trade: bool = True,
    ) -> PaperAccount:
        """Open an account (10,000 USDT unless told otherwise, nothing on the futures side).

        With the same id, key and secret it may be repeated.
        """
        body: dict[str, Any] = {"can_trade": can_trade}
        if balances is not None:
            body["balances"] = {asset: str(held) for asset, held in balances.items()}
        if futures_balances is not None:
            body["futures_balances"] = {asset: str(held) for asset, held in futures_balances.items()}
        given = {"account_id": account_id, "api_key": api_key, "api_secret": api_secret}
        body |= {name: value for name, value in given.items() if value is not None}
        return PaperAccount(**self._call("POST", "accounts", body))

    def create_key(self, account_id: str, *, can_trade: bool = True) -> PaperAccount:
        """One more key for an account, for instance one that may only read."""
        return PaperAccount(**self._call("POST", "keys", {"account_id": account_id, "can_trade": can_trade}))

    def state(self) -> dict[str, Any]:
        """Balances, orders and fills of every account."""
        return self._call("GET", "state")

    # ------------------------------------------------------------------------------------------------------- accidents
    def add_fault(self, action: str, **rule: Any) -> dict[str, Any]:
        """Add a fault rule; see `tradewind.paper.faults` for its fields. Returns the rule with its id."""
        return self._call("POST", "faults", {"action": action, **rule})

    def faults(self) -> list[dict[str, Any]]:
        rules: list[dict[str, Any]] = self._call("GET", "faults")["rules"]
        return rules

    def clear_faults(self, rule_id: int | None = None) -> int:
        """Remove one rule, or all; returns how many went."""
        return int(self._call("DELETE", "faults", {} if rule_id is None else {"id": rule_id})["removed"])

    def shock(self, frac: float, symbol: str = "all", at_ms: int | None = None) -> dict[str, Any]:
        """Multiply prices by 1 + frac from now (or from a later market time) on. `symbol` is written BTCUSDT."""
        body: dict[str, Any] = {"frac": frac, "symbol": symbol.replace("/", "")}
        if at_ms is not None:
            body["at_ms"] = at_ms
        return self._call("POST", "shock", body)

    # --------------------------------------------------------------------------------------------------------- markets
    def set_status(self, symbol: str, status: str) -> None:
        """TRADING, HALT, BREAK or CANCEL_ONLY, on spot and futures alike. Symbols may be written BTC/USDT."""
        self.command("status", symbol=symbol, status=status)

    def halt(self, symbol: str, *, halted: bool = True) -> None:
        """Stop (or resume) trading in a symbol."""
        self.set_status(symbol, "HALT" if halted else "TRADING")

    def delist(self, symbol: str, *, vanishes: bool = True) -> None:
        """End a symbol's market for good: its orders expire, futures positions are settled.

        It is unknown from then on, or stays listed as BREAK with a book of zeros.
        """
        self.command("delist", symbol=symbol, vanishes=vanishes)

    def calm(self) -> None:
        """Let every market trade again as it was made, a delisted one too; orders that were ended stay so."""
        self.command("calm")

    def bend_book(self, symbol: str, shape: str | None) -> None:
        """Make the book empty, zero, no_bids, no_asks or crossed until it is bent back by None."""
        self.command("book", symbol=symbol, shape=shape)

    def change_rules(self, symbol: str, **rules: Decimal | str) -> None:
        """Today's tick, step, min_notional, min_quantity, max_quantity, max_market_quantity; none: the old ones."""
        self.command("rules", symbol=symbol, rules={name: str(value) for name, value in rules.items()})

    def limit_range(self, symbol: str, down: Decimal | str | None, up: Decimal | str | None = None) -> None:
        """Let takers trade within these multiples of the average price alone; None lifts it."""
        limits = {} if down is None or up is None else {"down": str(down), "up": str(up)}
        self.command("price_range", symbol=symbol, **limits)

    def hang_triggers(self, symbol: str, *, hangs: bool = True, releases: bool = False) -> list[str]:
        """Let futures stops hang in TRIGGERING from now on; returns the client ids of those that do."""
        answer = self.command("hang", symbol=symbol, hangs=hangs, releases=releases)
        return list(answer["hung"])

    # ---------------------------------------------------------------------------------------------- orders and accounts
    def expire(self, symbol: str | None = None, **which: Any) -> list[str]:
        """The exchange ends resting orders; returns their client ids.

        `account_id`, `market`, `types`, `share` with `seed` say which, `status` EXPIRED_IN_MATCH that it is self-trade
        prevention.
        """
        answer = self.command("expire", **({} if symbol is None else {"symbol": symbol}), **which)
        return list(answer["expired"])

    def fill_resting(self, symbol: str, account: PaperAccount, frac: float, **which: Any) -> list[str]:
        """Somebody takes a share of the account's resting limit orders. Returns their client ids."""
        answer = self.command("fill", symbol=symbol, account_id=account.account_id, frac=frac, **which)
        return list(answer["filled"])

    def trade_by_hand(
        self, account: PaperAccount, symbol: str, side: str, quantity: Decimal | str, **order: Any
    ) -> dict[str, Any]:
        """An order of the account's owner, at the market unless `type` and `price` say otherwise."""
        return self.command(
            "trade", account_id=account.account_id, symbol=symbol, side=side, quantity=str(quantity), **order
        )

    def set_fees(self, account: PaperAccount, maker_ppm: int, taker_ppm: int, **where: Any) -> None:
        """A fee tier of the account, in one `symbol` alone where one is named, on the `market` "spot" or "futures"."""
        self.command("fees", account_id=account.account_id, maker_ppm=maker_ppm, taker_ppm=taker_ppm, **where)

    def pay_fees_in_bnb(self, account: PaperAccount, *, in_bnb: bool = True) -> None:
        """Let spot fees be paid in BNB, at a discount, as long as some is free."""
        self.command("fees", account_id=account.account_id, in_bnb=in_bnb)

    def transfer(self, account: PaperAccount, asset: str, amount: Decimal | str, *, market: str = "spot") -> None:
        """A deposit, or (negative) a withdrawal of what is free."""
        self.command("transfer", account_id=account.account_id, asset=asset, amount=str(amount), market=market)

    def add_income(self, account: PaperAccount, kind: str, amount: Decimal | str, symbol: str = "") -> None:
        """A movement of the futures wallet that no trade caused, of one of Binance's income types."""
        self.command("income", account_id=account.account_id, kind=kind, amount=str(amount), symbol=symbol)

    def command(self, name: str, **body: Any) -> dict[str, Any]:
        """One of the operator's commands by its name; see `tradewind.paper.intervention_api`."""
        if isinstance(body.get("symbol"), str):
            body["symbol"] = body["symbol"].replace("/", "")
        return self._call("POST", name, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, f"/__admin/{path}", json=body)
        except httpx.HTTPError as error:
            raise ExchangeUnreachable(
                f"the paper exchange at {self._client.base_url} does not answer: {error}"
            ) from error
        if answer.status_code >= 500:
            raise ExchangeUnreachable(f"the paper exchange failed at {method} {path}: HTTP {answer.status_code}")
        if answer.status_code != 200:
            raise BadInput(f"the paper exchange refused {method} {path}: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found
