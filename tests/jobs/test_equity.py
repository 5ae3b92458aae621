"""Equity and what it is measured against: transfers, the capital limit, markets without a price, fees elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.prices import Answering, ShiftedClock
from tests.support.trading_rig import Rig
from tests.support.unit_value import MONEY, RESULT_FRAC, Fund
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.prices import BELIEVED_AFTER
from tradewind.core.types import Fill, PositionStatus, TradingMode
from tradewind.jobs.accepting import accept_difference
from tradewind.jobs.equity import build_portfolio, mark, mark_equity
from tradewind.jobs.permission import permission_now
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.readings import breach_of, keep_mark
from tradewind.jobs.safety import open_day, watch_risk_once
from tradewind.jobs.trading import place_brackets

WIDE = {"stop_frac": Decimal("0.3"), "target_frac": Decimal("0.3")}


def enter(rig: Rig, symbol: str = "BTC/USDT", notional: int = 2400) -> str:
    intent = rig.decide(symbol, notional=Decimal(notional), **WIDE)
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    return intent.intent_id


def move(rig: Rig, amount: int | Decimal) -> None:
    """Money comes (negative: goes), and is explained."""
    rig.exchange.moved_quote += Decimal(amount)
    accept_difference(rig, "USDT", "moved", "ann")


def trade(rig: Rig, result: Decimal, fee: str = "0", fee_asset: str = "USDT") -> None:
    """Bought and sold, with this result before fees; what it changes at the exchange is moved there."""
    number = str(rig.database.row("SELECT count(*) AS n FROM fills")["n"])
    price = Decimal(1_000_000)
    for side, at_price in ((True, price), (False, price + result)):
        rig.trading_store.insert_fills(
            [
                Fill(
                    rig.account, "BTC/USDT", f"{number}-{side}", f"old-{number}-{side}", side, Decimal(1), at_price,
                    Decimal(fee), fee_asset, False, rig.clock.now(),
                )
            ]
        )  # fmt: skip
    rig.exchange.moved_quote += result - (2 * Decimal(fee) if fee_asset == "USDT" else 0)


@pytest.fixture
def account(make_rig: Callable[..., Rig]) -> Rig:
    rig = make_rig()
    rig.exchange = Answering(rig.client, rig.account)
    return rig


# ----------------------------------------------------------------------------------------------------------- transfers
@pytest.mark.parametrize("moved", [-9000, 90_000])
def test_a_loss_is_a_share_of_the_money_that_is_there(account: Rig, moved: int) -> None:
    account.make_ready()
    trade(account, Decimal(-100))
    move(account, moved)
    portfolio = build_portfolio(account)
    equity = Decimal(9900 + moved)
    assert portfolio.equity_quote == equity
    assert portfolio.day_open_equity_quote == equity / Decimal("0.99"), "the loss of a hundredth is one still"
    trade(account, portfolio.day_open_equity_quote * Decimal("0.97") - equity + Decimal("0.01"))
    assert not watch_risk_once(account)["breached"]
    trade(account, Decimal("-0.02"))
    reading = watch_risk_once(account)
    assert reading["breached"]
    assert "-3.00 % against the day's opening" in reading["reason"]


def test_an_account_that_is_funded_after_the_first_start_has_a_breaker(account: Rig) -> None:
    account.exchange.moved_quote = Decimal(-10_000)
    account.make_ready()
    assert any("equity is 0.00" in reason for reason in permission_now(account).reasons)
    move(account, 10_000)
    manage_positions(account)
    assert permission_now(account).allowed
    portfolio = build_portfolio(account)
    assert portfolio.day_open_equity_quote == portfolio.peak_equity_quote == portfolio.equity_quote == 10_000
    enter(account, notional=4000)
    account.admin.shock(-0.1)
    assert watch_risk_once(account)["breached"]


def test_an_emptied_account_may_not_enter_and_a_refunded_one_is_measured_anew(account: Rig) -> None:
    account.make_ready()
    move(account, -10_000)
    manage_positions(account)
    assert sum("equity is 0.00" in reason for reason in permission_now(account).reasons) == 2
    move(account, 500)
    manage_positions(account)
    assert permission_now(account).allowed
    trade(account, Decimal(-15))
    assert watch_risk_once(account)["breached"]


def test_a_mark_beside_a_transfer_is_measured_against_its_own_side_of_it(account: Rig) -> None:
    """Equity read before the transfer, tested and written after it: no loss of 90 %, and no peak."""
    account.make_ready()
    before = mark(account)
    move(account, 90_000)
    assert breach_of(account, before) is None
    keep_mark(account, before)
    assert account.trading_store.peak_equity() == 100_000
    assert not watch_risk_once(account)["breached"]


def test_an_account_of_before_the_links_goes_on_with_the_loss_that_it_had(account: Rig) -> None:
    """What an older version stored: equity without transfers. Its last reading counts as what is there now."""
    account.make_ready()
    move(account, -9000)
    account.database.execute("DELETE FROM equity")
    account.database.execute("DELETE FROM equity_links")
    store = account.trading_store
    store.open_day(account.clock.now().replace(hour=0, minute=0, second=0, microsecond=0), Decimal(10_000), link=0)
    store.record_equity("mark", account.clock.now(), Decimal(9800), link=0)
    account.database.execute(
        "INSERT INTO equity_links (account, at, before_quote) VALUES ('rig', %s, 9800)", (account.clock.now(),)
    )
    assert not permission_now(account).allowed
    assert open_day(account)["from"] == "kept"
    assert not watch_risk_once(account)["breached"]
    assert permission_now(account).allowed
    portfolio = build_portfolio(account)
    assert portfolio.equity_quote == 1000
    assert round(portfolio.day_open_equity_quote, 2) == Decimal("1020.41")
    trade(account, Decimal(-11))
    assert watch_risk_once(account)["breached"]


def test_money_that_is_not_explained_is_in_nothing(account: Rig) -> None:
    account.make_ready()
    account.exchange.moved_quote = Decimal(5000)
    assert mark_equity(account) == 10_000
    assert build_portfolio(account).free_quote == 10_000


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), RESULT_FRAC),
        st.tuples(st.just("lose_all"), st.just(Decimal(1))),
        st.tuples(st.just("deposit"), MONEY),
        st.tuples(st.just("withdraw"), st.decimals("0.1", "1", places=3)),
        st.tuples(st.just("day"), st.just(Decimal(0))),
        st.tuples(st.just("resume"), st.just(Decimal(0))),
        st.tuples(st.just("cap"), st.one_of(st.none(), MONEY)),
    ),
    min_size=2,
    max_size=6,
)


def test_the_watch_latches_at_the_configured_loss_whatever_came_before(
    account: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as for the pure core, through marks, explanations, latch and readings as they are stored."""
    params = account.params
    numbers = iter(range(1000))
    held = Decimal(10_000)
    monkeypatch.setattr("tradewind.jobs.reconciling._PAUSE_S", 0.0)
    monkeypatch.setattr("tradewind.jobs.safety.time.sleep", lambda _s: None)
    clock = account.clock

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(start=st.one_of(st.just(Decimal(0)), MONEY), steps=STEPS)
    def history(start: Decimal, steps: list[tuple[str, Any]]) -> None:
        account.account = f"rig-{next(numbers)}"
        account.clock = ShiftedClock(clock)
        account.max_capital_quote = None
        account.trading_store = PgTradingStore(account.database, account.account, params.strategy_version)
        account.exchange = Answering(account.client, account.account)
        account.exchange.moved_quote = start - held
        store, fund = account.trading_store, Fund(Fraction(start))
        watch_risk_once(account)
        fund.mark()
        for what, number in steps:
            money = mark_equity(account)
            if what == "cap":
                account.max_capital_quote = number
                fund.most = None if number is None else Fraction(number)
            elif what in ("trade", "lose_all"):
                result = -money if what == "lose_all" else (money * number).quantize(Decimal("0.01"))
                trade(account, result)
                fund.win(Fraction(result))
            elif what == "day":
                account.clock.ahead += timedelta(days=1)
                fund.begin_day()
            elif what == "resume":
                now = account.clock.now()
                store.record_equity("day_open", now, money, resumed_by="ann")
                fund.resume()
            else:
                amount = number if what == "deposit" else -(max(money, Decimal(0)) * number).quantize(Decimal("0.01"))
                if not amount:
                    continue
                move(account, amount)
                fund.pay_in(Fraction(amount))
            reading = watch_risk_once(account)
            assert reading["breached"] is fund.is_breached, (what, number, reading)
            fund.mark()
            if reading["breached"]:
                assert store.latch().mode is TradingMode.HALTED
                store.open_latch(
                    "looked", account.wall.now(), actor="ann", source="test",
                    sequence=store.latch().sequence, equity=mark(account).reading,
                )  # fmt: skip
                fund.resume()

    history()


