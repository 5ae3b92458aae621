"""Money in the matching engine is exact in every market that an exchange publishes, however small its tick and lot."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.support.trading import instrument
from tradewind.backtest.booking import decimals_of, rules_of
from tradewind.core.matching import Engine
from tradewind.core.matching_rules import SymbolRules, atom_decimals_of
from tradewind.core.matching_types import NewOrder, OrderKind, OrderSide

D = Decimal
# As the exchanges publish them: tick, lot, least and largest quantity, a price of the year 2026.
PUBLISHED = {
    "okx BTC/USDT": ("0.1", "0.00000001", "0.00001", "9999999999", "95000"),
    "okx ETH/BTC": ("0.00001", "0.000001", "0.001", "999999999999", "0.03"),
    "okx SHIB/USDT": ("0.000000001", "1", "100000", "999999999999", "0.0000085"),
    "okx PEPE/USDT": ("0.000000001", "1", "100000", "999999999999", "0.0000061"),
    "bybit BTC/USDT": ("0.01", "0.000001", "0.000048", "71.73956243", "95000"),
    "bitget BTC/USDT": ("0.01", "0.000001", "0", "900000000000000000000", "95000"),
    "bitget PEPE/USDT": ("0.0000000001", "0.1", "0", "900000000000000000000", "0.0000061"),
    "Binance BTC/USDT": ("0.01", "0.00001", "0.00001", "9000", "95000"),
    "Binance ETH/BTC": ("0.00001", "0.0001", "0.0001", "100000", "0.03"),
    "Binance SHIB/USDT": ("0.00000001", "1", "1", "46116860414", "0.0000085"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_purchase_and_a_sale_are_exact_to_the_last_digit(name: str) -> None:
    tick, step, least, most, price = map(D, PUBLISHED[name])
    market = instrument(
        name.split()[1], tick_size=tick, step_size=step, min_quantity=least, max_quantity=most,
        min_notional_quote=D(0), taker_fee_frac=D("0.0015"),
    )  # fmt: skip
    engine = Engine([rules_of(market)])
    rules = engine.rules[market.symbol]
    assert (rules.price(rules.ticks(price)), rules.quantity(rules.lots(step))) == (price, step)
    capital = D("1000")
    engine.open_account("a", {market.quote: engine.atoms(capital)})
    lots = int(capital / 2 / price / step)
    engine.on_price(market.symbol, rules.ticks(price), 1_000 * lots, 0, 0)
    bought = engine.place("a", NewOrder(market.symbol, OrderSide.BUY, OrderKind.MARKET, "buy", lots=lots), 1)
    held = engine.amount(engine.book.accounts["a"].balance(market.base).total)
    engine.place("a", NewOrder(market.symbol, OrderSide.SELL, OrderKind.MARKET, "sell", lots=int(held / step)), 2)
    fills = engine.drain().fills
    assert bought.filled_lots == lots
    moved = sum((-fill.side * rules.price(fill.price_ticks) * rules.quantity(fill.lots) for fill in fills), D(0))
    fees = sum((engine.amount(f.commission_atoms) for f in fills if f.commission_asset == market.quote), D(0))
    assert engine.amount(engine.book.accounts["a"].balance(market.quote).total) == capital + moved - fees
    assert fees > 0


def test_markets_traded_together_count_as_finely_as_the_finest_needs() -> None:
    coarse, fine = instrument("SOL/USDT"), instrument("BTC/USDT", tick_size=D("0.1"), step_size=D("0.00000001"))
    assert (decimals_of([coarse]), decimals_of([fine]), decimals_of([coarse, fine])) == (8, 9, 9)
    with pytest.raises(ValueError, match="equally finely"):
        Engine([rules_of(coarse), rules_of(fine)])
    engine = Engine([rules_of(coarse, 9), rules_of(fine, 9)])
    assert engine.amount(engine.atoms(D("1.123456789"))) == D("1.123456789")


def test_eight_decimals_are_the_fewest() -> None:
    assert atom_decimals_of(D("0.01"), D("0.001")) == 8
    assert atom_decimals_of(D("0.10"), D("1E-8")) == 9
    assert atom_decimals_of(D(1), D("1000")) == 8


def test_a_market_that_cannot_be_counted_exactly_is_refused() -> None:
    with pytest.raises(ValueError, match="tick × step must be a whole number of 1e-8"):
        SymbolRules("BTC/USDT", "BTC", "USDT", D("0.1"), D("0.00000001"))
