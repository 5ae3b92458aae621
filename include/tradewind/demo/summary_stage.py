"""Count what the demo left in the database, write its report, and say whether every stage did its work."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from tradewind.backtest.ledger_run import read_run
from tradewind.backtest.report import write_report

from .data_stages import count_bars
from .run import DemoRun

_COUNTS = {
    "regimes": "SELECT count(*) FROM regimes",
    "articles": "SELECT count(*) FROM article_scores",
    "models": "SELECT count(*) FROM models",
    "decisions": "SELECT count(*) FROM decisions WHERE account = %(account)s",
    "orders": "SELECT count(*) FROM orders WHERE account = %(account)s",
    "fills": "SELECT count(*) FROM fills WHERE account = %(account)s",
    "positions_closed": "SELECT count(*) FROM positions WHERE account = %(account)s AND status IN ('closed', 'dust')",
    "breaker_trips": "SELECT count(*) FROM latch_history WHERE account = %(account)s AND mode = 'halted'",
}
_OUTCOMES = "SELECT outcome, count(*) AS n FROM decisions WHERE account = %(account)s GROUP BY 1 ORDER BY 1"
_REASONS = """
SELECT split_part(reason, ':', 1) AS reason, count(*) AS n FROM decisions
WHERE account = %(account)s AND reason <> '' GROUP BY 1 ORDER BY 2 DESC LIMIT 12
"""


def summarise(demo: DemoRun) -> None:
    """Fill the summary with counts of this account's rows."""
    key = {"account": demo.wiring.account}
    demo.summary |= {name: demo.count(sql) for name, sql in _COUNTS.items()}
    demo.summary |= {
        "account": demo.wiring.account,
        "mode": demo.settings.mode,
        "market": demo.settings.market,
        "market_seed": demo.settings.market_seed,
        "market_structure_frac": demo.settings.market_structure_frac,
        "strategy_version": demo.wiring.params.strategy_version,
        "params_sha256": demo.wiring.params.hash,
        "bars": count_bars(demo),
        "decisions_by_outcome": {r["outcome"]: r["n"] for r in demo.wiring.database.rows(_OUTCOMES, key)},
        "decisions_by_reason": {r["reason"]: r["n"] for r in demo.wiring.database.rows(_REASONS, key)},
    }


def write_demo_report(demo: DemoRun) -> Path:
    """`demo/report.html` under the home directory."""
    end = demo.now()
    history_ms = 14 * 86_400_000
    end_ms = round(end.timestamp() * 1000)
    bars = demo.wiring.market_store.read_bars(demo.wiring.symbols, "15m", end_ms - history_ms, end_ms)
    result = read_run(
        demo.wiring.database,
        demo.wiring.account,
        title="Tradewind demo",
        labels=["SYNTHETIC MARKET: a seeded simulation with paper money; it says nothing about a real market."],
        strategy_version=demo.wiring.params.strategy_version,
        bars=bars,
        end=end,
    )
    path = demo.settings.home_dir / "demo" / "report.html"
    gates = [
        {"version": model["version"], "gate": gate["gate"], "passed": gate["passed"], "numbers": gate["numbers"]}
        for model in demo.summary.get("model_versions", [])
        for gate in model["gates"]
    ]
    sections = {
        "Promotion gates": gates,
        "Circuit breaker": [demo.summary["breaker"]] if "breaker" in demo.summary else [],
        "Why not": [{"reason": k, "decisions": n} for k, n in demo.summary["decisions_by_reason"].items()],
        "Bars stored": [{"series": name, "bars": n} for name, n in demo.summary["bars"].items()],
        "Seconds per stage": [{"stage": name, "seconds": s} for name, s in demo.seconds.items()],
    }
    write_report(path, result, sections)
    demo.summary["report"] = str(path)
    return path


def check(demo: DemoRun, *, has_champion: bool) -> None:
    """Raise DemoFailed unless each stage left what it had to leave."""
    wanted = ["gaps_found", "gaps_filled", "regimes", "articles", "models", "decisions"]
    if has_champion:
        wanted += ["orders", "fills", "positions_closed"]
        wanted += ["breaker_trips"] if demo.options.crash else []
    empty = [name for name in wanted if not demo.summary.get(name)]
    demo.require(not empty, f"nothing was left of: {', '.join(empty)}")
    if not has_champion:
        demo.require(
            demo.summary["orders"] == 0, "orders exist although no champion ever stood: never trade this build"
        )


def print_summary(demo: DemoRun) -> None:
    table = Table(title="What the demo did", show_header=False, title_justify="left")
    for name in ("bars", "gap_bars", "regimes", "articles", "models", "champion", "cycles", "decisions_by_outcome",
                 "orders", "fills", "positions_closed", "breaker", "report"):  # fmt: skip
        if name in demo.summary:
            value = demo.summary[name]
            table.add_row(name.replace("_", " "), f"{sum(value.values()):,}" if name == "bars" else str(value))
    table.add_row("strategy", f"{demo.summary['strategy_version']} (params sha256 {demo.summary['params_sha256']})")
    table.add_row("seconds", f"{sum(demo.seconds.values()):.0f} in all: {demo.seconds}")
    demo.console.print(table)
