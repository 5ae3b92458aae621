"""Funding in a replay of futures: by the exchange's own function, in the wallet, the equity and the ledger alike."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.test_candle_files import write
from tests.backtest.test_futures_replay import SYMBOLS, contract, forecast
from tests.support.trading import BAR_MS, PARAMS, STEP_MS, random_bars
from tradewind.backtest.chain import Chain
from tradewind.backtest.funding import FundingRates, assumed_rates, market_rates
from tradewind.backtest.futures_account import FuturesSimulatedAccount
from tradewind.backtest.replay import ReplaySettings, replay
from tradewind.backtest.signals import SymbolSeries, symbol_series
from tradewind.commands.backtest import _funding
from tradewind.core.futures import FUNDING_INTERVAL_MS, funding_payment
from tradewind.core.matching_rules import amount
from tradewind.core.types import Side
from tradewind.errors import BadInput
from tradewind.paper.futures_exchange import FuturesExchange
from tradewind.paper.market_view import MarketView
from tradewind.paper.markets_replay import ReplayMarket

START_MS = BAR_MS - 700 * STEP_MS
ATOM = Decimal("0.00000001")


def made_series(seed: int) -> dict[str, SymbolSeries]:
    made = {}
    for number, symbol in enumerate(SYMBOLS):
        bars = random_bars(symbol, 3300, seed=seed + number)
        made[symbol] = symbol_series(bars, contract(symbol), forecast(bars, seed + 70 + number), PARAMS)
    return made


@pytest.fixture(scope="module")
def series() -> dict[str, SymbolSeries]:
    return made_series(0)


def run(series: dict[str, SymbolSeries], funding: FundingRates | None, *, every_bar: bool = False) -> Chain:
    chain = Chain(
        series, PARAMS, START_MS, BAR_MS, ReplaySettings(funding=funding, visit_every_bar=every_bar)
    )  # fmt: skip
    chain.run()
    return chain


def wallet_of(chain: Chain) -> tuple[Decimal, Decimal]:
    """The exchange's wallet, and what its open positions cost (signed)."""
    assert isinstance(chain.account, FuturesSimulatedAccount)
    account = chain.account.futures.margins[chain.account.account_id]
    return amount(account.wallet_atoms), amount(sum(p.cost_atoms for p in account.positions.values()))


@settings(max_examples=12)
@given(seed=st.integers(0, 500), rate=st.decimals("-0.003", "0.003", places=6))
def test_ledger_and_wallet_agree_under_any_rate(seed: int, rate: Decimal) -> None:
    series = made_series(seed)
    chain = run(series, assumed_rates(series, rate))
    wallet, cost = wallet_of(chain)
    assert wallet - cost == chain.settings.capital_quote + chain._cash()
    assert chain.funding is not None
    received = sum((payment.amount_quote for payment in chain.funding.paid), Decimal(0))
    fills = sum((holding.cash_quote for holding in chain.account.holdings.values()), Decimal(0))
    assert chain._cash() == fills + received


def test_whoever_holds_at_the_moment_pays_and_nobody_else(series: dict[str, SymbolSeries]) -> None:
    rate = Decimal("0.001")
    result = replay(series, PARAMS, START_MS, BAR_MS, ReplaySettings(funding=assumed_rates(series, rate)))
    fills = sorted(result.fills, key=lambda fill: fill.at)
    held: dict[tuple[str, int], Decimal] = {}
    for at in range(START_MS, BAR_MS, STEP_MS):
        if at % FUNDING_INTERVAL_MS == 0:
            for fill in (fill for fill in fills if fill.at.timestamp() * 1000 < at):
                signed = fill.quantity if fill.is_buy else -fill.quantity
                held[fill.symbol, at] = held.get((fill.symbol, at), Decimal(0)) + signed
    expected = {key: quantity for key, quantity in held.items() if quantity}
    paid = {(payment.symbol, payment.at_ms): payment for payment in result.funding}
    assert set(paid) == set(expected)
    assert len(paid) > 20
    assert {quantity > 0 for quantity in expected.values()} == {True, False}, "longs and shorts were held"
    for (symbol, at), quantity in expected.items():
        bars = series[symbol].bars
        price = Decimal(str(bars.open[np.searchsorted(bars.open_time_ms, at)]))
        due = funding_payment(quantity, price, rate)
        assert abs(paid[symbol, at].amount_quote - due) <= ATOM
        assert (paid[symbol, at].amount_quote < 0) == (quantity > 0)
    total = sum((payment.amount_quote for payment in result.funding), Decimal(0))
    (note,) = [note for note in result.run.notes if "funding" in note]
    assert "an assumed rate of 0.1" in note
    assert f"{total:+.2f} USDT in {len(paid)} payments" in note


def test_passing_over_quiet_bars_settles_the_same(series: dict[str, SymbolSeries]) -> None:
    rates = market_rates(series)
    some, every = run(series, rates), run(series, rates, every_bar=True)
    assert some.funding is not None
    assert every.funding is not None
    assert some.funding.paid == every.funding.paid != []
    assert wallet_of(some) == wallet_of(every)
    assert some.visited < every.visited
    curves = [[point.equity_quote for point in chain.marks.curve()] for chain in (some, every)]
    np.testing.assert_allclose(*curves, rtol=1e-12)


def test_without_rates_nothing_is_settled_and_the_notes_say_so(series: dict[str, SymbolSeries]) -> None:
    result = replay(series, PARAMS, START_MS, BAR_MS)
    assert list(result.funding) == []
    assert any("funding is not settled" in note for note in result.run.notes)
    assert {trade.side for trade in result.run.trades} == {Side.LONG, Side.SHORT}


def test_the_market_s_rates_are_the_paper_exchange_s(tmp_path: Path) -> None:
    bars = random_bars("SOL/USDT", 1000, volatility=0.01)
    write(tmp_path, bars)
    market = ReplayMarket(tmp_path)
    exchange = FuturesExchange(market.rules, MarketView(market), set(), None)
    (symbol,) = market.rules
    one = symbol_series(bars, contract("SOL/USDT"), forecast(bars, 1), PARAMS)
    known = market_rates({"SOL/USDT": one}).rates["SOL/USDT"]
    assert len(known) > 25
    assert len(set(known.values())) > 10
    assert known == {at: exchange.funding_rate(symbol, at) for at in known}


@pytest.mark.parametrize("given_rate", ["much", "nan", "1.5"])
def test_a_rate_that_is_none_is_refused(series: dict[str, SymbolSeries], given_rate: str) -> None:
    with pytest.raises(BadInput, match="no rate"):
        _funding(series, given_rate, is_paper=False)


def test_spot_pays_no_funding() -> None:
    from tests.support.trading import instrument

    bars = random_bars(count=400)
    spot = {"SOL/USDT": symbol_series(bars, instrument(), forecast(bars, 1), PARAMS)}
    assert _funding(spot, "", is_paper=False) is None
    with pytest.raises(BadInput, match="for futures"):
        _funding(spot, "0.0001", is_paper=False)
