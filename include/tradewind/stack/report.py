"""What `./tradewind status` says: processes, ports, health and memory, what the ledger holds, and the trading state."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from tradewind.listeners import own_listeners_only
from tradewind.settings import Settings
from tradewind.stack import services
from tradewind.stack.on_record import on_record
from tradewind.stack.processes import LOCALHOST, ProcessMark
from tradewind.stack.state import READY, ProcessState, StackState, state_file
from tradewind.stack.supervisor import Service

Report = dict[str, Any]


def stack_report(settings: Settings) -> Report:
    """The state of the stack of this home, measured now; `healthy` sums it up. A stopped one still has its ledger."""
    state = StackState.load(state_file(settings.home_dir))
    report: Report = {
        "mode": settings.mode,
        "account": settings.account_id,
        "home": str(settings.home_dir),
        "running": False,
        "healthy": False,
    }
    if state is None:
        return report | {"ledger": on_record(settings)}
    nodes = services.build(settings, services.PARTS)
    checks = {node.name: node.ready for node in nodes if isinstance(node, Service)}
    with ThreadPoolExecutor(max_workers=max(len(state.processes), 1)) as pool:
        rows = list(pool.map(lambda process: _row(process, checks.get(process.name)), state.processes))
    report |= {
        "running": state.supervisor.alive(),
        "supervisor": {"pid": state.supervisor.pid, "alive": state.supervisor.alive(), "state": state.state},
        "urls": state.urls,
        "services": rows,
        "memory_mb": round(sum(row["memory_mb"] for row in rows) + _memory_mb([state.supervisor]), 1),
        "trading": _trading_state(settings) if any(row["name"] == "status" for row in rows) else None,
    }
    if not report["running"] or not report["trading"] or "error" in report["trading"]:
        report["ledger"] = on_record(settings)  # else the status app tells
    report["healthy"] = report["running"] and state.state == READY and all(row["healthy"] for row in rows)
    return report


def _row(process: ProcessState, check: Any) -> Report:
    alive = process.mark is not None and process.mark.alive()
    memory_mb = _memory_mb([process.mark, *_descendants(process.mark)]) if process.mark and alive else 0.0
    return {
        "name": process.name,
        "pid": process.mark.pid if process.mark else None,
        "alive": alive,
        "healthy": bool(alive and check is not None and check()),
        "port": process.port,
        "restarts": process.restarts,
        "memory_mb": round(memory_mb, 1),
        "log": process.log,
    }


def _descendants(mark: ProcessMark) -> list[ProcessMark]:
    try:
        return [ProcessMark.of(child.pid) for child in psutil.Process(mark.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory_mb(marks: list[ProcessMark]) -> float:
    """Proportional set size, which counts shared pages once; resident size where the system does not tell it."""
    total = 0
    for mark in marks:
        try:
            info = psutil.Process(mark.pid).memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += getattr(info, "pss", info.rss)
    return total / 2**20


def _trading_state(settings: Settings) -> Report | None:
    try:
        with httpx.Client(timeout=10.0, trust_env=False, event_hooks={"request": [own_listeners_only]}) as client:
            answer = client.get(
                f"http://{LOCALHOST}:{settings.status_port}/api/system-status",
                headers={"Authorization": f"Bearer {settings.api_read_token.get_secret_value()}"},
            )
        return dict(answer.json()) if answer.is_success else {"error": f"the status app answered {answer.status_code}"}
    except httpx.TransportError as error:
        return {"error": f"the status app did not answer: {error}"}


def print_report(report: Report) -> None:
    """The report as a person reads it."""
    console = Console()
    if "services" not in report:
        console.print(f"No stack is up in {report['home']}: ./tradewind up starts it.", highlight=False)
        _print_ledger(console, report["ledger"])
        return
    table = Table("service", "state", "pid", "port", "restarts", "MB", box=None, header_style="dim")
    for row in report["services"]:
        state = "[green]healthy[/]" if row["healthy"] else "[yellow]unhealthy[/]" if row["alive"] else "[red]dead[/]"
        port, pid = row["port"] or "", row["pid"] or ""
        table.add_row(row["name"], state, str(pid), str(port), str(row["restarts"]), f"{row['memory_mb']:.0f}")
    console.print(table)
    supervisor = report["supervisor"]
    alive = "alive" if supervisor["alive"] else "[red]dead: run ./tradewind up or down[/]"
    console.print(
        f"supervisor {supervisor['pid']} {alive} · mode {report['mode']} · {report['memory_mb']:.0f} MB in all"
    )
    for name, url in report["urls"].items():
        console.print(f"{name:10s} {url}", highlight=False)
    if "ledger" in report:
        _print_ledger(console, report["ledger"])
    if report["trading"]:
        _print_trading(console, report["trading"])


def _print_ledger(console: Console, ledger: Report | None) -> None:
    """What a stopped stack has on record: the positions are at the exchange, whether it runs or not."""
    if ledger is None:
        return
    if "error" in ledger:
        console.print(f"[red]{ledger['error']}[/]", highlight=False)
        return
    latch = ledger["latch"]
    console.print(f"account    {ledger['account']}", highlight=False)
    console.print(f"latch      {latch['mode']}{': ' if latch['reason'] else ''}{latch['reason']}", highlight=False)
    for held in ledger["positions"]:
        words = (
            f"{held['symbol']} {held['side']} {held['quantity'].normalize():f}, stop {held['stop_price'].normalize():f}"
        )
        console.print(f"{held['status']:10s} {words}", highlight=False)
    if not ledger["positions"]:
        console.print("positions  none")
    for other in ledger["other_accounts"]:
        words = f"latch {other['latch']}, positions {other['positions'] or 'none'}"
        console.print(
            f"elsewhere  {other['account']}: {words} (TRADEWIND_ACCOUNT_ID={other['account']} tells more)",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"on record  {', '.join(f'{n} {name}' for name, n in ledger['rows'].items())}", highlight=False)


def _print_trading(console: Console, state: Report) -> None:
    """The few lines of the trading state that a person looks for first; `--json` has all of it."""
    if "error" in state:
        console.print(f"[red]{state['error']}[/]")
        return
    trading = state.get("trading") or {}
    allowed = "[green]allowed[/]" if trading.get("allowed") else "[yellow]not allowed[/]"
    console.print(f"entries    {allowed}, latch {trading.get('mode', 'unknown')}")
    for reason in trading.get("reasons", []):
        console.print(f"           {reason}", highlight=False)
    equity = state.get("equity") or {}
    console.print(
        f"equity     {equity.get('equity_quote', 'not read yet')}, {len(state.get('positions', []))} positions"
    )
    for problem in state.get("problems", []):
        console.print(f"{problem['severity']:10s} {problem['what']}: {problem['detail']}", highlight=False)
