"""The account's own fees, told by each exchange in its way, and what counts while they are not told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import redis

from tests.support.attached import Bybit, Dialect, Okx, Venue
from tests.support.attached_bitget import Bitget
from tests.support.binance import Market
from tests.support.http_server import serving
from tests.support.trading import PARAMS, cycle, instrument, symbol_inputs
from tradewind.adapters import ccxt_fees
from tradewind.adapters.ccxt_bitget import CcxtBitgetTrading
from tradewind.adapters.ccxt_bybit import CcxtBybitTrading
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_futures import CcxtFuturesTrading
from tradewind.adapters.ccxt_futures_client import CcxtFuturesClient
from tradewind.adapters.ccxt_okx import CcxtOkxTrading
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.backtest.instruments import judged_fees
from tradewind.core.decision import decide, judge
from tradewind.core.types import Instrument, Outcome

D = Decimal
BTC, ETH = "BTC/USDT", "ETH/USDT"


@contextmanager
def spot(market: Market, cache: redis.Redis | None = None, key: str = "k") -> Iterator[CcxtTrading]:
    with serving(market) as (url, _):
        config = ClientConfig(base_url=url, api_key=key, api_secret="s", weight_per_minute=0.0, symbols=(BTC, ETH))
        yield CcxtTrading(CcxtClient(config, cache), "test")


def fees_of(rules: Instrument) -> tuple[Decimal, Decimal, bool]:
    return rules.maker_fee_frac, rules.taker_fee_frac, rules.fees_are_own


# ------------------------------------------------------------------------------------------------------- each exchange
def test_binance_adds_up_three_commissions_and_counts_the_dearer_side() -> None:
    """The numbers of Binance's own commission FAQ; the discount for paying in BNB ends with the BNB."""
    market = Market()
    told = {
        "symbol": "BTCUSDT",
        "standardCommission": {"maker": "0.0004", "taker": "0.0005", "buyer": "0.0001", "seller": "0.0002"},
        "specialCommission": {"maker": "0.04", "taker": "0.05", "buyer": "0.01", "seller": "0.01"},
        "taxCommission": {"maker": "0.0012", "taker": "0.0013", "buyer": "0.001", "seller": "0.001"},
        "discount": {"enabledForAccount": True, "enabledForSymbol": True, "discountAsset": "BNB", "discount": "0.25"},
    }
    market.answers = {("GET", "commission"): lambda _: told}
    with spot(market) as exchange:
        assert fees_of(exchange.instruments([BTC])[BTC]) == (D("0.0528"), D("0.063"), True)


def test_binance_futures_tells_both_rates() -> None:
    market = Market()
    market.fees = {"maker": "0.000200", "taker": "0.000450"}
    market.answers = {("GET", "leverageBracket"): lambda _: []}
    with serving(market) as (url, _):
        config = ClientConfig(
            market_type="usdm", base_url=url, api_key="k", api_secret="s", weight_per_minute=0.0, symbols=(BTC,)
        )
        exchange = CcxtFuturesTrading(CcxtFuturesClient(config), "test")
        assert fees_of(exchange.instruments([BTC])[BTC]) == (D("0.0002"), D("0.00045"), True)


def no_ledger(_: str, __: Sequence[str]) -> Mapping[str, str]:
    return {}


ELSEWHERE: dict[str, tuple[type[Dialect], Any]] = {
    "okx": (Okx, CcxtOkxTrading),
    "bybit": (Bybit, CcxtBybitTrading),
    "bitget": (Bitget, CcxtBitgetTrading),
}


@contextmanager
def elsewhere(name: str, kind: type[Dialect]) -> Iterator[Any]:
    with serving(kind(Venue(USDT="1000"))) as (url, _):
        config = ClientConfig(
            exchange_id=name, base_url=url, api_key="k", api_secret="s", api_passphrase="p", weight_per_minute=0.0,
            symbols=(BTC,),
        )  # fmt: skip
        yield ELSEWHERE[name][1](CcxtClient(config), "test", no_ledger)


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_the_others_tell_them_too(name: str) -> None:
    with elsewhere(name, ELSEWHERE[name][0]) as exchange:
        assert fees_of(exchange.instruments([BTC])[BTC]) == (D("0.0008"), D("0.001"), True)


OKX_ROW = {"instType": "SPOT", "level": "Lv1", "maker": "-0.0008", "taker": "-0.001", "takerUSDC": "-0.002",
           "makerUSDC": "-0.0015"}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (OKX_ROW, ("0.0008", "0.001")),
        ({**OKX_ROW, "feeGroup": []}, ("0.0008", "0.001")),
        ({**OKX_ROW, "feeGroup": [{"groupId": "4", "maker": "-0.002", "taker": "-0.0035"}]}, ("0.002", "0.0035")),
        (
            {
                **OKX_ROW,
                "feeGroup": [
                    {"groupId": "4", "maker": "-0.002", "taker": "-0.0035"},
                    {"groupId": "1", "maker": "0.00005", "taker": "-0.0003"},
                ],
            },
            ("-0.00005", "0.0003"),
        ),
    ],
    ids=["before groups", "no groups", "the only group", "its group, with a rebate"],
)
def test_okx_tells_a_fee_as_a_negative_number_by_group(row: dict[str, Any], expected: tuple[str, str]) -> None:
    class Told(Okx):
        def account_trade_fee(self, query: Any) -> Any:
            return [row]

    with elsewhere("okx", Told) as exchange:
        assert fees_of(exchange.instruments([BTC])[BTC]) == (D(expected[0]), D(expected[1]), True)


