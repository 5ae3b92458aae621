"""Ready-made values for tests of the trading core: one market, one cycle whose long entry passes every filter."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from tradewind.core.inputs import CycleInputs, SymbolInputs
from tradewind.core.market_numbers import MarketNumbers
from tradewind.core.params import StrategyParams
from tradewind.core.types import (
    Bars,
    BracketSupport,
    Fill,
    Instrument,
    Order,
    OrderRole,
    OrderState,
    Permission,
    Portfolio,
    Position,
    PositionStatus,
    Prediction,
    Regime,
    RegimeFamily,
    RegimeState,
    SentimentState,
    Side,
    TradingMode,
)

D = Decimal
BAR = datetime(2024, 3, 5, 12, 0, tzinfo=UTC)
BAR_MS = round(BAR.timestamp() * 1000)
NOW = BAR + timedelta(minutes=15, seconds=8)
PARAMS = StrategyParams()
STEP_MS = 15 * 60 * 1000


def instrument(symbol: str = "SOL/USDT", **changes: Any) -> Instrument:
    base, quote = symbol.split("/")
    usual = {
        "tick_size": D("0.01"),
        "step_size": D("0.001"),
        "min_quantity": D("0.001"),
        "max_quantity": D("90000"),
        "min_notional_quote": D("5"),
        "maker_fee_frac": D("0.001"),
        "taker_fee_frac": D("0.001"),
        "bracket": BracketSupport.OTOCO,
    }
    return Instrument(symbol=symbol, base=base, quote=quote, **(usual | changes))


def numbers(**changes: Any) -> MarketNumbers:
    made = MarketNumbers(
        bar_ms=BAR_MS,
        close=100.0,
        volume_base=50_000.0,
        volume_ratio=1.1,
        atr_quote=1.0,
        trend_ema=95.0,
        missing_bars=0,
    )
    return replace(made, **changes)


def regime(symbol: str = "SOL/USDT", **changes: Any) -> RegimeState:
    made = RegimeState(symbol, BAR, Regime.TRENDING_WEAK, RegimeFamily.TRENDING, 28.0, 1.1, 0.5, 0.5)
    return replace(made, **changes)


def prediction(symbol: str = "SOL/USDT", **changes: Any) -> Prediction:
    made = Prediction(symbol, BAR, "v1", RegimeFamily.TRENDING, 0.5, 0.2, 0.3, 0.3, -0.4, "0" * 64)
    return replace(made, **changes)


def sentiment(symbol: str = "SOL/USDT", score: float = 0.0, **changes: Any) -> SentimentState:
    made = SentimentState(symbol, NOW - timedelta(minutes=10), score, 3.0, "ok", "lexicon")
    return replace(made, **changes)


def symbol_inputs(symbol: str = "SOL/USDT", **changes: Any) -> SymbolInputs:
    made = SymbolInputs(
        symbol=symbol,
        numbers=numbers(),
        regime=regime(symbol),
        sentiment=sentiment(symbol),
        prediction=prediction(symbol),
        instrument=instrument(symbol),
    )
    return replace(made, **changes)


def portfolio(**changes: Any) -> Portfolio:
    made = Portfolio(
        account="test",
        equity_quote=D("10000"),
        free_quote=D("10000"),
        day_open_equity_quote=D("10000"),
        peak_equity_quote=D("10000"),
        exposures=(),
        recent_trades=(),
        as_of=NOW,
    )
    return replace(made, **changes)


def cycle(*symbols: SymbolInputs, **changes: Any) -> CycleInputs:
    made = CycleInputs(
        account="test",
        bar=BAR,
        now=NOW,
        params=PARAMS,
        permission=Permission(True, (), TradingMode.ACTIVE, NOW),
        portfolio=portfolio(),
        symbols=symbols or (symbol_inputs(),),
        correlations={},
        model_trained_until=BAR - timedelta(days=3),
    )
    return replace(made, **changes)


def position(**changes: Any) -> Position:
    made = Position(
        position_id="p1",
        account="test",
        strategy_version="1-x",
        symbol="SOL/USDT",
        side=Side.LONG,
        family=RegimeFamily.TRENDING,
        status=PositionStatus.OPEN,
        bar=BAR,
        opened_at=BAR + timedelta(minutes=15),
        closed_at=None,
        quantity=D("9.99"),
        entry_quantity=D("10"),
        entry_price=D("100"),
        initial_stop_price=D("97.5"),
        stop_price=D("97.5"),
        target_price=D("105"),
        atr_quote=1.0,
        best_close=None,
        managed_bar=None,
        realised_quote=D(0),
        fees_quote=D(0),
    )
    return replace(made, **changes)


def order(client_order_id: str = "twe" + "0" * 32, **changes: Any) -> Order:
    made = Order(
        client_order_id=client_order_id,
        account="test",
        position_id="p1",
        symbol="SOL/USDT",
        role=OrderRole.ENTRY,
        is_buy=True,
        lot=0,
        generation=0,
        order_type="LIMIT",
        quantity=D("10"),
        price=D("100.1"),
        stop_price=None,
        list_client_id=None,
        state=OrderState.FILLED,
        exchange_order_id="1",
        filled_quantity=D("10"),
        planned_at=NOW,
        sent_at=NOW,
        updated_at=NOW,
    )
    return replace(made, **changes)


def fill(trade_id: str, *, is_buy: bool, quantity: str, price: str, **changes: Any) -> Fill:
    made = Fill(
        account="test",
        symbol="SOL/USDT",
        trade_id=trade_id,
        client_order_id="twe" + "0" * 32,
        is_buy=is_buy,
        quantity=D(quantity),
        price=D(price),
        fee=D(0),
        fee_asset="USDT",
        is_maker=False,
        at=NOW,
    )
    return replace(made, **changes)


def random_bars(symbol: str = "SOL/USDT", count: int = 3000, seed: int = 1, volatility: float = 0.004) -> Bars:
    """A random walk of 15m bars that end before BAR: prices on the cent, bounds kept, volume around 10,000."""
    rng = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, volatility, count)))
    opens = np.concatenate(([100.0], closes[:-1]))
    spread = np.abs(rng.normal(0, volatility / 2, (2, count))) * closes
    highs, lows = np.maximum(opens, closes) + spread[0], np.minimum(opens, closes) - spread[1]
    times = BAR_MS - STEP_MS * np.arange(count, 0, -1)
    prices = (np.round(opens, 2), np.round(highs, 2) + 0.01, np.round(lows, 2) - 0.01, np.round(closes, 2))
    return Bars(symbol, "15m", times.astype(np.int64), *prices, np.round(rng.uniform(5e3, 15e3, count), 3))