# --------------------------------------------------------------------------------------------------- the capital limit
def test_the_capital_limit_is_in_no_equity_and_caps_sizing(account: Rig) -> None:
    account.max_capital_quote = Decimal(5000)
    account.make_ready()
    enter(account, notional=1200)
    portfolio = build_portfolio(account)
    assert portfolio.equity_quote == 5000
    (exposure,) = portfolio.exposures
    assert portfolio.free_quote == 5000 - exposure.notional_quote
    assert 9990 < mark_equity(account) < 10_000
    reference = account.trading_store.day_open_equity(account.clock.now())
    for most in (Decimal(8000), Decimal(1000), None):
        account.max_capital_quote = most
        assert not watch_risk_once(account)["breached"]
        assert account.trading_store.day_open_equity(account.clock.now()) == reference == 10_000
    assert account.trading_store.peak_equity() == 10_000


def test_withdrawing_what_trading_may_not_use_changes_nothing_for_it(account: Rig) -> None:
    account.max_capital_quote = Decimal(5000)
    account.make_ready()
    move(account, -5000)
    portfolio = build_portfolio(account)
    assert portfolio.equity_quote == portfolio.free_quote == 5000
    trade(account, Decimal(-149))
    assert not watch_risk_once(account)["breached"]
    trade(account, Decimal(-1))
    assert watch_risk_once(account)["breached"]