# ------------------------------------------------------------------------------------------------------- how long
def test_what_is_not_told_is_what_is_published_and_says_so() -> None:
    market = Market()
    market.answers = {("GET", "commission"): lambda _: (-2015, "Invalid API-key, IP, or permissions for action.")}
    with spot(market) as exchange:
        for _ in range(3):
            assert fees_of(exchange.instruments([BTC])[BTC]) == (D("0.001"), D("0.001"), False)
        assert market.asked.count("commission") == 1, "not asked at each look"
    market.asked.clear()
    with spot(market, key="") as exchange:
        assert fees_of(exchange.instruments([BTC])[BTC])[2] is False
        assert "commission" not in market.asked


NO_FEES: list[Any] = [
    {},
    [],
    {"standardCommission": 1},
    {"standardCommission": {"maker": "x", "taker": "y"}},
    {"standardCommission": {"maker": "NaN", "taker": "10"}},
]


@pytest.mark.parametrize("told", NO_FEES)
def test_an_answer_that_is_no_fee_is_none(told: Any) -> None:
    market = Market()
    market.answers = {("GET", "commission"): lambda _: told}
    with spot(market) as exchange:
        assert fees_of(exchange.instruments([BTC])[BTC]) == (D("0.001"), D("0.001"), False)


def test_a_rate_lasts_for_hours_and_outlasts_an_exchange_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Market()
    market.fees = {"maker": "0.00075", "taker": "0.0009"}
    now_s = 1_700_000_000.0
    monkeypatch.setattr(ccxt_fees.time, "time", lambda: now_s)
    with spot(market) as exchange:
        assert exchange.instruments([BTC])[BTC].taker_fee_frac == D("0.0009")
        market.fees = {"maker": "0.0002", "taker": "0.0003"}
        now_s += 3600
        assert exchange.instruments([BTC])[BTC].taker_fee_frac == D("0.0009")
        now_s += 6 * 3600
        market.answers = {("GET", "commission"): lambda _: (-1003, "Too many requests.")}
        assert exchange.instruments([BTC])[BTC].taker_fee_frac == D("0.0009")
        market.answers = {}
        exchange._fees._refused_until_s.clear()  # as after five minutes
        assert exchange.instruments([BTC])[BTC].taker_fee_frac == D("0.0003")


def test_processes_of_one_account_share_what_one_was_told(valkey_url: str) -> None:
    market, cache = Market(), redis.Redis.from_url(valkey_url)
    market.fees = {"maker": "0.00075", "taker": "0.0009"}
    with spot(market, cache) as exchange:
        assert exchange.instruments([BTC, ETH])[ETH].taker_fee_frac == D("0.0009")
        asked = market.asked.count("commission")
        assert asked == 2
        other = CcxtTrading(CcxtClient(exchange._client.config, cache), "test")
        assert fees_of(other.instruments([BTC, ETH])[BTC]) == (D("0.00075"), D("0.0009"), True)
        assert market.asked.count("commission") == asked
        somebody = replace(exchange._client.config, api_key="another")
        assert CcxtTrading(CcxtClient(somebody, cache), "test").instruments([BTC])[BTC].fees_are_own
        assert market.asked.count("commission") == asked + 1, "another account pays its own"


# ------------------------------------------------------------------------------------------------------------ entries
def test_an_entry_is_refused_where_the_account_pays_more_than_the_strategy_was_judged_with() -> None:
    fine = symbol_inputs()
    assert decide(cycle(fine))[0].outcome is Outcome.INTENT
    dear = replace(fine, instrument=instrument(taker_fee_frac=D("0.0035"), fees_are_own=True))
    (decision,) = decide(cycle(dear))
    assert decision.outcome is Outcome.DECLINED
    assert decision.reason.startswith("expected_value: the account pays a taker fee of 0.3500% in SOL/USDT")
    assert "judged with 0.1000%" in decision.reason
    assert judge(cycle(dear))[0].outcome is Outcome.DECLINED
    published = replace(fine, instrument=instrument(taker_fee_frac=D("0.0015")))
    assert "the exchange publishes a taker fee" in decide(cycle(published))[0].reason
    paid = replace(fine, instrument=instrument(taker_fee_frac=D("0.0002"), fees_are_own=True))
    assert decide(cycle(paid))[0].outcome is Outcome.INTENT


def test_training_judges_with_no_more_than_the_strategy_assumes() -> None:
    dear = judged_fees(instrument(taker_fee_frac=D("0.0035"), maker_fee_frac=D("0.002")), PARAMS)
    assert (dear.taker_fee_frac, dear.maker_fee_frac) == (D("0.001"), D("0.001"))
    cheap = instrument(taker_fee_frac=D("0.0005"), maker_fee_frac=D("0.0002"))
    assert judged_fees(cheap, PARAMS) == cheap
