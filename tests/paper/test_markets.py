"""Markets: the same bars whatever is asked, agreement between timeframes and moments, outages and shocks."""

from __future__ import annotations

import itertools
from decimal import Decimal
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.errors import BadSetting
from tradewind.paper.intervals import INTERVAL_MS, next_open_time, open_time
from tradewind.paper.kline_rows import KlineRows
from tradewind.paper.market_view import MarketView, Shock
from tradewind.paper.markets import DAY_MS, MINUTE_MS, TRADES_PER_BASE_BAR
from tradewind.paper.markets_replay import ReplayMarket
from tradewind.paper.markets_synthetic import BLOCK_MS, HISTORY_START_MS, SyntheticMarket

SYMBOLS = ("BTC/USDT", "XRP/USDT", "DOGE/USDT")
START = 1_750_000_000_000 // DAY_MS * DAY_MS


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return SyntheticMarket(SYMBOLS, seed=7)


@pytest.fixture(scope="module")
def view(market: SyntheticMarket) -> MarketView:
    return MarketView(market)


def test_bars_do_not_depend_on_the_range_or_on_what_was_asked_before() -> None:
    whole = SyntheticMarket(SYMBOLS, 7).bars("XRPUSDT", START, START + 40 * DAY_MS)
    rng = np.random.default_rng(1)
    fresh = SyntheticMarket(("XRP/USDT",), 7)  # other symbols have no say either
    for _ in range(50):
        low, high = sorted(rng.integers(START, START + 40 * DAY_MS, 2).tolist())
        part, expected = fresh.bars("XRPUSDT", low, high), whole.between(low, high)
        for a, b in zip(part.columns(), expected.columns(), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "XRPUSDT", "DOGEUSDT"])
def test_bars_are_sound_and_continuous(market: SyntheticMarket, symbol: str) -> None:
    border = START // BLOCK_MS * BLOCK_MS
    bars = market.bars(symbol, border - 3 * DAY_MS, border + 3 * DAY_MS)
    assert len(bars) == 6 * 1440
    assert (np.diff(bars.open_ms) == MINUTE_MS).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.low >= 1).all()
    assert (bars.volume >= 1).all()
    assert (bars.taker_buy <= bars.volume).all()
    assert (bars.open[1:] == bars.close[:-1]).all()  # across the border of two blocks too
    assert np.abs(np.diff(np.log(bars.close))).max() < 0.05


def test_other_seed_other_market() -> None:
    one, two = (SyntheticMarket(SYMBOLS, s).bars("BTCUSDT", START, START + DAY_MS) for s in (1, 2))
    assert not np.array_equal(one.close, two.close)