def test_the_loss_limit_is_a_share_of_what_trading_may_use(account: Rig) -> None:
    """150 of 5,000: with 10,000 in the account the day's limit is not 300, and a higher limit hides no loss."""
    account.max_capital_quote = Decimal(5000)
    account.make_ready()
    trade(account, Decimal(-190))
    account.max_capital_quote = Decimal(5400)
    reading = watch_risk_once(account)
    assert reading["breached"]
    assert "of the 5400.00 that trading may use" in reading["reason"]


# ---------------------------------------------------------------------------------------------------------- no price
def test_an_unpriced_holding_is_marked_at_its_last_known_price_and_said(account: Rig) -> None:
    account.make_ready()
    enter(account)
    enter(account, "ETH/USDT")
    before = watch_risk_once(account)
    account.exchange.answers = {"ETH/USDT": (Decimal(0), Decimal(0))}
    reading = watch_risk_once(account)
    assert reading["equity_quote"] == before["equity_quote"]
    assert reading["unpriced"] == ["ETH/USDT"]
    detail = account.database.row("SELECT detail FROM equity WHERE kind = 'mark' ORDER BY reading_id DESC LIMIT 1")
    assert detail["detail"] == {"unpriced": ["ETH/USDT"]}
    (alert,) = account.database.rows("SELECT title, body FROM alerts WHERE key = 'unpriced-ETH/USDT'")
    assert "last known" in alert["title"]
    assert permission_now(account).details["watch_age_s"] < 5, "the watch is not blind"
    # The others are watched as ever.
    account.admin.shock(-0.15, "BTC/USDT")
    assert watch_risk_once(account)["breached"]


