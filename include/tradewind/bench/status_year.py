"""A year of trading as rows: what the jobs would have stored of five symbols, as often as they write."""

from __future__ import annotations

import random
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from tradewind.core.params import StrategyParams
from tradewind.settings import Settings

_FILTERS: Final = 16
_MODELS_KEPT: Final = 60

# Everything up to now, `days` back. The latest bar is the one that closed last.
_YEAR: Final = (
    """INSERT INTO candles
       SELECT symbol, frame, t, 100, 101, 99, 100 + sin(n / 40.0), 10
       FROM unnest(%(symbols)s::text[]) symbol, (VALUES ('15m', 900), ('1h', 3600)) f (frame, step),
            generate_series(step, %(days)s * 86400, step) n,
            LATERAL (SELECT make_interval(secs => step) AS length, make_interval(secs => n) AS back) made,
            LATERAL (SELECT date_bin(length, now(), 'epoch') - back AS t) at""",
    # A mark a minute; of those older than a week the upkeep leaves three in a quarter of an hour.
    """INSERT INTO equity
       SELECT %(account)s, t, 'mark', 10000 + 500 * sin(extract(epoch FROM t) / 90000), '{}'::jsonb
       FROM generate_series(now() - interval '7 days', now(), '1 minute') t
       UNION ALL SELECT %(account)s, t, 'mark', 10000 + 500 * cos(extract(epoch FROM t) / 90000), '{}'::jsonb
       FROM generate_series(now() - make_interval(days => %(days)s), now() - interval '7 days 1 s', '5 minutes') t""",
    # After a breaker a month ago the peak counts anew.
    """INSERT INTO equity
       SELECT %(account)s, t, 'day_open', 10000, CASE n WHEN 30 THEN '{"resumed_by": "control"}'::jsonb ELSE '{}' END
       FROM generate_series(0, %(days)s) n, LATERAL (SELECT date_trunc('day', now()) - n * interval '1 day' AS t) at""",
    """INSERT INTO regimes
       SELECT symbol, t, %(params_hash)s, (ARRAY['ranging_quiet', 'trending_weak', 'chaotic'])[1 + n %% 97 / 40],
              'ranging', 20, 1, 0.5, 0.5, now()
       FROM unnest(%(symbols)s::text[]) symbol, generate_series(1, %(days)s * 96) n,
            LATERAL (SELECT date_bin('15 minutes', now(), 'epoch') - n * interval '15 minutes' AS t) at""",
    """INSERT INTO decisions
       SELECT %(account)s, 'v1', symbol, t, 'declined', 'trend: the close is not above the 4h trend line', NULL,
              %(decision)s
       FROM unnest(%(symbols)s::text[]) symbol, generate_series(1, %(days)s * 96) n,
            LATERAL (SELECT date_bin('15 minutes', now(), 'epoch') - n * interval '15 minutes' AS t) at""",
    """INSERT INTO cycles
       SELECT %(account)s, date_bin('15 minutes', now(), 'epoch') - n * interval '15 minutes', 'done', 'r', '{}', now()
       FROM generate_series(1, %(days)s * 96) n""",
    """INSERT INTO sentiment
       SELECT symbol, t, 0.1, 1, 'ok', 'lexicon' FROM unnest(%(symbols)s::text[] || '*'::text) symbol,
            generate_series(now() - make_interval(days => %(days)s), now(), '20 minutes') t""",
    """INSERT INTO articles
       SELECT 'a' || n, 'feed', 'A headline about the market', 'text', 'https://news.example/' || n, '{}',
              now() - n * interval '10 minutes', now() FROM generate_series(1, %(days)s * 144) n""",
    """INSERT INTO article_scores SELECT article_id, 'lexicon', 0.2, now() FROM articles""",
    # Eight trades a day, and as many as four that are open.
    """INSERT INTO positions (position_id, account, strategy_version, symbol, side, family, status, bar, opened_at,
                              closed_at, quantity, entry_quantity, entry_price, initial_stop_price, stop_price,
                              target_price, atr_quote, realised_quote, fees_quote, exit_reason)
       SELECT 'p' || n, %(account)s, 'v1', (%(symbols)s::text[])[1 + n %% 5], 'long', 'trending',
              CASE WHEN n <= 4 THEN 'open' ELSE 'closed' END, t, t, CASE WHEN n > 4 THEN t + interval '3 hours' END,
              CASE WHEN n <= 4 THEN 1 ELSE 0 END, 1, 100, 98, 99, 104, 1, 1, 0.1, 'target'
       FROM generate_series(1, %(days)s * 8) n, LATERAL (SELECT now() - n * interval '3 hours' AS t) at""",
    # An entry, three stops as it was moved, a target.
    """INSERT INTO orders (client_order_id, account, position_id, symbol, role, is_buy, lot, generation, order_type,
                           quantity, price, stop_price, state, filled_quantity, planned_at, updated_at)
       SELECT 'o' || n || kind, %(account)s, 'p' || n, (%(symbols)s::text[])[1 + n %% 5], role, role = 'entry', 0,
              generation, 'limit', 1, 100, CASE role WHEN 'stop' THEN 98 + generation END,
              CASE WHEN role = 'entry' OR n > 4 AND role = 'target' THEN 'filled'
                   WHEN n <= 4 AND kind IN ('s2', 't') THEN 'working' ELSE 'cancelled' END, 1, t, t
       FROM generate_series(1, %(days)s * 8) n, LATERAL (SELECT now() - n * interval '3 hours' AS t) at,
            (VALUES ('e', 'entry', 0), ('s0', 'stop', 0), ('s1', 'stop', 1), ('s2', 'stop', 2), ('t', 'target', 0))
                k (kind, role, generation)""",
    """INSERT INTO fills
       SELECT account, symbol, client_order_id, client_order_id, is_buy, quantity, price, 0.1, 'USDT', false, updated_at
       FROM orders WHERE state = 'filled'""",
    """INSERT INTO position_events (position_id, event, detail, at)
       SELECT position_id, 'stop moved', '{}', planned_at FROM orders WHERE role = 'stop'""",
    """INSERT INTO unprotected_spans (position_id, cause, started_at, ended_at, seconds)
       SELECT position_id, 'replacement', planned_at, planned_at + interval '0.2 s', 0.2
       FROM orders WHERE generation > 0""",
    """INSERT INTO reconciliations (account, at, clean, report)
       SELECT %(account)s, t, true, '{}' FROM generate_series(now() - interval '14 days', now(), '1 minute') t""",
    """INSERT INTO heartbeats SELECT %(account)s, name, now() + interval '1 hour'
       FROM unnest(ARRAY['watch_risk', 'manage_positions']) name""",
    """INSERT INTO audit (at, actor, action, outcome, detail)
       SELECT now() - n * interval '1 hour', 'reader', 'login', 'done', jsonb_build_object('account', %(account)s::text)
       FROM generate_series(%(days)s * 24, 1, -1) n""",
    """INSERT INTO alerts (account, severity, key, title, body, created_at, last_seen_at, sent_at)
       SELECT %(account)s, 'warning', 'k' || n, 'Something happened', 'and was over soon', t, t, t
       FROM generate_series(1, %(days)s * 10) n, LATERAL (SELECT now() - n * interval '2 hours' AS t) at""",
    """INSERT INTO jobs (job_id, kind, state, params, requested_by, created_at, started_at, finished_at)
       SELECT 'j' || n, 'backfill_history', CASE n WHEN 1 THEN 'running' ELSE 'done' END, '{}', 'control', t, t,
              CASE WHEN n > 1 THEN t + interval '1 hour' END
       FROM generate_series(1, %(days)s) n, LATERAL (SELECT now() - n * interval '1 day' AS t) at""",
    """INSERT INTO history_chunks
       SELECT 'j' || n, symbol, '15m', t, t + interval '10 days', CASE WHEN k <= 20 THEN now() END, 960, 960
       FROM generate_series(1, 20) n, unnest(%(symbols)s::text[]) symbol, generate_series(1, 36) k,
            LATERAL (SELECT now() - k * interval '10 days' AS t) at""",
    """INSERT INTO models
       SELECT 'v' || n, CASE n WHEN 1 THEN 'champion' ELSE 'retired' END, %(manifest)s, 'file:///nowhere',
              t - interval '180 days', t, t
       FROM generate_series(1, %(models)s) n, LATERAL (SELECT now() - n * interval '6 days' AS t) at""",
    """INSERT INTO model_gates SELECT version, gate, true, '{"challenger": 0.98, "base_rate": 1.02}'
       FROM models, unnest(ARRAY['log loss', 'expectancy', 'trades', 'calibration']) gate""",
    """INSERT INTO training_runs SELECT 't' || n, 'weekly', 'done', '{}', t, t
       FROM generate_series(1, %(models)s) n, LATERAL (SELECT now() - n * interval '6 days' AS t) at""",
    """INSERT INTO drift_reports SELECT t, 'v1', false, '{}'
       FROM generate_series(now() - make_interval(days => %(days)s), now(), '1 day') t""",
)


