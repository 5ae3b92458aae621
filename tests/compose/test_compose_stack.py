"""docker-compose.yaml itself, brought up and used, its workers killed in the middle of their work.

    ./tradewind test tests/compose

Needs root on Debian, an engine and debootstrap from its packages, and some 15 GB under /var/tmp. No part of the suite.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compose.conftest import DIRECTORY, ONE_SHOT, ComposeStack
from tests.compose.images import pinned
from tradewind.bench.trading_stack import SYMBOLS

pytestmark = pytest.mark.timeout(3600)


def test_every_service_is_well(stack: ComposeStack, compose_file: dict[str, Any]) -> None:
    wanted = {
        name for name, service in compose_file["services"].items() if service.get("profiles", ["demo"]) == ["demo"]
    }
    assert stack.services().keys() == wanted
    assert stack.unwell() == {}


def test_nothing_was_pulled(stack: ComposeStack, compose_file: dict[str, Any]) -> None:
    """Every image was made here; the engine's network has no way out."""
    for image in pinned(compose_file):
        assert json.loads(stack.engine.docker("image", "inspect", image))[0]["RepoDigests"] == []


def test_every_container_is_as_hardened_as_the_file_says(stack: ComposeStack) -> None:
    for name, row in stack.services().items():
        (found,) = json.loads(stack.engine.docker("inspect", row["ID"]))
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0, name
        assert int(found["Config"]["User"].split(":")[0]) > 0, name
        for bindings in host["PortBindings"].values():
            assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}, name


def test_no_environment_command_or_image_holds_a_secret(stack: ComposeStack) -> None:
    secrets = _secrets(stack.home)
    assert len(secrets) > 15
    for name, row in stack.services().items():
        seen = stack.engine.docker("inspect", row["ID"]) + stack.engine.docker("history", "--no-trunc", row["Image"])
        if name not in ONE_SHOT:
            seen += stack.engine.docker("top", row["ID"], "-eo", "pid,args")
        assert [key for key, secret in secrets.items() if secret in seen] == [], name


def test_the_databases_cannot_reach_out_and_nobody_reaches_them(stack: ComposeStack) -> None:
    for name in ("postgres", "redis"):
        assert list(stack.inspect(name)["NetworkSettings"]["Networks"]) == ["tradewind_inner"]
        assert not stack.inspect(name)["HostConfig"]["PortBindings"]
    (inner,) = json.loads(stack.engine.docker("network", "inspect", "tradewind_inner"))
    assert inner["Internal"] is True


def test_flower_tells_its_administrator_of_the_workers_and_nobody_else(stack: ComposeStack) -> None:
    script = Path(__file__).with_name("ask_flower.py").read_text()
    flower = ("--profile", "flower")
    try:
        stack.compose(*flower, "up", "--detach", "--no-build", "--pull", "never", "--no-deps", "flower")
        stack.wait_until_well(timeout_s=120)
        told = json.loads(stack.compose(*flower, "exec", "-T", "flower", "python3", "-c", script))
        assert told == {"stranger": 401, "queues": ["bulk", "market", "trading", "training"]}
    finally:
        stack.compose(*flower, "rm", "--stop", "--force", "flower", check=False)


def test_every_library_of_the_image_finds_what_it_links(stack: ComposeStack) -> None:
    script = "find /opt/venv -name '*.so*' -type f -exec ldd {} + 2>/dev/null | grep 'not found' | sort -u; true"
    missing = set(stack.compose("exec", "-T", "status", "sh", "-c", script).split("\n"))
    # Wheels find their own libraries by their own paths; libgomp is the one that must be the system's.
    assert not [line for line in missing if "libgomp.so.1 " in line]
    assert stack.compose("exec", "-T", "status", "python", "-c", "import lightgbm, xgboost, catboost; print('well')")


def test_a_worker_killed_in_a_load_loses_no_bar(stack: ComposeStack) -> None:
    stack.facts["load"] = stack.drive("load", at_kill="training-worker")
    assert stack.facts["load"]["state"] == "success"
    assert stack.facts["load"]["tries"] == 2
    assert stack.facts["load"]["killed_at_percent"] < 90
    stack.drive("data")


def test_a_champion_is_trained(stack: ComposeStack) -> None:
    assert stack.drive("train", timeout_s=1500)["champion"]


def test_a_worker_killed_while_an_order_is_out_harms_nothing(stack: ComposeStack) -> None:
    stack.facts["trade"] = stack.drive("trade", at_kill="trading-worker")
    # Its task is gone and is not tried again; what it sent is found by its id, and the cycle records what became of it.
    assert stack.facts["trade"]["tasks"]["place_brackets"] == "failed"
    stack.wait_until_well()


def test_it_trades_on(stack: ComposeStack) -> None:
    assert len(stack.drive("cycles")["seconds"]) == 4


def test_every_invariant_holds(stack: ComposeStack, capsys: pytest.CaptureFixture[str]) -> None:
    found = stack.drive("verdicts")
    with capsys.disabled():
        print(_table(stack, found))
    assert {name: words for name, words in found["broken"].items() if words} == {}


def test_training_and_backfills_do_not_hold_up_a_cycle(stack: ComposeStack, capsys: pytest.CaptureFixture[str]) -> None:
    """With fifty symbols. Figures of this machine, with as many cores as it has; the bounds are for two."""
    _assert_no_log_holds_a_secret(stack)  # the containers are made anew now, with empty logs
    stack.environment["TRADEWIND_SYMBOLS"] = ",".join(SYMBOLS)
    stack.up()
    assert stack.drive("widen")["symbols"] == len(SYMBOLS)
    found = stack.drive("measure", timeout_s=2400)
    with capsys.disabled():
        print(f"\n\n{json.dumps(found, indent=1)}")
    assert min(found["backfill_runs_waiting"]) >= 90
    assert found["training_at_the_end"] == "running"
    assert found["loaded"]["cycle_p95_s"] <= 2.5 * found["idle"]["cycle_p95_s"]


def test_its_breaker_works(stack: ComposeStack) -> None:
    assert stack.drive("crash")["breaker"]["dag_runs"] == 1


def test_every_invariant_holds_of_fifty_symbols(stack: ComposeStack) -> None:
    found = stack.drive("wide_verdicts")
    assert {name: words for name, words in found["broken"].items() if words} == {}


def test_no_log_holds_a_secret(stack: ComposeStack) -> None:
    _assert_no_log_holds_a_secret(stack)


def _assert_no_log_holds_a_secret(stack: ComposeStack) -> None:
    """What every process has said so far, and every task's log."""
    said = stack.compose("logs", "--no-color")
    said += stack.compose("exec", "-T", "trading-worker", "sh", "-c", "find /var/log/airflow -type f -exec cat {} +")
    assert len(said) > 100_000
    assert [key for key, secret in _secrets(stack.home).items() if secret in said] == []


def _secrets(home: Path) -> dict[str, str]:
    """Each plain secret of the deployment by its name."""
    return {path.name: path.read_text() for path in (home / "secrets").iterdir()}


def _table(stack: ComposeStack, found: dict[str, Any]) -> str:
    lines = ["", "", f"{'invariant':40}{'broken':>8}"]
    lines += [f"{name:40}{len(words):>8}" for name, words in found["broken"].items()]
    lines += [f"{name:40}{value:>8}" for name, value in found["counted"].items()]
    lines += [f"{'seconds: ' + name:40}{value:>8}" for name, value in stack.seconds.items()]
    lines += [json.dumps(stack.facts, default=str), f"logs: {DIRECTORY / 'last.log'}"]
    return "\n".join(lines)