def test_a_holding_that_never_had_a_price_is_marked_at_its_entry(account: Rig) -> None:
    account.make_ready()
    enter(account, "ETH/USDT")
    account.exchange.absent = {"ETH/USDT"}
    account.database.execute("DELETE FROM last_prices")
    (position,) = account.trading_store.live_positions()
    expected = 10_000 + sum((t.cash_quote for t in account.trading_store.ledger_totals().values()), Decimal(0))
    assert mark_equity(account) == expected + position.quantity * position.entry_price


def test_a_jump_is_no_loss_until_it_is_believed(account: Rig) -> None:
    wall = account.wall = ShiftedClock(account.wall)
    account.make_ready()
    position_id = enter(account)
    real = account.bid()
    for absurd in (real / 1000, real * 1000):
        account.exchange.answers = {"BTC/USDT": (absurd, absurd)}
        assert not watch_risk_once(account)["breached"]
        assert not watch_risk_once(account)["breached"]
        account.exchange.answers = {}
        assert watch_risk_once(account)["unpriced"] == []
        wall.ahead += BELIEVED_AFTER
    assert account.trading_store.peak_equity() == 10_000, "an absurd price makes no peak"
    position = account.trading_store.position(position_id)
    assert position is not None
    assert position.status is PositionStatus.OPEN
    # A collapse that stays is one.
    account.exchange.answers = {"BTC/USDT": (real / 3, real / 3)}
    assert not watch_risk_once(account)["breached"]
    wall.ahead += BELIEVED_AFTER
    assert watch_risk_once(account)["breached"]


def test_a_fill_that_no_position_row_knows_yet_tears_no_hole(account: Rig) -> None:
    """A task killed between the two lines: cash is moved, the position's figures are not."""
    account.make_ready()
    enter(account)
    before = mark_equity(account)
    account.database.execute(
        "UPDATE positions SET quantity = 0, entry_quantity = 0, entry_price = NULL, status = 'opening'"
    )
    assert mark_equity(account) == before
    assert not watch_risk_once(account)["breached"]


# ---------------------------------------------------------------------------------------------------- fees elsewhere
def test_fees_in_a_third_asset_count_at_the_rate_of_their_time(account: Rig) -> None:
    account.make_ready()
    trade(account, Decimal(0), fee="0.01", fee_asset="ETH")
    eth = account.bid("ETH/USDT")
    assert mark_equity(account) == 10_000 - Decimal("0.02") * eth
    account.admin.shock(0.3, "ETH/USDT")
    assert mark_equity(account) == 10_000 - Decimal("0.02") * eth, "what was paid is paid"
    assert build_portfolio(account).free_quote == 10_000, "it was no quote that was paid"


def test_a_fee_without_a_rate_is_no_blindness_and_not_nothing(account: Rig) -> None:
    account.make_ready()
    trade(account, Decimal(0), fee="0.01", fee_asset="ETH")
    known = account.bid("ETH/USDT")
    mark_equity(account)
    account.exchange.absent = {"ETH/USDT"}
    trade(account, Decimal(0), fee="0.01", fee_asset="ETH")
    assert mark_equity(account) == 10_000 - Decimal("0.04") * known, "the last known price of the asset"
    before = mark_equity(account)
    trade(account, Decimal(0), fee="0.01", fee_asset="XYZ")
    assert before - mark_equity(account) == Decimal(2_000_000) * Decimal("0.001"), "as the strategy reckons with"
    keys = {row["key"] for row in account.database.rows("SELECT key FROM alerts")}
    assert {"fee-rate-ETH", "fee-rate-XYZ"} <= keys
