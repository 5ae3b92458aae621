"""The demo from boot to report, stage by stage."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from rich.console import Console

from tradewind import stack
from tradewind.paper.admin import PaperAdmin
from tradewind.settings import Settings
from tradewind.stack import daemon, services
from tradewind.wiring import Wiring

from . import data_stages, model_stage, summary_stage, walk_stages
from .run import MARKET_START, DemoFailed, DemoOptions, DemoRun


def run_demo(options: DemoOptions, *, seed: int, structure_frac: float) -> None:
    """Run every stage; returns only when each did its work.

    The stack runs in a supervisor of its own, so that `--keep` can leave it up; otherwise it is ended, also when a
    stage failed or the demo was interrupted.

    Raises
    ------
    DemoFailed : a stage did not do its work; the JSON summary holds what was reached.
    AlreadyRunning : another stack is up.
    """
    now = datetime.now(UTC)
    settings = stack.with_secrets(
        mode="demo",
        market="synthetic",
        market_seed=seed,
        market_structure_frac=structure_frac,
        market_start=MARKET_START,
        account_id=f"demo-{now:%Y%m%dT%H%M%S}",
        history_months=options.months,
    )
    console = Console()
    console.print("[bold yellow]SYNTHETIC MARKET, PAPER MONEY[/bold yellow]: a rehearsal with real servers")
    daemon.detach(settings, fresh=True)
    try:
        booted_s = (datetime.now(UTC) - now).total_seconds()
        wiring = Wiring(settings)
        admin = PaperAdmin(settings.exchange_url, settings.exchange_admin_token.get_secret_value())
        with closing(wiring), closing(services.airflow_client(settings)) as airflow, closing(admin):
            demo = DemoRun(options, settings, wiring, airflow, admin, console, MARKET_START)
            demo.seconds["boot"] = round(booted_s, 1)
            _run_stages(demo)
    finally:
        if options.keep:
            console.print(f"The stack stays up: {_addresses(settings)}; ./tradewind down ends it.")
        else:
            stack.down(settings)


def _run_stages(demo: DemoRun) -> None:
    has_champion = False
    try:
        with demo.stage("history", "Load history through the DAG backfill_history"):
            data_stages.load_history(demo)
        with demo.stage("backfill", "Backfill the last day through Airflow"):
            data_stages.backfill_last_day(demo)
        with demo.stage("gaps", "Punch gaps, and let fill_candle_gaps repair them"):
            data_stages.fill_gaps(demo)
        with demo.stage("sentiment", "Score the news"):
            data_stages.score_news(demo)
        with demo.stage("training", "Train, validate, and ask the promotion gates"):
            has_champion = model_stage.train_models(demo)
        if has_champion:
            with demo.stage("walk", "Walk the market to the first intent"):
                walk_stages.walk_to_first_intent(demo)
        with demo.stage("cycles", "Trade bar by bar through the real DAGs"):
            walk_stages.run_cycles(demo, has_champion=has_champion)
        with demo.stage("regimes", "Count the regimes"):
            data_stages.classify_regimes(demo)
        if has_champion and demo.options.crash:
            with demo.stage("crash", "Crash the market"):
                walk_stages.hold_a_position(demo)
                walk_stages.crash(demo)
        with demo.stage("report", "Write the report"):
            summary_stage.summarise(demo)
            summary_stage.write_demo_report(demo)
        summary_stage.check(demo, has_champion=has_champion)
        demo.summary["outcome"] = "ok" if has_champion else "no champion: nothing was found that may be traded"
    except DemoFailed as failure:
        demo.summary["outcome"] = f"failed: {failure}"
        raise
    finally:
        demo.write_json()
    summary_stage.print_summary(demo)
    if not has_champion:
        demo.console.print("No champion stood, so no order was sent: where nothing proved itself, that is right.")


def _addresses(settings: Settings) -> str:
    return f"Airflow {settings.airflow_url}, status page http://127.0.0.1:{settings.status_port}"
