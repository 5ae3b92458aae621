"""A trading week in the tables, so that lists have pages and the page has something to show. Deterministic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb

from tradewind.adapters.database import Database
from tradewind.core.params import StrategyParams

SYMBOLS = {"BTC/USDT": 61_500.0, "ETH/USDT": 3_350.0, "SOL/USDT": 148.0, "BNB/USDT": 612.0, "XRP/USDT": 0.585}
FILTERS = (
    "permission", "freshness", "completeness", "model", "regime", "signal", "trend", "sentiment", "volatility",
    "volume", "cooldown", "positions", "correlation", "exposure", "expected_value", "size",
)  # fmt: skip
QUARTER = timedelta(minutes=15)
BARS = 7 * 96


def seed_week(database: Database, account: str, now: datetime | None = None) -> datetime:
    """Fill the tables up to `now` (by default the last quarter hour); returns the last closed bar's open time."""
    now = now or datetime.now(UTC)
    bar = now - timedelta(seconds=now.timestamp() % 900) - QUARTER
    rng = np.random.default_rng(11)
    closes = _candles(database, bar, rng)
    _equity(database, account, now, rng)
    _signals(database, bar, now, rng)
    _positions(database, account, bar, closes)
    _decisions(database, account, bar, closes, rng)
    _models_and_jobs(database, now)
    _safety(database, account, now)
    return bar


def _many(database: Database, sql: str, rows: list[tuple[Any, ...]]) -> None:
    with database.transaction() as connection, connection.cursor() as cursor:
        cursor.executemany(sql, rows)


