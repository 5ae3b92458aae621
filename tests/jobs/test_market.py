"""The market jobs over real adapters: PostgreSQL, Valkey and a paper exchange over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.support.market_rig import DAY, HOUR, NOON, NOON_MS, STEP, MarketRig
from tests.support.paper_server import PaperServerProcess
from tests.support.trading import position
from tradewind.core.ports import CandleGap
from tradewind.core.timeframes import columns, expected_opens_ms, from_ms
from tradewind.core.types import PositionStatus
from tradewind.errors import BadInput, ExchangeUnreachable, RetryError
from tradewind.jobs import collecting, fetching
from tradewind.jobs.market import backfill_history, check_quality, collect_candles, fill_candle_gaps

KLINES = "/api/v3/klines"
QUARTER = timedelta(minutes=15)


@pytest.fixture(scope="module")
def server() -> Iterator[PaperServerProcess]:
    with PaperServerProcess() as server:
        yield server


@pytest.fixture
def rig(
    server: PaperServerProcess, postgres_url: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MarketRig]:
    monkeypatch.setattr(fetching, "_LONGEST_WAIT_S", 0.05)
    server.admin.clear_faults()
    rig = MarketRig(server, postgres_url, valkey_url, tmp_path)
    yield rig
    rig.close()


def assert_stored_is_the_truth(rig: MarketRig, symbol: str, timeframe: str, start_ms: int, end_ms: int) -> None:
    for mine, theirs in zip(
        columns(rig.stored(symbol, timeframe)), columns(rig.truth(symbol, timeframe, start_ms, end_ms)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


# ------------------------------------------------------------------------------------------------------------- collect
def test_the_last_closed_interval_is_collected_once(rig: MarketRig) -> None:
    result = collect_candles(rig.ports, "15m", None, None)
    assert result["state"] == "collected"
    assert result["bars"] == {"BTC/USDT": 1, "ETH/USDT": 1}
    assert (result["new"], result["corrections"], result["missing"], result["failed"]) == (2, 0, [], {})
    assert result["newest"]
    assert result["newest_complete"]
    assert_stored_is_the_truth(rig, "BTC/USDT", "15m", NOON_MS - STEP, NOON_MS)
    again = collect_candles(rig.ports, "15m", NOON - QUARTER, NOON)
    assert (again["new"], again["corrections"], again["bars"]) == (0, 0, result["bars"])


def test_the_unfinished_bar_is_never_stored(rig: MarketRig) -> None:
    rig.set_market(NOON + timedelta(minutes=7))
    collect_candles(rig.ports, "15m", None, None)
    assert rig.stored("BTC/USDT").open_time_ms.tolist() == [NOON_MS - STEP]
    result = collect_candles(rig.ports, "15m", NOON, NOON + QUARTER)
    assert result["state"] == "not_closed"
    assert not result["newest_complete"]
    assert rig.stored("BTC/USDT").open_time_ms.tolist() == [NOON_MS - STEP]


def test_an_older_interval_is_collected_whole_and_announces_nothing(rig: MarketRig) -> None:
    result = collect_candles(rig.ports, "1h", NOON - timedelta(days=2), NOON - timedelta(days=1))
    assert result["bars"] == {"BTC/USDT": 24, "ETH/USDT": 24}
    assert not result["newest"]
    assert_stored_is_the_truth(rig, "ETH/USDT", "1h", NOON_MS - 2 * DAY, NOON_MS - DAY)


def test_a_late_bar_is_waited_for(rig: MarketRig) -> None:
    rig.server.admin.add_fault("missing_candles", path=KLINES, symbol="ETHUSDT", from_ms=NOON_MS - STEP, to_ms=NOON_MS)
    timer = threading.Timer(1.0, rig.server.admin.clear_faults)
    timer.start()
    try:
        result = collect_candles(rig.ports, "15m", None, None)
    finally:
        timer.join()
    assert result["newest_complete"]
    assert len(rig.stored("ETH/USDT")) == 1
    calls = rig.kline_calls
    assert sum("ETHUSDT" in url for url in calls) > 2
    assert sum("BTCUSDT" in url for url in calls) == 1


def test_the_wait_for_a_bar_has_an_end(rig: MarketRig) -> None:
    rig.server.admin.add_fault("missing_candles", path=KLINES, symbol="ETHUSDT", from_ms=NOON_MS - STEP, to_ms=NOON_MS)
    result = collect_candles(rig.ports, "15m", None, None, deadline_s=1.0)
    assert result["missing"] == ["ETH/USDT"]
    assert result["newest"]
    assert not result["newest_complete"]
    assert len(rig.stored("BTC/USDT")) == 1
    assert sum("BTCUSDT" in url for url in rig.kline_calls) == 1


def test_one_symbol_holds_up_the_others_for_seconds_only(rig: MarketRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_STRAGGLERS_S", 0.6)
    rig.server.admin.add_fault("error_before", path=KLINES, symbol="ETHUSDT", status=500)
    # Were the deadline waited for, the suite's own time-out would end this test.
    result = collect_candles(rig.ports, "15m", None, None, deadline_s=3600.0)
    assert list(result["failed"]) == ["ETH/USDT"]
    assert result["bars"] == {"BTC/USDT": 1}


def test_a_symbol_that_answers_slowly_delays_no_other(rig: MarketRig) -> None:
    rig.ports.market_data.instruments(["BTC/USDT", "ETH/USDT"])
    rig.server.admin.add_fault("delay", path=KLINES, symbol="ETHUSDT", seconds=3.0)
    seen: list[list[int]] = []
    timer = threading.Timer(1.5, lambda: seen.append([len(rig.stored("BTC/USDT")), len(rig.stored("ETH/USDT"))]))
    timer.start()
    result = collect_candles(rig.ports, "15m", None, None)
    timer.join()
    assert result["newest_complete"]
    assert seen == [[1, 0]]


def test_what_a_collection_missed_comes_with_the_next(rig: MarketRig) -> None:
    collect_candles(rig.ports, "15m", None, None)
    rig.server.admin.add_fault("missing_candles", path=KLINES, symbol="ETHUSDT", from_ms=NOON_MS, to_ms=NOON_MS + DAY)
    for bars in (1, 2):
        rig.set_market(NOON + bars * QUARTER)
        result = collect_candles(rig.ports, "15m", None, None, deadline_s=0.5)
        assert (result["missing"], result["healed"]) == (["ETH/USDT"], 0)
    rig.server.admin.clear_faults()
    rig.set_market(NOON + 3 * QUARTER)
    assert rig.kline_calls
    result = collect_candles(rig.ports, "15m", None, None)
    assert (result["new"], result["healed"], result["bars"]) == (4, 2, {"BTC/USDT": 1, "ETH/USDT": 1})
    assert len(rig.kline_calls) == 2
    assert_stored_is_the_truth(rig, "ETH/USDT", "15m", NOON_MS - STEP, NOON_MS + 3 * STEP)
    # An interval of its own brings its own bars alone, however much is missing before it.
    punch(rig, "ETH/USDT", NOON_MS, NOON_MS + 2 * STEP)
    rig.set_market(NOON + 5 * QUARTER)
    older = collect_candles(rig.ports, "15m", NOON + 3 * QUARTER, NOON + 4 * QUARTER)
    assert (older["new"], older["healed"]) == (2, 0)


def test_a_halted_symbol_is_asked_once_and_not_waited_for(rig: MarketRig) -> None:
    collect_candles(rig.ports, "15m", None, None)
    rig.server.admin.add_fault("missing_candles", path=KLINES, symbol="ETHUSDT", from_ms=NOON_MS, to_ms=NOON_MS + DAY)
    rig.set_market(NOON + 2 * QUARTER)
    assert rig.kline_calls
    result = collect_candles(rig.ports, "15m", None, None)
    assert result["missing"] == ["ETH/USDT"]
    assert result["bars"] == {"BTC/USDT": 1, "ETH/USDT": 0}
    assert sum("ETHUSDT" in url for url in rig.kline_calls) == 1


def test_an_older_outage_is_not_waited_for(rig: MarketRig) -> None:
    start_ms = NOON_MS - DAY
    rig.server.admin.add_fault("missing_candles", path=KLINES, from_ms=start_ms, to_ms=start_ms + STEP)
    result = collect_candles(rig.ports, "15m", from_ms(start_ms), from_ms(start_ms + STEP))
    assert result["missing"] == ["BTC/USDT", "ETH/USDT"]
    assert len(rig.kline_calls) == 2


def test_one_symbols_failure_is_its_own_and_is_retried(rig: MarketRig) -> None:
    rig.server.admin.add_fault("error_before", path=KLINES, symbol="ETHUSDT", times=2, status=500)
    result = collect_candles(rig.ports, "15m", None, None)
    assert result["newest_complete"]
    rig.server.admin.clear_faults()
    rig.server.admin.add_fault("error_before", path=KLINES, symbol="ETHUSDT", status=500)
    rig.set_market(NOON + QUARTER)
    result = collect_candles(rig.ports, "15m", None, None, deadline_s=1.0)
    assert list(result["failed"]) == ["ETH/USDT"]
    assert result["bars"] == {"BTC/USDT": 1}
    assert not result["newest_complete"]
    assert rig.metrics.counts["tradewind.candles.failed", "ETH/USDT"] == 1


def test_what_is_held_is_collected_until_it_is_closed(
    server: PaperServerProcess, postgres_url: str, valkey_url: str, tmp_path: Path
) -> None:
    """ETH/USDT was taken out of the settings with a position in it."""
    rig = MarketRig(server, postgres_url, valkey_url, tmp_path, symbols=("BTC/USDT",))
    store, account = rig.ports.trading_store, rig.ports.account
    held = position(symbol="ETH/USDT", account=account)
    with store.position_lock(held.position_id):
        store.open_position(held, rig.ports.params.position_rules)
    assert collect_candles(rig.ports, "15m", None, None)["bars"] == {"BTC/USDT": 1, "ETH/USDT": 1}
    rig.set_market(NOON + timedelta(minutes=5))
    backfill_history(rig.ports, "load", ["BTC/USDT", "ETH/USDT"], ["15m"], NOON - timedelta(days=2), NOON)
    punched = punch(rig, "ETH/USDT", NOON_MS - 20 * STEP, NOON_MS - 10 * STEP)
    assert fill_candle_gaps(rig.ports, ["15m"])["filled_bars"] == punched

    server.admin.add_fault("error_before", path=KLINES, symbol="ETHUSDT", status=503)
    result = collect_candles(rig.ports, "15m", None, None, deadline_s=0.1)
    assert "ETH/USDT" in result["failed"]
    assert result["newest_complete"], "entries wait for no market that they are not made in"
    with store.position_lock(held.position_id):
        store.save_position(replace(held, status=PositionStatus.CLOSED), "closed", NOON)
    assert collect_candles(rig.ports, "15m", None, None)["bars"].keys() == {"BTC/USDT"}
    rig.close()


def test_when_nobody_answers_the_task_is_to_be_retried(rig: MarketRig) -> None:
    rig.server.admin.add_fault("error_before", path=KLINES, status=503)
    with pytest.raises(ExchangeUnreachable):
        collect_candles(rig.ports, "15m", None, None, deadline_s=0.5)


def test_a_correction_is_counted_and_overwrites_nothing(rig: MarketRig) -> None:
    collect_candles(rig.ports, "15m", None, None)
    first = rig.stored("BTC/USDT")
    rig.set_market(NOON + timedelta(minutes=1))
    rig.server.admin.add_fault("corrected_candle", path=KLINES, symbol="BTCUSDT", price_frac=0.01)
    result = collect_candles(rig.ports, "15m", NOON - QUARTER, NOON)
    assert result["corrections"] == 1
    assert rig.stored("BTC/USDT").close[0] == first.close[0]
    assert rig.metrics.counts["tradewind.candles.corrections", ""] == 1


# ------------------------------------------------------------------------------------------------------------- history
def test_history_is_loaded_whole_and_reports_progress(rig: MarketRig) -> None:
    start = NOON - timedelta(days=60)
    seen: list[float] = []
    result = backfill_history(
        rig.ports, "load", ["BTC/USDT", "ETH/USDT"], ["15m", "1h"], start, NOON + timedelta(days=5),
        progress=lambda job: seen.append(job["progress"]["percent"]),
    )  # fmt: skip
    assert result["rows_new"] == 2 * (60 * 96 + 60 * 24)
    assert result["percent"] == 100.0
    assert seen == sorted(seen)
    assert seen[-1] == 100.0
    assert_stored_is_the_truth(rig, "ETH/USDT", "15m", NOON_MS - 60 * DAY, NOON_MS)
    assert_stored_is_the_truth(rig, "BTC/USDT", "1h", NOON_MS - 60 * DAY, NOON_MS)
    job = rig.ports.market_store.job("load")
    assert job is not None
    assert job["state"] == "done"


def test_a_load_carries_on_where_it_stopped(rig: MarketRig) -> None:
    start = NOON - timedelta(days=130)  # three chunks
    rig.server.admin.add_fault("error_before", path=KLINES, status=500)
    with pytest.raises(RetryError):
        backfill_history(rig.ports, "load", ["BTC/USDT"], ["15m"], start, NOON)
    job = rig.ports.market_store.job("load")
    assert job is not None
    assert job["state"] == "running"
    rig.server.admin.clear_faults()
    chunks = rig.ports.market_store.open_chunks("load")
    bars = rig.ports.market_data.candles("BTC/USDT", "15m", chunks[0].start_ms, chunks[0].end_ms)
    rig.ports.market_store.finish_chunk(chunks[0], bars)
    assert rig.kline_calls
    # Another range under the same job id changes nothing about what is left to do.
    result = backfill_history(rig.ports, "load", ["BTC/USDT"], ["15m"], start + timedelta(days=1), NOON)
    assert result["chunks"] == len(chunks) - 1
    fetched_from = [int(url.split("startTime=")[1].split("&")[0]) for url in rig.kline_calls]
    assert min(fetched_from) == chunks[0].end_ms
    assert_stored_is_the_truth(rig, "BTC/USDT", "15m", NOON_MS - 130 * DAY, NOON_MS)


def test_a_symbol_that_does_not_exist_fails_alone(rig: MarketRig) -> None:
    start = NOON - timedelta(days=3)
    with pytest.raises(BadInput, match="NONE/USDT 15m"):
        backfill_history(rig.ports, "load", ["NONE/USDT", "BTC/USDT"], ["15m"], start, NOON)
    assert len(rig.stored("BTC/USDT")) == 3 * 96
    job = rig.ports.market_store.job("load")
    assert job is not None
    assert job["state"] == "failed"


def test_history_before_the_listing_is_not_asked_for(rig: MarketRig) -> None:
    first_ms = rig.ports.market_data.first_open_ms("BTC/USDT", "15m")
    assert first_ms is not None
    start = from_ms(first_ms) - timedelta(days=3_000)
    backfill_history(rig.ports, "load", ["BTC/USDT"], ["1h"], start, from_ms(first_ms) + timedelta(days=2))
    assert int(rig.stored("BTC/USDT", "1h").open_time_ms[0]) == first_ms // HOUR * HOUR
    assert len([url for url in rig.kline_calls if "interval=1h" in url]) == 1


# ---------------------------------------------------------------------------------------------------------------- gaps
def punch(rig: MarketRig, symbol: str, start_ms: int, end_ms: int, timeframe: str = "15m") -> int:
    return rig.ports.database.execute(
        "DELETE FROM candles WHERE symbol = %s AND timeframe = %s AND open_time >= %s AND open_time < %s",
        (symbol, timeframe, from_ms(start_ms), from_ms(end_ms)),
    )


def test_gaps_are_found_and_filled_with_few_requests(rig: MarketRig) -> None:
    rig.set_market(NOON + timedelta(minutes=5))
    backfill_history(rig.ports, "load", ["BTC/USDT", "ETH/USDT"], ["15m", "1h"], NOON - timedelta(days=30), NOON)
    base = NOON_MS - 20 * DAY
    holes = [(base, base + STEP), (base + 5 * STEP, base + 40 * STEP), (NOON_MS - 3 * STEP, NOON_MS)]
    punched = sum(punch(rig, "BTC/USDT", *hole) for hole in holes)
    punched += punch(rig, "ETH/USDT", NOON_MS - 30 * DAY, NOON_MS - 29 * DAY, "1h")  # the head of the series
    assert rig.kline_calls
    result = fill_candle_gaps(rig.ports)
    assert (result["found"], result["missing_bars"], result["filled_bars"]) == (4, punched, punched)
    assert result["requests"] == len(rig.kline_calls) == 3
    assert_stored_is_the_truth(rig, "BTC/USDT", "15m", NOON_MS - 30 * DAY, NOON_MS)
    assert_stored_is_the_truth(rig, "ETH/USDT", "1h", NOON_MS - 30 * DAY, NOON_MS)
    assert fill_candle_gaps(rig.ports)["found"] == 0


def test_an_outage_is_asked_for_once_and_stays_a_gap(rig: MarketRig) -> None:
    rig.set_market(NOON + timedelta(minutes=5))
    outage = (NOON_MS - 10 * DAY, NOON_MS - 10 * DAY + 20 * STEP)
    rig.server.admin.add_fault("missing_candles", path=KLINES, symbol="BTCUSDT", from_ms=outage[0], to_ms=outage[1])
    backfill_history(rig.ports, "load", ["BTC/USDT"], ["15m"], NOON - timedelta(days=20), NOON)
    # A partial answer: two bars of the outage's neighbourhood are missing here for another reason.
    punch(rig, "BTC/USDT", outage[0] - 2 * STEP, outage[0])
    assert rig.kline_calls
    first = fill_candle_gaps(rig.ports)
    assert (first["found"], first["filled_bars"], first["empty_bars"], first["requests"]) == (1, 2, 20, 1)
    assert len(rig.kline_calls) == 1
    second = fill_candle_gaps(rig.ports)
    assert (second["found"], second["known_empty_bars"], second["requests"]) == (1, 20, 0)
    assert rig.kline_calls == []
    assert rig.ports.known_empty.entries() == [CandleGap("BTC/USDT", "15m", *outage)]
    # Flushed: asked again, once, and nothing is lost or doubled.
    rig.ports.redis.flushall()
    assert fill_candle_gaps(rig.ports)["requests"] == 1
    # Restored at the exchange and the entry gone: filled.
    rig.server.admin.clear_faults()
    rig.ports.redis.flushall()
    assert fill_candle_gaps(rig.ports)["filled_bars"] == 20
    assert len(rig.stored("BTC/USDT")) == 20 * 96


def test_a_routine_run_looks_at_everything_once_a_day_and_at_the_week_else(rig: MarketRig) -> None:
    rig.set_market(NOON + timedelta(minutes=5))
    backfill_history(rig.ports, "load", ["BTC/USDT"], ["15m"], NOON - timedelta(days=20), NOON)
    old, recent = NOON_MS - 15 * DAY, NOON_MS - 2 * DAY
    punch(rig, "BTC/USDT", old, old + STEP)
    rig.server.admin.add_fault("error_before", path=KLINES, status=500)
    with pytest.raises(RetryError):
        fill_candle_gaps(rig.ports, routine=True)
    rig.server.admin.clear_faults()
    first = fill_candle_gaps(rig.ports, routine=True)  # the failed search of everything does not count
    assert (first["searched"], first["filled_bars"]) == ("everything", 1)
    punch(rig, "BTC/USDT", old, old + STEP)
    punch(rig, "BTC/USDT", recent, recent + STEP)
    second = fill_candle_gaps(rig.ports, routine=True)
    assert (second["searched"], second["found"], second["filled_bars"]) == ("7 days", 1, 1)
    by_hand = fill_candle_gaps(rig.ports)
    assert (by_hand["searched"], by_hand["filled_bars"]) == ("everything", 1)
    punch(rig, "BTC/USDT", old, old + STEP)
    rig.set_market(NOON + timedelta(minutes=5, days=1))
    assert fill_candle_gaps(rig.ports, routine=True)["filled_bars"] == 1 + 96  # and the day that has passed


def test_nothing_is_known_empty_after_an_answer_that_failed(rig: MarketRig) -> None:
    rig.set_market(NOON + timedelta(minutes=5))
    backfill_history(rig.ports, "load", ["BTC/USDT", "ETH/USDT"], ["15m"], NOON - timedelta(days=5), NOON)
    punch(rig, "BTC/USDT", NOON_MS - 2 * DAY, NOON_MS - 2 * DAY + STEP)
    punch(rig, "ETH/USDT", NOON_MS - 2 * DAY, NOON_MS - 2 * DAY + STEP)
    rig.server.admin.add_fault("error_before", path=KLINES, symbol="ETHUSDT", status=500)
    result = fill_candle_gaps(rig.ports)
    assert result["filled_bars"] == 1
    assert list(result["failed"]) == ["ETH/USDT 15m"]
    assert rig.ports.known_empty.entries() == []
    rig.server.admin.clear_faults()
    assert fill_candle_gaps(rig.ports)["filled_bars"] == 1


def test_a_series_that_nobody_asked_for_has_no_gaps(rig: MarketRig) -> None:
    assert fill_candle_gaps(rig.ports)["found"] == 0


def test_redis_away_costs_requests_alone(rig: MarketRig, valkey_url: str) -> None:
    from redis import Redis

    rig.set_market(NOON + timedelta(minutes=5))
    backfill_history(rig.ports, "load", ["BTC/USDT"], ["15m"], NOON - timedelta(days=5), NOON)
    punch(rig, "BTC/USDT", NOON_MS - 2 * DAY, NOON_MS - 2 * DAY + STEP)
    rig.ports.known_empty._redis = Redis(port=1, retry=None)  # type: ignore[attr-defined]
    assert fill_candle_gaps(rig.ports)["filled_bars"] == 1


# ------------------------------------------------------------------------------------------------------------- quality
def test_a_symbol_is_fit_once_its_window_is_complete(rig: MarketRig) -> None:
    backfill_history(rig.ports, "load", ["BTC/USDT", "ETH/USDT"], ["15m", "1h"], NOON - timedelta(days=5), NOON)
    punch(rig, "ETH/USDT", NOON_MS - DAY, NOON_MS - DAY + STEP)
    bar = NOON - QUARTER
    result = check_quality(rig.ports)
    assert result == {"bar": bar.isoformat(), "passed": ["BTC/USDT"], "failed": {"ETH/USDT": ["incomplete"]}}
    stored = rig.ports.market_store.quality(bar, ["BTC/USDT", "ETH/USDT"])
    assert stored["BTC/USDT"].passed
    assert stored["ETH/USDT"].findings == {"incomplete": {"missing_bars": 1, "window_bars": 192}}


def test_collecting_the_newest_bar_judges_it(rig: MarketRig) -> None:
    collect_candles(rig.ports, "15m", None, None)
    verdicts = rig.ports.market_store.quality(NOON - QUARTER, ["BTC/USDT"])
    assert not verdicts["BTC/USDT"].passed  # one bar is no window


def test_expected_opens_cover_the_collected_interval() -> None:
    assert len(expected_opens_ms(NOON_MS - DAY, NOON_MS, "15m")) == 96