def store_year(url: str, settings: Settings, days: int) -> None:
    """Fill the tables that the status app reads, and let the planner see them."""
    values = {
        "account": settings.account_id,
        "symbols": list(settings.symbols),
        "params_hash": StrategyParams().hash,
        "days": days,
        "decision": Jsonb(_decision()),
        "manifest": Jsonb(_manifest()),
        "models": _MODELS_KEPT,
    }
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _YEAR:
            connection.execute(statement, values)
        connection.execute("VACUUM ANALYZE")


def _decision() -> dict[str, Any]:
    """A declined decision of the usual size."""
    verdicts = [
        {
            "filter": f"filter_{number}",
            "passed": number < _FILTERS // 2,
            "reason": "" if number < _FILTERS // 2 else "what is asked for is not there",
            "numbers": {"value": number / 7, "limit": number / 6, "seen": number / 11},
        }
        for number in range(_FILTERS)
    ]
    prediction = {"p_long": 0.41, "p_short": 0.22, "p_neither": 0.37, "expected_r_long": 0.0123, "version": "v1"}
    regime = {"regime": "trending_weak", "family": "trending", "adx": 23.4, "natr_ratio": 1.1}
    return {
        "verdicts": verdicts,
        "prediction": prediction | {"expected_r_short": -0.2},
        "regime": regime,
        "sentiment": {"score": 0.1, "weight": 2.5, "status": "ok", "scorer": "lexicon"},
        "intent": None,
    }


def _manifest() -> dict[str, Any]:
    """As heavy as a trained version's: about thirty kilobytes, most of it numbers of the folds."""
    drawn = random.Random(7)
    curve = [[drawn.random(), drawn.random(), 400] for _ in range(10)]
    classes = {name: {"auc": 0.58, "calibration_error": 0.02, "curve": curve} for name in ("long_wins", "short_wins")}
    pooled = {"rows": 26_880, "log_loss": 0.98, "base_log_loss": 1.02, "brier": 0.58, "classes": classes}
    trades = {"trades": 84, "expectancy_r": 0.11, "expectancy_r_low": 0.02, "profit_factor": 1.3, "win_share": 0.46}
    promotion = {"pooled": pooled, "trending": pooled, "ranging": pooled, "trades": trades, "days": 56.0}
    folds = [[drawn.random() for _ in range(12)] for _ in range(80)]
    return {"metrics": {"promotion": promotion, "walk_forward": folds}, "features": [f"feature_{n}" for n in range(92)]}
