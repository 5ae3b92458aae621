"""One position's trouble stays its own: markets without rules, price or answer, defects, rules that were changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest

from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.params import StrategyParams
from tradewind.core.types import BookTop, ExchangeOrder, Fill, Instrument, Position, PositionStatus, TradingMode
from tradewind.errors import NotFlatYet, OrderRejected
from tradewind.jobs.market import collect_candles
from tradewind.jobs.reconciling import compare
from tradewind.jobs.safety import flatten, trip_circuit_breaker, whats_left
from tradewind.jobs.tending import follow_bar, foreign_fills, instruments_of, protect_naked, tend_all
from tradewind.jobs.trading import place_brackets

OVER = (PositionStatus.CLOSED, PositionStatus.DUST)
BTC, ETH = "BTC/USDT", "ETH/USDT"


class Troubled(CcxtTrading):
    """The same exchange, one market in trouble: no price, zeros for prices, an answer that spoils all, a defect."""

    unpriced: str = ""
    zeros: str = ""
    spoils: str = ""
    defect: str = ""

    def _spoil(self, symbols: Sequence[str]) -> None:
        if self.spoils in symbols:
            raise OrderRejected("Invalid symbol.", -1121)

    def book_tops(self, symbols: Sequence[str]) -> dict[str, BookTop]:
        self._spoil(symbols)
        found = {s: top for s, top in super().book_tops(symbols).items() if s != self.unpriced}
        if self.zeros in found:
            found[self.zeros] = BookTop(self.zeros, Decimal("0.00000000"), Decimal("0.00000000"), found[self.zeros].at)
        return found

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        self._spoil(symbols)
        return super().instruments(symbols)

    def open_orders(self, symbols: Sequence[str]) -> list[ExchangeOrder]:
        self._spoil(symbols)
        return super().open_orders(symbols)

    def fills_since(self, symbol: str, since: datetime) -> list[Fill]:
        if symbol == self.defect:
            raise RuntimeError(f"a defect of ours in {symbol}")
        return super().fills_since(symbol, since)


def enter(rig: Rig, symbol: str, **options: object) -> str:
    wide = {"stop_frac": Decimal("0.1"), "target_frac": Decimal("0.3"), **options}
    intent = rig.decide(symbol, notional=Decimal(2000), **wide)  # type: ignore[arg-type]
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    return intent.intent_id


def enter_both(rig: Rig) -> dict[str, str]:
    rig.make_ready()
    return {symbol: enter(rig, symbol) for symbol in (BTC, ETH)}


def trouble(rig: Rig, **kind: str) -> Troubled:
    exchange = Troubled(rig.client, rig.account)
    for name, symbol in kind.items():
        setattr(exchange, name, symbol)
    rig.exchange = exchange
    return exchange


def held(rig: Rig, position_id: str) -> Position:
    found = rig.trading_store.position(position_id)
    assert found is not None
    return found


def want_stop(rig: Rig, position_id: str, frac: str = "0.97") -> Decimal:
    """What the bar rule leaves behind: a wanted stop at a fraction of the entry."""
    store = rig.trading_store
    with store.position_lock(position_id):
        position = held(rig, position_id)
        stop = ((position.entry_price or Decimal(0)) * Decimal(frac)).quantize(Decimal("0.01"))
        store.save_position(replace(position, stop_price=stop), "stop_moved", rig.clock.now())
    return stop


def stops(rig: Rig, symbol: str) -> list[Decimal]:
    orders = CcxtTrading(rig.client, rig.account).open_orders([symbol])
    return [order.stop_price for order in orders if order.stop_price is not None]


def alerts(rig: Rig) -> dict[str, str]:
    return {row["key"]: row["severity"] for row in rig.database.rows("SELECT key, severity FROM alerts")}


# ------------------------------------------------------------------------------------------------------------ isolation
@pytest.mark.parametrize("kind", ["unpriced", "zeros", "spoils", "defect"])
def test_a_market_in_trouble_keeps_no_other_from_being_tended(rig: Rig, kind: str) -> None:
    ids = enter_both(rig)
    before = stops(rig, ETH)
    wanted = {symbol: want_stop(rig, position_id) for symbol, position_id in ids.items()}
    exchange = trouble(rig, **{kind: ETH})
    (problem,) = tend_all(rig)
    assert problem.startswith(ids[ETH])
    assert stops(rig, BTC) == [wanted[BTC]]
    assert stops(rig, ETH) == before, "what rests in the troubled market stays"
    assert held(rig, ids[ETH]).status is PositionStatus.OPEN
    assert alerts(rig)[f"untended-{ids[ETH]}"] == ("critical" if kind == "defect" else "warning")
    setattr(exchange, kind, "")
    assert tend_all(rig) == []
    assert stops(rig, ETH) == [wanted[ETH]]


@pytest.mark.parametrize("kind", ["unpriced", "zeros", "spoils", "defect"])
def test_what_cannot_be_sold_keeps_no_other_from_being_flattened(rig: Rig, kind: str) -> None:
    ids = enter_both(rig)
    before = stops(rig, ETH)
    exchange = trouble(rig, **{kind: ETH})
    with pytest.raises(NotFlatYet, match=ETH):
        flatten(rig, "kim")
    assert held(rig, ids[BTC]).status in OVER
    assert held(rig, ids[ETH]).status is PositionStatus.OPEN
    assert stops(rig, ETH) == before
    assert rig.trading_store.latch().mode is TradingMode.HALTED
    setattr(exchange, kind, "")
    assert trip_circuit_breaker(rig)["flat"]
    rig.assert_agrees()


def test_a_delisted_market_keeps_no_other_from_being_tended_and_flattened(
    rig: Rig, make_rig: Callable[..., Rig]
) -> None:
    ids = enter_both(rig)
    stop = want_stop(rig, ids[BTC])
    rig.admin.delist(ETH)
    other = make_rig(paper_account=rig.paper_account)  # a client of its own, as each task has
    (problem,) = tend_all(other)
    assert ids[ETH] in problem
    assert "no rules for ETH/USDT" in problem
    assert stops(rig, BTC) == [stop]
    assert protect_naked(other) == [problem], "its stop is gone, and the watch says so"
    report = compare(other, instruments_of(other), foreign_fills(other))
    assert [(d.kind.value, d.subject) for d in report.differences] == [("unreadable_market", ids[ETH])]
    with pytest.raises(NotFlatYet, match=f"write-off {ids[ETH]}"):
        flatten(other, "kim")
    assert held(rig, ids[BTC]).status in OVER
    assert held(rig, ids[ETH]).status is PositionStatus.OPEN
    assert len([words for words in whats_left(other) if words.startswith(ETH)]) >= 1


def test_a_market_that_does_not_answer_is_a_difference_and_no_lost_order(rig: Rig) -> None:
    ids = enter_both(rig)
    trouble(rig, spoils=ETH)
    report = compare(rig, instruments_of(rig), foreign_fills(rig))
    assert [(d.kind.value, d.subject) for d in report.differences] == [("unreadable_market", ids[ETH])]
    assert not report.clean


def test_fills_are_taken_in_without_a_price(rig: Rig) -> None:
    rig.make_ready()
    position_id = enter(rig, BTC, stop_frac=Decimal("0.02"))
    rig.admin.shock(-0.03, BTC)
    trouble(rig, unpriced=BTC)
    assert tend_all(rig) == []
    assert held(rig, position_id).status in OVER
    assert held(rig, position_id).exit_reason == "stop"
    rig.assert_agrees()


def test_a_fee_asset_without_a_price_keeps_no_position_from_being_tended(rig: Rig) -> None:
    rig.make_ready()
    position_id = enter(rig, BTC)
    before = held(rig, position_id)
    entry = rig.trading_store.fills_of(position_id)[0]
    notional = Decimal("0.00100") * entry.price
    more = replace(entry, trade_id="9999999", quantity=Decimal("0.00100"), fee=Decimal("0.0002"), fee_asset="BNB")
    rig.trading_store.insert_fills([more])
    tend_all(rig)
    after = held(rig, position_id)
    assert after.quantity == before.quantity + Decimal("0.00100")
    fee_frac = rig.exchange.instruments([BTC])[BTC].taker_fee_frac
    assert after.fees_quote - before.fees_quote == pytest.approx(notional * fee_frac), "as if paid in quote"


def test_what_is_worth_too_little_today_stays_a_position_in_words(rig: Rig) -> None:
    rig.make_ready()
    intent = rig.decide(BTC, notional=Decimal("8"), stop_frac=Decimal("0.9"), target_frac=Decimal("0.3"))
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    for order in rig.exchange_orders(["NEW"]):
        if order["type"] == "STOP_LOSS":
            rig.exchange.cancel_order(BTC, order["clientOrderId"])
    rig.admin.shock(-0.45, BTC)
    assert tend_all(rig, apply_rules=False) == []
    position = held(rig, intent.intent_id)
    assert position.status not in OVER
    assert position.quantity > 0
    assert f"too-small-{intent.intent_id}" in alerts(rig)
    with pytest.raises(NotFlatYet, match="too little for an order at today's price"):
        flatten(rig, "kim")
    assert held(rig, intent.intent_id).status not in OVER, "worth an order at the entry: a loss, no dust"


@pytest.mark.parametrize("rules", [{"step": "1"}, {"min_quantity": "1"}, {"min_notional": "5000"}])
def test_a_market_that_asks_for_more_today_ends_no_position_and_no_stop(
    rig: Rig, make_rig: Callable[..., Rig], rules: dict[str, str]
) -> None:
    rig.make_ready()
    position_id = enter(rig, BTC)
    before = stops(rig, BTC)
    rig.admin.change_rules(BTC, **rules)
    today = make_rig(paper_account=rig.paper_account)  # a process of its own, which reads today's rules
    assert tend_all(today) == []
    assert stops(today, BTC) == before
    rig.admin.expire(BTC)
    tend_all(today)
    assert held(rig, position_id).status is PositionStatus.OPEN, "no dust: a person must know, and may write it off"
    assert f"too-small-{position_id}" in alerts(rig)


# ---------------------------------------------------------------------------------------------------------------- rules
def test_an_open_position_follows_the_rules_it_was_opened_with(rig: Rig, make_rig: Callable[..., Rig]) -> None:
    rig.make_ready()
    old = enter(rig, BTC)
    changed = make_rig(paper_account=rig.paper_account, params=replace(rig.params, horizon_bars=2))
    rig.step()
    changed.make_ready()
    new = enter(changed, ETH)
    rig.step(3)
    changed.collect()
    assert follow_bar(changed) == []
    assert held(rig, new).exit_reason == "time_stop"
    assert held(rig, new).status in OVER
    assert held(rig, old).status is PositionStatus.OPEN
    assert held(rig, old).managed_bar == rig.bar(), "it was looked at, by its own rules"


def test_a_symbol_taken_out_of_the_settings_is_managed_until_it_is_closed(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(params=replace(StrategyParams(), horizon_bars=3))
    ids = enter_both(rig)
    rig.symbols = (BTC,)
    for _ in range(4):
        rig.admin.step(1)
        collect_candles(rig, "15m", None, None)
    tend_all(rig)
    assert held(rig, ids[ETH]).exit_reason == "time_stop"
    assert held(rig, ids[ETH]).status in OVER
    assert compare(rig, instruments_of(rig)).clean


@pytest.mark.parametrize("remembered", [True, False])
def test_a_position_of_before_rules_were_kept_follows_its_version(
    rig: Rig, make_rig: Callable[..., Rig], remembered: bool
) -> None:
    rig.make_ready()
    position_id = enter(rig, BTC)
    if remembered:
        rig.trading_store.remember_strategy(rig.params)
    rig.database.execute("UPDATE positions SET rules = NULL")
    changed = make_rig(paper_account=rig.paper_account, params=replace(rig.params, horizon_bars=2))
    rig.step(3)
    assert tend_all(changed) == []
    assert (held(rig, position_id).status in OVER) is not remembered


def test_rules_that_cannot_be_read_leave_no_position_untended(rig: Rig, make_rig: Callable[..., Rig]) -> None:
    rig.make_ready()
    position_id = enter(rig, BTC)
    rig.trading_store.remember_strategy(rig.params)
    rig.database.execute("""UPDATE positions SET rules = '{"horizon_bars": -1}'""")
    changed = make_rig(paper_account=rig.paper_account, params=replace(rig.params, horizon_bars=2))
    rig.step(3)
    assert tend_all(changed) == []
    assert held(rig, position_id).managed_bar == rig.bar()
    assert held(rig, position_id).status is PositionStatus.OPEN, "by the rules of its version"
    assert alerts(rig)[f"rules-{position_id}"] == "critical"
