"""What the code sends, read from the code itself, as Prometheus will call it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.statsd_exporter import Mapping

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "include" / "ops"
MAPPING = OPS / "statsd" / "mapping.yml"
_SENDERS = {"count": "counter", "gauge": "gauge", "timing_ms": "observer"}
_SUFFIXES = {"counter": ("",), "gauge": ("",), "observer": ("_bucket", "_sum", "_count")}
_AIRFLOW = Path("airflow/_shared/observability/metrics/metrics_template.yaml")


@dataclass(frozen=True)
class Metric:
    """One metric: its series' names and the labels that it may carry (None: whatever Airflow tags it with)."""

    stat: str
    kind: str
    labels: frozenset[str] | None

    def series(self, mapping: Mapping) -> set[str]:
        name = mapping.name(self.stat, self.kind)
        assert name is not None, self.stat
        return {name + end for end in _SUFFIXES[self.kind]}


def ours() -> list[Metric]:
    """Every call of a metrics port in the library and the plugin, `**names` by what is known of them."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in [*(ROOT / "include" / "tradewind").rglob("*.py"), *(ROOT / "plugins").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            sender = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if sender not in _SENDERS or not isinstance(first, ast.Constant) or not isinstance(first.value, str):
                continue
            if not first.value.startswith("tradewind."):
                continue
            labels = {keyword.arg for keyword in node.keywords if keyword.arg not in (None, "value")}
            if any(keyword.arg is None for keyword in node.keywords):
                labels |= {"dag", "task"}
            found.setdefault((first.value, _SENDERS[sender]), set()).update(str(label) for label in labels)
    return [Metric(stat, kind, frozenset(labels)) for (stat, kind), labels in sorted(found.items())]


def airflows(site_packages: Path) -> list[Metric]:
    """What the installed Airflow declares, without its old names."""
    kinds = {"counter": "counter", "gauge": "gauge", "timer": "observer"}
    declared = yaml.safe_load((site_packages / _AIRFLOW).read_text())["metrics"]
    return [
        Metric(f"airflow.{entry['name']}", kinds[entry["type"]], None)
        for entry in declared
        if entry["type"] in kinds and "{" not in entry["name"]
    ]