def test_price_stays_within_reason_for_a_decade() -> None:
    market = SyntheticMarket(("BTC/USDT",), 3)
    levels = np.array([market._level("BTCUSDT", HISTORY_START_MS // BLOCK_MS + i) for i in range(130)])
    assert np.abs(levels).max() < 2.5
    assert levels.std() > 0.1


def test_nothing_before_the_listing(market: SyntheticMarket, view: MarketView) -> None:
    assert len(market.bars("BTCUSDT", 0, HISTORY_START_MS)) == 0
    assert view.price("BTCUSDT", HISTORY_START_MS - 1) is None
    first = view.candles("BTCUSDT", "1d", 0, None, 3, START)
    assert first.open_ms[0] == HISTORY_START_MS


@pytest.mark.parametrize("interval", [i for i in INTERVAL_MS if i != "1m"])
def test_longer_candles_are_made_of_shorter_ones(view: MarketView, interval: str) -> None:
    candles = view.candles("BTCUSDT", interval, START - 100 * DAY_MS, None, 2, START)
    for i in range(2):
        low = int(candles.open_ms[i])
        minutes = view.bars("BTCUSDT", low, next_open_time(low, interval))
        assert candles.open[i] == minutes.open[0]
        assert candles.close[i] == minutes.close[-1]
        assert candles.high[i] == minutes.high.max()
        assert candles.low[i] == minutes.low.min()
        assert candles.volume[i] == minutes.volume.sum()


@pytest.mark.parametrize("interval", list(INTERVAL_MS))
def test_candles_are_written_exactly_and_alike_whatever_was_asked_before(view: MarketView, interval: str) -> None:
    """Every row against plain Decimal arithmetic; months of volume go beyond 64 bits."""
    writer = KlineRows(view)
    now = START + 12_345_678
    rules = view.rules["BTCUSDT"]
    for limit, end_ms in ((3, None), (700, None), (10, START - 40 * DAY_MS)):
        bars = view.candles("BTCUSDT", interval, None, end_ms, limit, now)
        rows = orjson.loads(writer.render(bars, "BTCUSDT", interval, now))
        assert len(rows) == len(bars)
        for i in {0, len(rows) // 2, len(rows) - 1}:
            t, o, h, low, c, v, taker = (int(column[i]) for column in bars.columns())
            typical = (h + low + c) * rules.quote_atoms_per_ticklot
            end = next_open_time(t, interval)
            assert rows[i] == [
                t, *(f"{rules.price(x):.8f}" for x in (o, h, low, c)), f"{rules.quantity(v):.8f}", end - 1,
                f"{Decimal(typical * v // 3).scaleb(-8):.8f}", (end - t) // MINUTE_MS * TRADES_PER_BASE_BAR,
                f"{rules.quantity(taker):.8f}", f"{Decimal(typical * taker // 3).scaleb(-8):.8f}", "0",
            ]  # fmt: skip


def test_calendar_intervals_start_where_people_expect() -> None:
    sunday_noon = 1_749_988_800_000  # 2025-06-15T12:00Z
    assert open_time(sunday_noon, "1w") == 1_749_427_200_000  # Monday 2025-06-09
    assert open_time(sunday_noon, "1M") == 1_748_736_000_000  # 2025-06-01
    assert next_open_time(open_time(sunday_noon, "1M"), "1M") == 1_751_328_000_000  # 2025-07-01
    assert open_time(sunday_noon, "1d", offset_ms=8 * 3_600_000) == 1_749_916_800_000  # midnight of UTC+8


@settings(max_examples=60, deadline=None)
@given(offset_ms=st.integers(0, 2 * DAY_MS), interval=st.sampled_from(["1m", "15m", "1h", "4h", "1d"]))
def test_the_unfinished_candle_never_knows_the_future(offset_ms: int, interval: str) -> None:
    view = MarketView(_shared())
    now = START + offset_ms
    candles = view.candles("BTCUSDT", interval, None, None, 2, now)
    assert candles.open_ms[-1] == open_time(now, interval)
    assert candles.close[-1] == view.price("BTCUSDT", now)
    later = view.candles("BTCUSDT", interval, int(candles.open_ms[-1]), None, 1, now + INTERVAL_MS[interval])
    assert candles.high[-1] <= later.high[0]
    assert candles.low[-1] >= later.low[0]
    assert candles.volume[-1] <= later.volume[0]
    assert candles.open[-1] == later.open[0]


_made: list[SyntheticMarket] = []


def _shared() -> SyntheticMarket:
    if not _made:
        _made.append(SyntheticMarket(SYMBOLS, 7))
    return _made[0]


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 300_000), max_size=6))
def test_a_walk_in_pieces_covers_the_same_prices(cuts: list[int]) -> None:
    view = MarketView(_shared())
    edges = sorted({0, 300_000, *cuts})
    whole, _ = view.segments("XRPUSDT", START, START + 300_000)
    parts = [view.segments("XRPUSDT", START + a, START + b)[0] for a, b in itertools.pairwise(edges)]
    assert max(int(p.high.max()) for p in parts) == whole.high.max()
    assert min(int(p.low.min()) for p in parts) == whole.low.min()
    assert parts[0].open[0] == whole.open[0]
    assert parts[-1].close[-1] == whole.close[-1]


def test_shock_moves_prices_from_its_moment_on(market: SyntheticMarket) -> None:
    calm, shocked = MarketView(market), MarketView(market)
    at = START + 90_500
    shocked.add_shock(Shock(at, "BTCUSDT", 0.9))
    assert shocked.price("BTCUSDT", at - 1) == pytest.approx(calm.price("BTCUSDT", at - 1), abs=1)
    assert shocked.price("BTCUSDT", at) == pytest.approx((calm.price("BTCUSDT", at) or 0) * 0.9, rel=1e-4)
    assert shocked.price("XRPUSDT", at) == calm.price("XRPUSDT", at)
    before, struck, after = (
        shocked.bars("BTCUSDT", START + k * MINUTE_MS, START + (k + 1) * MINUTE_MS) for k in range(3)
    )
    assert before.close[0] == calm.bars("BTCUSDT", START, START + MINUTE_MS).close[0]
    assert struck.high[0] > struck.close[0] * 1.05
    assert after.open[0] == pytest.approx(struck.close[0], rel=1e-3)
    assert shocked.is_shocked("BTCUSDT", START + MINUTE_MS, START + 2 * MINUTE_MS)
    candle = shocked.candles("BTCUSDT", "15m", START, None, 1, START + DAY_MS)
    minutes = shocked.bars("BTCUSDT", START, START + 15 * MINUTE_MS)
    assert candle.low[0] == minutes.low.min()


def test_public_trades_lie_inside_their_candles(view: MarketView) -> None:
    newest = view.last_trade_id(START)
    trades = view.public_trades("BTCUSDT", newest - 30, newest)
    assert [t[0] for t in trades] == list(range(newest - 30, newest + 1))
    for _, time_ms, ticks, lots, _ in trades:
        bar = view.bars("BTCUSDT", time_ms // MINUTE_MS * MINUTE_MS, time_ms // MINUTE_MS * MINUTE_MS + MINUTE_MS)
        assert bar.low[0] <= ticks <= bar.high[0]
        assert lots >= 1


def test_structure_must_be_a_share() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        SyntheticMarket(SYMBOLS, 1, structure=1.5)


# -------------------------------------------------------------------------------------------------------------- replay
def write(directory: Path, name: str, **columns: list[float]) -> None:
    n = 40
    times = [START + i * 900_000 for i in range(n) if i not in (10, 11, 12)]
    table: dict[str, object] = {
        "open_time": times,
        "open": [100.0 + i % 7 for i in range(len(times))],
        "high": [108.0] * len(times),
        "low": [99.0] * len(times),
        "close": [101.0 + i % 5 for i in range(len(times))],
        "volume": [12.5] * len(times),
    }
    pq.write_table(pa.table({**table, **columns}), directory / name)


def test_replay_keeps_outages_and_shifts_on_the_grid(tmp_path: Path) -> None:
    write(tmp_path, "BTC_USDT-15m.parquet")
    market = ReplayMarket(tmp_path)
    assert len(market.bars("BTCUSDT", START, START + 40 * 900_000)) == 37
    view = MarketView(market)
    during = START + 11 * 900_000 + 5
    assert view.price("BTCUSDT", during) == view.price("BTCUSDT", START + 10 * 900_000 - 1)
    now = START + 90 * DAY_MS + 12_345
    market.end_at(now)
    assert market.shift_ms % (4 * 3_600_000) == 0
    assert now <= market.end_ms() < now + 4 * 3_600_000
    assert market.bars("BTCUSDT", 0, 1 << 60).open_ms[0] == START + market.shift_ms


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [("low", 150.0, "broken bar"), ("volume", -1.0, "broken bar"), ("close", float("nan"), "broken bar")],
)
def test_replay_refuses_broken_files(tmp_path: Path, column: str, value: float, text: str) -> None:
    write(tmp_path, "BTC_USDT-15m.parquet", **{column: [value] * 37})
    with pytest.raises(BadSetting, match=text):
        ReplayMarket(tmp_path)


def test_replay_of_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="no candle file"):
        ReplayMarket(tmp_path)