def _candles(database: Database, bar: datetime, rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    closes = {}
    for symbol, level in SYMBOLS.items():
        path = level * np.exp(np.cumsum(rng.normal(0.00005, 0.0028, BARS)))
        opens = np.concatenate(([path[0]], path[:-1]))
        spread = np.abs(rng.normal(0, 0.0015, BARS)) * path
        rows = [
            (symbol, "15m", bar - (BARS - 1 - i) * QUARTER, o, max(o, c) + s, min(o, c) - s, c, v)
            for i, (o, c, s, v) in enumerate(zip(opens, path, spread, rng.gamma(2, 40, BARS), strict=True))
        ]
        hours = [
            (symbol, "1h", *row[2:]) for row in rows if row[2].minute == 0 and row[2] + 4 * QUARTER <= bar + QUARTER
        ]
        _many(database, "INSERT INTO candles VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", rows + hours)
        closes[symbol] = path
    return closes


def _equity(database: Database, account: str, now: datetime, rng: np.random.Generator) -> None:
    value, rows = 10_000.0, []
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for i in range(7 * 24 * 12, -1, -1):
        at = now - timedelta(minutes=5 * i)
        if (at.hour == 0 and at.minute < 5) or i == 7 * 24 * 12:
            opened = at.replace(hour=0, minute=0, second=0, microsecond=0)
            rows.append((account, max(opened, at - timedelta(days=1)), "day_open", Decimal(f"{value:.2f}"), Jsonb({})))
        value *= 1 + rng.normal(0.00002, 0.0005)
        rows.append((account, at, "mark", Decimal(f"{value:.2f}"), Jsonb({})))
    assert midnight <= now
    _many(database, "INSERT INTO equity VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", rows)


def _signals(database: Database, bar: datetime, now: datetime, rng: np.random.Generator) -> None:
    params_hash = StrategyParams().hash
    kinds = (
        ("trending_strong", "trending"), ("trending_weak", "trending"), ("ranging_volatile", "ranging"),
        ("ranging_quiet", "ranging"), ("ranging_squeeze", "ranging"), ("chaotic", None),
    )  # fmt: skip
    regimes = []
    for symbol in SYMBOLS:
        kind = 3
        for i in range(BARS):
            if rng.random() < 0.03:
                kind = int(rng.choice(6, p=[0.15, 0.2, 0.22, 0.25, 0.15, 0.03]))
            name, family = kinds[kind]
            regimes.append(
                (symbol, bar - (BARS - 1 - i) * QUARTER, params_hash, name, family, 15 + rng.random() * 25,
                 0.7 + rng.random(), rng.random(), rng.random())
            )  # fmt: skip
    _many(database, "INSERT INTO regimes VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", regimes)
    headlines = (
        ("Bitcoin gains as desks report steady accumulation", ["BTC/USDT"], 0.81),
        ("Bridge exploit drains Solana pool, team pauses contracts", ["SOL/USDT"], -0.86),
        ("Payment firm integrates Ethereum, citing adoption by merchants", ["ETH/USDT"], 0.62),
        ("<script>alert('an article is text')</script> and nothing else", [], 0.0),
        ("Crypto market trades flat while volume stays thin", [], -0.1),
        ("XRP drops on reports of a regulatory probe", ["XRP/USDT"], -0.85),
        ("Developers of BNB publish a roadmap for the next quarter", ["BNB/USDT"], 0.0),
    )
    for i, (title, symbols, score) in enumerate(headlines):
        at = now - timedelta(minutes=47 * i + 11)
        link = "javascript:alert(1)" if "script" in title else f"https://news.example/{i}"
        database.execute(
            "INSERT INTO articles VALUES (%s, 'https://news.example/rss', %s, 'text', %s, %s, %s, %s)",
            (f"a{i}", title, link, symbols, at, at),
        )
        database.execute("INSERT INTO article_scores VALUES (%s, 'lexicon', %s, %s)", (f"a{i}", score, at))
    scores = {"BTC/USDT": 0.31, "ETH/USDT": 0.22, "SOL/USDT": -0.48, "BNB/USDT": 0.0, "XRP/USDT": -0.37, "*": -0.06}
    for hours in (20, 0):
        as_of = now - timedelta(hours=hours)
        for symbol, score in scores.items():
            status = "none" if symbol == "BNB/USDT" else "ok"
            database.execute(
                "INSERT INTO sentiment VALUES (%s, %s, %s, 2.5, %s, 'lexicon')", (symbol, as_of, score, status)
            )
    database.execute("INSERT INTO feed_states VALUES ('https://news.example/rss', NULL, NULL, %s, NULL)", (now,))


_POSITION = """
    INSERT INTO positions VALUES (%(id)s, %(account)s, 'v1', %(symbol)s, 'long', 'trending', %(status)s, %(bar)s,
        %(opened)s, %(closed)s, %(quantity)s, %(bought)s, %(entry)s, %(initial)s, %(stop)s, %(target)s, 10, NULL, NULL,
        %(realised)s, %(fees)s, %(reason)s, 0)"""
_ORDER = """
    INSERT INTO orders VALUES (%(id)s, %(account)s, %(position)s, %(symbol)s, %(role)s, %(buy)s, 0, 0, %(type)s,
        %(quantity)s, %(price)s, %(stop)s, NULL, %(state)s, '1', %(filled)s, %(at)s, %(at)s, %(at)s, '')"""
_FILL = "INSERT INTO fills VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'USDT', false, %s)"


def _positions(database: Database, account: str, bar: datetime, closes: dict[str, np.ndarray[Any, Any]]) -> None:
    plan = [("BTC/USDT", 30, None), ("SOL/USDT", 12, None)]
    plan += [
        (symbol, 90 + 70 * i, 40 + 70 * i) for i, symbol in enumerate(("ETH/USDT", "XRP/USDT", "BTC/USDT", "BNB/USDT"))
    ]
    for number, (symbol, opened_ago, closed_ago) in enumerate(plan, start=1):
        entry = float(closes[symbol][-opened_ago])
        stop, target = entry * 0.985, entry * 1.03
        quantity = round(2_000 / entry, 4)
        live = closed_ago is None
        exit_price = entry if live else float(closes[symbol][-closed_ago])
        opened, closed = bar - opened_ago * QUARTER, None if live else bar - closed_ago * QUARTER
        realised = 0.0 if live else (exit_price - entry) * quantity - 4
        values = {
            "id": f"p{number}", "account": account, "symbol": symbol, "status": "open" if live else "closed",
            "bar": opened - QUARTER, "opened": opened, "closed": closed, "quantity": quantity if live else 0,
            "bought": quantity, "entry": round(entry, 6), "initial": round(stop, 6),
            "stop": round(stop * (1.012 if number == 1 else 1), 6), "target": round(target, 6),
            "realised": round(realised, 4), "fees": 4,
            "reason": "" if live else ("stop" if realised < 0 else "target"),
        }  # fmt: skip
        database.execute(_POSITION, values)
        order = {"account": account, "position": f"p{number}", "symbol": symbol, "quantity": quantity}
        database.execute(
            _ORDER,
            order | {"id": f"e{number}", "role": "entry", "buy": True, "type": "LIMIT", "price": entry, "stop": None,
                     "state": "filled", "filled": quantity, "at": opened},
        )  # fmt: skip
        state = "working" if live else "filled"
        database.execute(
            _ORDER,
            order | {"id": f"s{number}", "role": "stop", "buy": False, "type": "STOP_LOSS", "price": None,
                     "stop": values["stop"], "state": "cancelled" if number == 2 else state,
                     "filled": 0 if live else quantity, "at": opened},
        )  # fmt: skip
        database.execute(_FILL, (account, symbol, f"t{number}", f"e{number}", True, quantity, entry, 2, opened))
        if not live:
            database.execute(
                _FILL, (account, symbol, f"u{number}", f"s{number}", False, quantity, exit_price, 2, closed)
            )


_REFUSALS = (
    ("expected_value", "+0.042 R"),
    ("positions", "2 positions, 1 of them here"),
    ("positions", "2 positions, 1 of them here"),
    ("", ""),
    ("trend", "the close is not above the 4h trend line"),
)


def _decisions(
    database: Database, account: str, bar: datetime, closes: dict[str, np.ndarray[Any, Any]], rng: np.random.Generator
) -> None:
    for back in range(24):
        at = bar - back * QUARTER
        state = {3: "missed", 9: "failed", 10: "expired"}.get(back, "done")
        database.execute("INSERT INTO cycles VALUES (%s, %s, %s, 'run', '{}')", (account, at, state))
    for back in range(40):
        for n, symbol in enumerate(SYMBOLS):
            refused, words = _REFUSALS[(n + back) % len(_REFUSALS)]
            verdicts = [
                {"filter": name, "passed": name != refused,
                 "reason": words if name == refused else "",
                 "numbers": {"value": round(float(rng.random()), 4), "limit": 0.5}}
                for name in FILTERS
            ]  # fmt: skip
            p_long, p_short = 0.3 + rng.random() * 0.25, 0.15 + rng.random() * 0.2
            decision = {
                "verdicts": verdicts,
                "prediction": {"p_long": p_long, "p_short": p_short, "p_neither": 1 - p_long - p_short,
                               "expected_r_long": round(float(rng.normal(0.05, 0.15)), 4)},
                "regime": {"regime": "trending_weak"},
                "sentiment": {"score": 0.1},
                "intent": None,
            }  # fmt: skip
            outcome = "declined"
            reason = next((f"{v['filter']}: {v['reason']}" for v in verdicts if not v["passed"]), "")
            intent_id = None
            if not refused:
                outcome, intent_id = "intent", f"i-{back}-{n}"
                price = float(closes[symbol][-1 - back])
                lots = [
                    {"lot": lot, "quantity": "0.12", "target_price": f"{price * (1 + 0.015 * (lot + 1)):.4f}"}
                    for lot in (0, 1)
                ]
                decision["intent"] = {
                    "symbol": symbol, "entry_limit_price": f"{price:.4f}", "stop_price": f"{price * 0.985:.4f}",
                    "risk_quote": "99.10", "lots": lots,
                }  # fmt: skip
            database.execute(
                "INSERT INTO decisions VALUES (%s, 'v1', %s, %s, %s, %s, %s, %s)",
                (account, symbol, bar - back * QUARTER, outcome, reason, intent_id, Jsonb(decision)),
            )


def _models_and_jobs(database: Database, now: datetime) -> None:
    curve = [[0.1 * i, 0.1 * i + 0.02 * (-1) ** i, 400] for i in range(2, 9)]
    classes = {
        name: {"auc": 0.583, "calibration_error": 0.021, "curve": curve}
        for name in ("long_wins", "short_wins", "neither")
    }
    pooled = {
        "rows": 26_880, "log_loss": 0.9812, "base_log_loss": 1.0234, "brier": 0.58, "base_brier": 0.61,
        "classes": classes,
    }  # fmt: skip
    trades = {
        "trades": 84, "expectancy_r": 0.112, "expectancy_r_low": 0.018, "profit_factor": 1.31, "win_share": 0.46,
    }  # fmt: skip
    metrics = {"promotion": {"pooled": pooled, "trades": trades, "days": 56.0, "shortened": True}}
    for version, state, days in (("2026w09-a1b2c3", "champion", 4), ("2026w08-d4e5f6", "retired", 11)):
        end = now - timedelta(days=days)
        database.execute(
            "INSERT INTO models VALUES (%s, %s, %s, 'file:///models', %s, %s, %s)",
            (version, state, Jsonb({"metrics": metrics}), end - timedelta(days=180), end, end),
        )
        for gate, passed, numbers in (
            ("log loss below the base rate", True, {"challenger": 0.9812, "base_rate": 1.0234}),
            ("expectancy after costs", True, {"mean_r": 0.112, "bound_5_frac": 0.018}),
            ("at least 50 trades", version.startswith("2026w09"), {"trades": 84}),
        ):
            database.execute("INSERT INTO model_gates VALUES (%s, %s, %s, %s)", (version, gate, passed, Jsonb(numbers)))
    for job_id, kind, state, started in (
        ("backfill_history-1", "backfill_history", "running", now - timedelta(minutes=6)),
        ("retrain_models-1", "retrain_models", "done", now - timedelta(days=4)),
    ):
        database.execute(
            "INSERT INTO jobs VALUES (%s, %s, %s, '{}', %s, 'api__1', 'control', %s, %s, %s)",
            (job_id, kind, state, kind, started, started, started + timedelta(minutes=9) if state == "done" else None),
        )
    for chunk in range(10):
        start = now - timedelta(days=300 - chunk * 30)
        done = now if chunk < 7 else None
        database.execute(
            "INSERT INTO history_chunks VALUES ('backfill_history-1', 'BTC/USDT', '15m', %s, %s, %s, %s, %s)",
            (start, start + timedelta(days=30), done, 2880 if done else None, 2880 if done else None),
        )


def _safety(database: Database, account: str, now: datetime) -> None:
    wall = datetime.now(UTC)
    for name in ("watch_risk", "manage_positions"):
        database.execute(
            "INSERT INTO heartbeats VALUES (%s, %s, %s) ON CONFLICT (account, name) DO UPDATE SET at = excluded.at",
            (account, name, wall),
        )
    database.execute(
        "INSERT INTO reconciliations (account, at, clean, report) VALUES (%s, %s, true, '{}')", (account, wall)
    )
    database.execute(
        "INSERT INTO alerts (account, severity, key, title, body) "
        "VALUES (%s, 'info', 'day', 'Daily summary', 'Two trades closed, +0.8 R')",
        (account,),
    )
    database.execute(
        "INSERT INTO audit (actor, action, outcome, detail, source) "
        "VALUES ('control', 'retrain_models', 'started', jsonb_build_object('account', %s::text), 'api 127.0.0.1')",
        (account,),
    )
