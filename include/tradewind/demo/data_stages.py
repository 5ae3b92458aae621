"""From an empty database to complete data: history, the last day through Airflow, gaps, news, regimes."""

from __future__ import annotations

from datetime import timedelta

from tradewind.core.ports import CandleGap
from tradewind.jobs.fetching import collected_symbols

from .run import BAR, DemoRun

DAY_RUNS = 96
# How many bars are deleted where, counted back from the market's clock: (symbol's place, first bar back, bars).
PUNCHES = ((0, 400, 1), (1, 1_500, 7), (2, 3_000, 40), (3, 700, 3), (-1, 5_000, 120))

_DELETE = """
DELETE FROM candles WHERE symbol = %(symbol)s AND timeframe = '15m' AND open_time >= %(start)s AND open_time < %(end)s
"""
_COUNT_SERIES = "SELECT symbol, timeframe, count(*) AS bars FROM candles GROUP BY 1, 2 ORDER BY 1, 2"
_COUNT_DAY = """
SELECT symbol, count(*) AS bars FROM candles
WHERE timeframe = '15m' AND open_time >= %(start)s AND open_time < %(end)s GROUP BY 1
"""


def load_history(demo: DemoRun) -> None:
    """Months of 15m and 1h bars through the DAG `backfill_history`, up to the last day."""
    start = demo.start - timedelta(days=30 * demo.options.months)
    conf = {
        "symbols": list(collected_symbols(demo.wiring)),
        "timeframes": ["15m", "1h"],
        "from": start.isoformat(),
        "to": (demo.start - timedelta(days=1)).isoformat(),
    }
    demo.run_dag("backfill_history", conf, timeout_s=240)
    bars = demo.count("SELECT count(*) FROM candles")
    demo.require(bars > 0, "backfill_history succeeded but stored no bar")
    demo.say(f"{bars:,} bars in {demo.options.months} months of {len(demo.wiring.symbols)} symbols, two timeframes")


def backfill_last_day(demo: DemoRun) -> None:
    """The last day by another road: `airflow backfill` of `collect_candles_15m`, 96 runs, no trade cycle woken."""
    first = demo.start - timedelta(days=1)
    cycles_before = _trade_cycles(demo)
    backfill = demo.airflow.create_backfill(
        "collect_candles_15m", from_date=first, to_date=demo.start - BAR, max_active_runs=6
    )
    demo.airflow.wait_backfill(backfill["id"], timeout_s=300)
    rows = demo.wiring.database.rows(_COUNT_DAY, {"start": first, "end": demo.start})
    stored = {row["symbol"]: row["bars"] for row in rows}
    short = {symbol: stored.get(symbol, 0) for symbol in demo.wiring.symbols if stored.get(symbol, 0) != DAY_RUNS}
    demo.require(not short, f"after the backfill of one day these symbols do not hold {DAY_RUNS} bars: {short}")
    woken = _trade_cycles(demo) - cycles_before
    demo.require(not woken, f"the backfill woke {len(woken)} trade cycles: history must never trade")
    demo.run_dag(
        "backfill_history",
        {
            "symbols": list(collected_symbols(demo.wiring)),
            "timeframes": ["1h"],
            "from": first.isoformat(),
            "to": demo.start.isoformat(),
        },
    )
    demo.say(f"{DAY_RUNS} runs, {DAY_RUNS} bars a symbol, no trade cycle woken")


def _trade_cycles(demo: DemoRun) -> set[str]:
    runs = demo.airflow.dag_runs("run_trade_cycle", run_type="asset_triggered")
    return {run["dag_run_id"] for run in runs}


def fill_gaps(demo: DemoRun) -> None:
    """Punch holes into the stored candles and let `fill_candle_gaps` find and refill them."""
    punched = 0
    for place, back, bars in PUNCHES:
        symbol = demo.wiring.symbols[place % len(demo.wiring.symbols)]
        end = demo.start - back * BAR
        punched += demo.wiring.database.execute(_DELETE, {"symbol": symbol, "start": end - bars * BAR, "end": end})
    found = _gaps(demo)
    demo.run_dag("fill_candle_gaps", timeout_s=180)
    left = _gaps(demo)
    demo.require(len(found) >= len(PUNCHES), f"{len(PUNCHES)} holes were punched and {len(found)} gaps found")
    demo.require(not left, f"{len(left)} of {len(found)} gaps are still open, the first: {left[:1]}")
    demo.summary |= {"gaps_found": len(found), "gaps_filled": len(found) - len(left), "gap_bars": punched}
    demo.say(f"{len(found)} gaps with {punched} bars punched, found and refilled")


def _gaps(demo: DemoRun) -> list[CandleGap]:
    end_ms = round(demo.start.timestamp() * 1000)
    start_ms = end_ms - demo.options.months * 30 * 86_400_000
    return demo.wiring.market_store.find_gaps({(symbol, "15m"): (start_ms, end_ms) for symbol in demo.wiring.symbols})


def score_news(demo: DemoRun) -> None:
    """Feeds, articles, scores and the decayed aggregate, by the DAG `score_sentiment`."""
    demo.run_dag("score_sentiment", timeout_s=120)
    articles = demo.count("SELECT count(*) FROM article_scores")
    demo.require(articles > 0, "score_sentiment succeeded but scored no article")
    demo.summary["articles"] = articles
    scorers = demo.wiring.database.rows("SELECT DISTINCT scorer FROM article_scores")
    demo.say(f"{articles} articles scored by {', '.join(row['scorer'] for row in scorers)}")


def classify_regimes(demo: DemoRun) -> None:
    """The regime of every symbol at every recent bar, by the DAG `detect_regime`."""
    demo.run_dag("detect_regime", timeout_s=120)
    regimes = demo.count("SELECT count(*) FROM regimes")
    demo.require(regimes > 0, "detect_regime succeeded but stored no regime")
    demo.summary["regimes"] = regimes
    shares = demo.wiring.database.rows("SELECT regime, count(*) AS n FROM regimes GROUP BY 1 ORDER BY 2 DESC")
    demo.say(", ".join(f"{row['regime']} {row['n'] / regimes:.0%}" for row in shares))


def count_bars(demo: DemoRun) -> dict[str, int]:
    """Bars stored by series, such as {"BTC/USDT 15m": 17375}."""
    return {f"{row['symbol']} {row['timeframe']}": row["bars"] for row in demo.wiring.database.rows(_COUNT_SERIES)}
