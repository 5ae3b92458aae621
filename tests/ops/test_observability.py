"""Dashboards and alert rules ask only for what the code sends, under the names that the mapping gives it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import airflow
import httpx
import pytest
import yaml

from tests.ops.emitted import MAPPING, OPS, Metric, airflows, ours
from tests.support.statsd_exporter import Mapping, StatsdExporter
from tradewind.adapters.metrics import StatsdMetrics
from tradewind.stack.processes import free_port

DASHBOARDS = sorted((OPS / "grafana" / "dashboards").glob("*.json"))
RULES = OPS / "prometheus" / "rules.yml"
PROMTOOL = shutil.which("promtool")
STATSD_EXPORTER = shutil.which("statsd_exporter") or shutil.which("prometheus-statsd-exporter")
# What an operator and the strategy's owner need to see, by the name it is sent under.
WANTED = (
    "predictions", "decisions", "candles.new", "history.rows", "regimes.stored", "regime.active", "cycle.since_close",
    "orders.ack", "fills.slippage_bps", "positions.unprotected", "reconciliation.differences", "equity_quote",
    "drawdown_frac", "exposure_frac", "positions.result_r", "model.age_s", "model.calibration_error", "feed.age_s",
    "exchange.weight_left_frac", "gaps.missing_bars", "heartbeat.age_s", "candles.age_s", "task.duration",
)  # fmt: skip
_SERIES = re.compile(r"\b((?:tradewind|airflow)_[a-z0-9_]+)(\{[^}]*\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!=|!~|=)\s*"')
_GROUPED = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")


def metrics() -> list[Metric]:
    # The namespace package `airflow` also lies in providers' directories; its own file does not.
    return [*ours(), *airflows(Path(str(airflow.__file__)).parents[1])]


def known() -> dict[str, frozenset[str] | None]:
    """Label names by series; a stat sent as two kinds is two metrics."""
    mapping = Mapping(MAPPING)
    return {series: metric.labels for metric in metrics() for series in metric.series(mapping)}


def dashboard_queries() -> list[tuple[str, str]]:
    found = []
    for path in DASHBOARDS:
        content = json.loads(path.read_text())
        found += [(f"{path.stem}: {p['title']}", t["expr"]) for p in content["panels"] for t in p["targets"]]
        found += [(f"{path.stem}: annotation", entry["expr"]) for entry in content["annotations"]["list"]]
    return found


def rule_queries() -> list[tuple[str, str]]:
    return [
        (rule["alert"], rule["expr"])
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
    ]


@pytest.mark.parametrize(("where", "query"), [*dashboard_queries(), *rule_queries()])
def test_every_query_asks_for_what_is_sent(where: str, query: str) -> None:
    sent = known()
    used = _SERIES.findall(query)
    assert used, query
    labels: set[str] = {"le"}
    for name, matchers in used:
        assert name in sent, f"{where}: nothing sends {name}"
        own = sent[name]
        if own is None:
            return
        labels |= own
        assert set(_MATCHER.findall(matchers)) <= own | {"le"}, f"{where}: {name} has the labels {sorted(own)}"
    grouped = {label.strip() for group in _GROUPED.findall(query) for label in group.split(",") if label.strip()}
    assert grouped <= labels, f"{where}: grouped by {sorted(grouped - labels)}, which nothing carries"


def test_what_an_operator_needs_is_sent() -> None:
    assert {f"tradewind.{name}" for name in WANTED} <= {metric.stat for metric in ours()}


def test_predictions_tell_symbol_regime_and_signal() -> None:
    (predictions,) = [metric for metric in ours() if metric.stat == "tradewind.predictions"]
    assert predictions.labels == {"symbol", "regime", "signal"}


def test_there_are_the_four_dashboards_each_with_its_own_panels() -> None:
    content = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert {board["title"].split(" · ")[1] for board in content} == {"Trading", "Data", "Models", "Airflow"}
    for board in content:
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        assert all(panel["datasource"]["uid"] == "prometheus" for panel in board["panels"])
        for panel in board["panels"]:
            position = panel["gridPos"]
            assert position["x"] + position["w"] <= 24


def test_provisioning_names_the_datasource_that_dashboards_use() -> None:
    source = yaml.safe_load((OPS / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert (source["uid"], source["type"]) == ("prometheus", "prometheus")


@contextmanager
def stand_in() -> Iterator[tuple[int, int]]:
    exporter = StatsdExporter(MAPPING)
    try:
        yield exporter.statsd_port, exporter.web_port
    finally:
        exporter.close()


@contextmanager
def statsd_exporter() -> Iterator[tuple[int, int]]:
    """The real one, with the mapping that is shipped."""
    statsd_port, web_port = free_port(), free_port()
    listen = [f"--statsd.listen-udp=127.0.0.1:{statsd_port}", "--statsd.listen-tcp="]
    argv = [str(STATSD_EXPORTER), f"--statsd.mapping-config={MAPPING}", *listen]
    process = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{web_port}"], stderr=subprocess.DEVNULL)
    try:
        yield statsd_port, web_port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    "exporter",
    [
        stand_in,
        pytest.param(
            statsd_exporter,
            marks=pytest.mark.skipif(STATSD_EXPORTER is None, reason="statsd_exporter is not installed"),
        ),
    ],
)
def test_what_is_sent_arrives_under_the_mapped_names(
    exporter: Callable[[], AbstractContextManager[tuple[int, int]]],
) -> None:
    with exporter() as (statsd_port, web_port):
        sender = StatsdMetrics("127.0.0.1", statsd_port)
        deadline = time.monotonic() + 120
        text = ""
        # Datagrams to a process that does not listen yet are lost.
        while "tradewind_orders_ack" not in text and time.monotonic() < deadline:
            sender.count("nobody.asked.for.this")
            sender.count("tradewind.predictions", symbol="BTC/USDT", regime="chaotic", signal="none")
            sender.gauge("tradewind.drawdown_frac", -0.02)
            sender.timing_ms("tradewind.orders.ack", 120.0, role="entry")
            time.sleep(0.1)
            with suppress(httpx.TransportError):
                text = httpx.get(f"http://127.0.0.1:{web_port}/metrics", trust_env=False).text
    assert re.search(r'^tradewind_predictions_total\{regime="chaotic",signal="none",symbol="BTC/USDT"\} \d', text, re.M)
    assert "tradewind_drawdown_frac -0.02" in text
    assert re.search(r'^tradewind_orders_ack_seconds_bucket\{role="entry",le="0.25"\} [1-9]', text, re.M)
    assert 'tradewind_orders_ack_seconds_bucket{role="entry",le="0.1"} 0' in text
    assert "nobody_asked" not in text


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", str(OPS / "prometheus" / "prometheus.yml")),
        ("check", "rules", str(RULES)),
        ("test", "rules", str(OPS / "prometheus" / "tests" / "rules_test.yml")),
    ],
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_has_a_test_that_fires_and_one_that_keeps_still() -> None:
    tests = yaml.safe_load((OPS / "prometheus" / "tests" / "rules_test.yml").read_text())["tests"]
    fired, still = set(), set()
    for test in tests:
        for case in test["alert_rule_test"]:
            (fired if case["exp_alerts"] else still).add(case["alertname"])
    assert fired == still == {name for name, _ in rule_queries()}
