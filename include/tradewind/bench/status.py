"""How fast the status app answers with a year of trading behind it, through the role that it has in a deployment."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from pydantic import SecretStr

from tradewind.bench.rows import BenchOptions, Row
from tradewind.bench.servers import scratch_database, scratch_dir, scratch_postgres, scratch_valkey
from tradewind.core.params import StrategyParams
from tradewind.settings import Settings
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.wiring import Wiring

_BOUND_MS: Final = 50.0
_DAYS: Final = 365
_WARM_UP: Final = 3

# Everything up to now: `days` back, five symbols, as often as the real jobs write.
_YEAR: Final = (
    """INSERT INTO candles
       SELECT symbol, frame, t, 100, 101, 99, 100, 10
       FROM unnest(%(symbols)s::text[]) symbol, (VALUES ('15m', 900), ('1h', 3600)) f (frame, step),
            generate_series(0, %(days)s * 86400, step) n,
            LATERAL (SELECT date_bin('1 hour', now(), 'epoch') - make_interval(secs => n) AS t) at""",
    """INSERT INTO equity
       SELECT %(account)s, t, 'mark', 10000 + 500 * sin(extract(epoch FROM t) / 90000), '{}'
       FROM generate_series(now() - make_interval(days => %(days)s), now(), '1 minute') t""",
    """INSERT INTO equity
       SELECT %(account)s, t, 'day_open', 10000, '{}'
       FROM generate_series(date_trunc('day', now()) - make_interval(days => %(days)s), now(), '1 day') t""",
    """INSERT INTO regimes
       SELECT symbol, t, %(params_hash)s, (ARRAY['ranging_quiet', 'trending_weak', 'chaotic'])[1 + n %% 97 / 40],
              'ranging', 20, 1, 0.5, 0.5, now()
       FROM unnest(%(symbols)s::text[]) symbol, generate_series(0, %(days)s * 96) n,
            LATERAL (SELECT date_bin('15 minutes', now(), 'epoch') - n * interval '15 minutes' AS t) at""",
    """INSERT INTO decisions
       SELECT %(account)s, 'v1', symbol, t, 'declined', 'trend: no', NULL, jsonb_build_object('verdicts', v.verdicts)
       FROM unnest(%(symbols)s::text[]) symbol, generate_series(0, %(days)s * 96) n,
            LATERAL (SELECT date_bin('15 minutes', now(), 'epoch') - n * interval '15 minutes' AS t) at,
            (SELECT jsonb_agg(jsonb_build_object('filter', 'filter_' || k, 'passed', k < 9, 'reason', 'because',
                                                 'numbers', '{"value": 0.5, "limit": 0.4}'::jsonb)) AS verdicts
             FROM generate_series(1, 16) k) v""",
    """INSERT INTO cycles
       SELECT %(account)s, date_bin('15 minutes', now(), 'epoch') - n * interval '15 minutes', 'done', 'r', '{}', now()
       FROM generate_series(0, %(days)s * 96) n""",
    """INSERT INTO sentiment
       SELECT symbol, t, 0.1, 1, 'ok', 'lexicon' FROM unnest(%(symbols)s::text[] || '*'::text) symbol,
            generate_series(now() - make_interval(days => %(days)s), now(), '20 minutes') t""",
    """INSERT INTO articles
       SELECT 'a' || n, 'feed', 'A headline', 'text', 'https://news.example/' || n, '{}',
              now() - n * interval '10 minutes', now() FROM generate_series(1, %(days)s * 144) n""",
    """INSERT INTO positions (position_id, account, strategy_version, symbol, side, family, status, bar, opened_at,
                              closed_at, quantity, entry_quantity, entry_price, initial_stop_price, stop_price,
                              target_price, atr_quote, realised_quote, fees_quote, exit_reason)
       SELECT 'p' || n, %(account)s, 'v1', 'BTC/USDT', 'long', 'trending', 'closed', t, t, t + interval '3 hours',
              0, 1, 100, 98, 99, 104, 1, 1, 0.1, 'target'
       FROM generate_series(1, %(days)s * 8) n, LATERAL (SELECT now() - n * interval '3 hours' AS t) at""",
    """INSERT INTO orders (client_order_id, account, position_id, symbol, role, is_buy, lot, generation, order_type,
                           quantity, price, state, filled_quantity, planned_at, updated_at)
       SELECT 'o' || n || role, %(account)s, 'p' || n, 'BTC/USDT', role, role = 'entry', 0, 0, 'limit', 1, 100,
              'filled', 1, t, t
       FROM generate_series(1, %(days)s * 8) n, unnest(ARRAY['entry', 'stop', 'target']) role,
            LATERAL (SELECT now() - n * interval '3 hours' AS t) at""",
    """INSERT INTO reconciliations (account, at, clean, report)
       SELECT %(account)s, t, true, '{}' FROM generate_series(now() - interval '14 days', now(), '1 minute') t""",
    """INSERT INTO audit (at, actor, action, outcome, detail)
       SELECT now() - n * interval '1 hour', 'reader', 'login', 'done', '{}'
       FROM generate_series(%(days)s * 24, 1, -1) n""",
)


def measure(options: BenchOptions) -> list[Row]:
    """The 95th percentile of each answer that the page and its charts ask for."""
    days = _DAYS // 10 if options.quick else _DAYS
    with scratch_dir() as directory, scratch_postgres(directory) as server, scratch_valkey(directory) as cache:
        url = scratch_database(server, "status")
        account = "bench"
        settings = Settings(
            mode="paper",
            account_id=account,
            home_dir=directory / "home",
            database_url=SecretStr(_status_role(server)),
            cache_url=SecretStr(cache.url()),
            # Nothing listens there: the checks answer that at once.
            exchange_url="http://127.0.0.1:9",
            airflow_url="http://127.0.0.1:9",
            api_read_token=SecretStr("read"),
            api_control_token=SecretStr("control"),
            api_session_key=SecretStr("session"),
        )
        options.say(f"storing {days} days of five symbols")
        _store(url, settings, days)
        return _ask(settings, days, runs=20 if options.quick else 100)


def _status_role(server: EmbeddedPostgres) -> str:
    password = secrets.token_hex(8)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE tradewind_status LOGIN PASSWORD '{password}'")
    return server.url("status", user="tradewind_status", password=password)


def _store(url: str, settings: Settings, days: int) -> None:
    values = {
        "account": settings.account_id,
        "symbols": list(settings.symbols),
        "params_hash": StrategyParams().hash,
        "days": days,
    }
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _YEAR:
            connection.execute(statement, values)
        connection.execute("VACUUM ANALYZE")


def _ask(settings: Settings, days: int, runs: int) -> list[Row]:
    from tradewind.adapters.database import Database
    from trading_api import create_app

    wiring = Wiring(settings)
    wiring.__dict__["database"] = Database(settings.database_url.get_secret_value())
    client = create_app(settings, wiring, {"REQUESTS_PER_MINUTE": 10**9}).test_client()
    week = (datetime.now(UTC) - timedelta(days=7)).isoformat().replace("+00:00", "Z")
    rows = []
    for path in (
        "/api/system-status", "/panels", "/api/positions", "/api/orders", "/api/decisions", "/api/regimes",
        "/api/sentiment", "/api/candles?symbol=BTC/USDT", f"/api/equity?points=400&from={week}",
    ):  # fmt: skip
        taken_ms: list[float] = []
        for number in range(_WARM_UP + runs):
            started = time.perf_counter()
            answer = client.get(path, headers={"Authorization": "Bearer read"})
            if answer.status_code != 200:
                raise AssertionError(f"{path} answered {answer.status_code}: {answer.text[:200]}")
            if number >= _WARM_UP:
                taken_ms.append((time.perf_counter() - started) * 1000)
        what = f"{path.partition('?')[0]} with {days} days stored, p95"
        rows.append(Row("status", what, _p95(taken_ms), "ms", _BOUND_MS, spread=(min(taken_ms), max(taken_ms))))
    wiring.close()
    return rows


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]
