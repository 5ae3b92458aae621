"""What real exchanges and people do to a market, an order or an account, drawn by seed, as data.

A trouble begins at a moment of a task and ends when it is lifted, or lasts as long as the trade.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.chaos.markets import FuturesMarket, SpotMarket
from tradewind.paper.admin import PaperAccount, PaperAdmin

Command = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Trouble:
    """`closes`: nothing can be traded while it lasts, so what rests must stay and coverage is not asked for.

    `ends_orders`: the exchange itself takes away what rests. `moves_money`: a person explains a difference afterwards.
    """

    begin: tuple[Command, ...]
    end: tuple[Command, ...] = ()
    closes: bool = False
    ends_orders: bool = False
    moves_money: bool = False

    @property
    def words(self) -> str:
        shown = ("symbol", "account_id")
        return "; ".join(
            f"{name} {' '.join(str(value) for key, value in body.items() if key not in shown)}"
            for name, body in self.begin
        )

    def start(self, admin: PaperAdmin) -> None:
        _run(admin, self.begin)

    def stop(self, admin: PaperAdmin) -> None:
        _run(admin, self.end)


def _run(admin: PaperAdmin, commands: tuple[Command, ...]) -> None:
    for name, body in commands:
        admin.command(name, **body)


@dataclass(frozen=True)
class Stage:
    """Whom it happens to."""

    market: SpotMarket
    account: PaperAccount

    @property
    def symbol(self) -> str:
        return self.market.symbol.replace("/", "")

    @property
    def side(self) -> str:
        return "futures" if isinstance(self.market, FuturesMarket) else "spot"

    @property
    def own(self) -> dict[str, str]:
        return {"account_id": self.account.account_id, "market": self.side}


# ------------------------------------------------------------------------------------------------------------- markets
def _status(stage: Stage, *statuses: str) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        status = {"symbol": stage.symbol, "status": rng.choice(statuses)}
        back = {"symbol": stage.symbol, "status": "TRADING"}
        return Trouble((("status", status),), (("status", back),), closes=True)

    return draw


def _delisted(stage: Stage) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        gone = {"symbol": stage.symbol, "vanishes": rng.random() < 0.5}
        return Trouble((("delist", gone),), (("calm", {}),), closes=True, ends_orders=True)

    return draw


def _empty_book(stage: Stage) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        shape = {"symbol": stage.symbol, "shape": rng.choice(["empty", "zero", "no_bids", "no_asks"])}
        return Trouble((("book", shape),), (("book", {"symbol": stage.symbol, "shape": None}),), closes=True)

    return draw


def _price_range(stage: Stage) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        down, up = rng.choice([("1.3", "2"), ("0.5", "0.7"), ("0.9999", "1.0001")])
        limits = {"symbol": stage.symbol, "down": down, "up": up}
        return Trouble((("price_range", limits),), (("price_range", {"symbol": stage.symbol}),))

    return draw


def _coarser_rules(stage: Stage) -> Callable[[random.Random], Trouble]:
    """The tick, the step and the least notional of the next morning; they stay."""

    def draw(rng: random.Random) -> Trouble:
        tick, step = stage.market.coarser_grids
        changed = {"tick": rng.choice(tick), "step": rng.choice(step), "min_notional": rng.choice(["5", "20", "100"])}
        return Trouble((("rules", {"symbol": stage.symbol, "rules": changed}),))

    return draw


def _market_lot_size(stage: Stage) -> Callable[[random.Random], Trouble]:
    """Less may be sold at any price in one order than the trade holds."""

    def draw(rng: random.Random) -> Trouble:
        most = {"max_market_quantity": str(rng.choice(stage.market.market_lots))}
        return Trouble((("rules", {"symbol": stage.symbol, "rules": most}),))

    return draw


# -------------------------------------------------------------------------------------------------------------- orders
def _maintenance(stage: Stage) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        which = {"symbol": stage.symbol, **stage.own, "share": rng.choice([0.4, 1.0]), "seed": rng.randrange(1000)}
        return Trouble((("expire", which),), ends_orders=True)

    return draw


def _self_trade(stage: Stage) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        which = {"symbol": stage.symbol, **stage.own, "types": ["LIMIT_MAKER"], "status": "EXPIRED_IN_MATCH"}
        return Trouble((("expire", {**which, "share": rng.choice([0.5, 1.0]), "seed": rng.randrange(1000)}),),
                       ends_orders=True)  # fmt: skip

    return draw


def _target_partly_filled(stage: Stage) -> Callable[[random.Random], Trouble]:
    """As at Binance: the first trade of a target, however small, ends the stop beside it."""

    def draw(rng: random.Random) -> Trouble:
        taken = {"symbol": stage.symbol, **stage.own, "types": ["LIMIT_MAKER"], "frac": rng.choice([0.1, 0.4, 0.9])}
        return Trouble((("fill", taken),), ends_orders=True)

    return draw


def _hanging_stop(stage: Stage) -> Callable[[random.Random], Trouble]:
    """The price goes through the stop, and what was triggered is never placed."""

    def draw(rng: random.Random) -> Trouble:
        frac = -stage.market.sign * rng.choice([0.055, 0.07, 0.105])
        hang = ("hang", {"symbol": stage.symbol, "hangs": True})
        moved = ("shock", {"symbol": stage.symbol, "frac": frac})
        back = ("shock", {"symbol": stage.symbol, "frac": 1 / (1 + frac) - 1})
        return Trouble((hang, moved), (("hang", {"symbol": stage.symbol, "hangs": False}), back))

    return draw


# --------------------------------------------------------------------------------------------------------------- money
def _transfer(stage: Stage, sign: int) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        asset, amount = rng.choice(stage.market.transfers(sign))
        return Trouble((("transfer", {**stage.own, "asset": asset, "amount": str(sign * amount)}),), moves_money=True)

    return draw


def _by_hand(stage: Stage) -> Callable[[random.Random], Trouble]:
    """A person sells coins of their own, buys more, or leaves an offer in the book."""

    def draw(rng: random.Random) -> Trouble:
        symbol, quantity = stage.market.hand
        order = {**stage.own, "symbol": symbol, "quantity": quantity, "side": rng.choice(["SELL", "BUY"])}
        return Trouble((("trade", order),), moves_money=True)

    return draw


def _fees_in_bnb(stage: Stage) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        return Trouble((("fees", {**stage.own, "in_bnb": True}),))

    return draw


def _fee_tier(stage: Stage) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        maker, taker = rng.choice([(0, 0), (200, 400), (1500, 3500)])
        tier = {**stage.own, "maker_ppm": maker, "taker_ppm": taker}
        return Trouble((("fees", tier | ({"symbol": stage.symbol} if rng.random() < 0.5 else {})),))

    return draw


def _income(stage: Stage) -> Callable[[random.Random], Trouble]:
    def draw(rng: random.Random) -> Trouble:
        kind = rng.choice(
            ["REFERRAL_KICKBACK", "COMMISSION_REBATE", "API_REBATE", "WELCOME_BONUS", "INTERNAL_TRANSFER", "FEE_RETURN",
             "COIN_SWAP_DEPOSIT", "COIN_SWAP_WITHDRAW", "BFUSD_REWARD", "STRATEGY_UMFUTURES_TRANSFER"]
        )  # fmt: skip
        amount = Decimal(rng.randrange(1, 5_000_000)) / 1_000_000 * (-1 if "WITHDRAW" in kind else 1)
        return Trouble((("income", {**stage.own, "kind": kind, "amount": str(amount)}),), moves_money=True)

    return draw


Draw = Callable[[Stage], Callable[[random.Random], Trouble]]
ON_BOTH: dict[str, Draw] = {
    "halted": lambda stage: _status(stage, "HALT", "BREAK"),
    "cancel only": lambda stage: _status(stage, "CANCEL_ONLY"),
    "delisted": _delisted,
    "empty book": _empty_book,
    "price range": _price_range,
    "coarser rules": _coarser_rules,
    "MARKET_LOT_SIZE": _market_lot_size,
    "maintenance": _maintenance,
    "deposit": lambda stage: _transfer(stage, 1),
    "withdrawal": lambda stage: _transfer(stage, -1),
    "fee tier": _fee_tier,
}
ON_SPOT: dict[str, Draw] = {
    "self-trade prevented": _self_trade,
    "target partly filled": _target_partly_filled,
    "by hand": _by_hand,
    "fees in BNB": _fees_in_bnb,
}
ON_FUTURES: dict[str, Draw] = {
    "TRIGGERING hangs": _hanging_stop,
    "income, no symbol": _income,
}
TROUBLES: dict[str, Draw] = {**ON_BOTH, **ON_SPOT, **ON_FUTURES}


def draw_trouble(rng: random.Random, kind: str, stage: Stage) -> Trouble:
    return TROUBLES[kind](stage)(rng)
