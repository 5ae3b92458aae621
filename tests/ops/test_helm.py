"""The Kubernetes files: YAML, of the chart's documented keys, and held to the same rules as docker-compose.yaml."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.ops.test_compose import COMPOSE, OPS, SERVICES, queues_of
from tradewind.settings import PREFIX, Settings

VALUES: dict[str, Any] = yaml.safe_load((OPS / "helm" / "values.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((OPS / "helm" / "tradewind.yaml").read_text()))
PODS = {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in MANIFESTS if "template" in m.get("spec", {})}
# What chart 1.22 documents and these files may use.
TOP = {
    "airflowVersion", "apiSecretKeySecretName", "apiServer", "config", "createUserJob", "dagProcessor", "data",
    "databaseCleanup", "defaultAirflowRepository", "defaultAirflowTag", "env", "executor", "fernetKeySecretName",
    "jwtSecretName", "migrateDatabaseJob", "networkPolicies", "postgresql", "redis", "scheduler", "securityContexts",
    "statsd", "triggerer", "volumeMounts", "volumes", "workers",
}  # fmt: skip
SET = {
    "name", "queue", "replicas", "env", "extraVolumeMounts", "resources", "terminationGracePeriodSeconds", "keda",
}  # fmt: skip
KEDA = {"enabled", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod", "query"}
SETS = {entry["name"]: entry for entry in VALUES["workers"]["celery"]["sets"]}


def test_only_documented_keys_are_used() -> None:
    assert VALUES.keys() <= TOP
    assert VALUES["workers"].keys() == {"celery"}
    assert VALUES["workers"]["celery"].keys() <= {"enableDefault", "persistence", "sets"}
    for entry in SETS.values():
        assert entry.keys() <= SET
        assert entry.get("keda", {}).keys() <= KEDA


def test_the_queues_are_those_of_compose() -> None:
    assert VALUES["workers"]["celery"]["enableDefault"] is False
    assert {name: set(entry["queue"].split(",")) for name, entry in SETS.items()} == {
        "trading": queues_of("trading-worker"),
        "training": queues_of("training-worker"),
    }


def test_training_alone_is_scaled_by_what_waits() -> None:
    assert "keda" not in SETS["trading"]
    keda = SETS["training"]["keda"]
    assert (keda["enabled"], keda["minReplicaCount"]) == (True, 0)
    named = set(re.findall(r"'([a-z]+)'", keda["query"].split("queue IN")[1]))
    assert named == queues_of("training-worker")


@pytest.mark.parametrize("section", ["operators", "celery", "celery_broker_transport_options", "scheduler", "core"])
def test_airflow_is_configured_as_in_compose(section: str) -> None:
    environment = SERVICES["scheduler"]["environment"]
    own = {"dags_folder", "plugins_folder", "parallelism", "worker_concurrency"}
    for option, value in VALUES["config"][section].items():
        if option not in own:
            assert environment[f"AIRFLOW__{section.upper()}__{option.upper()}"] == str(value), option


def test_no_secret_is_written_here() -> None:
    text = "".join((OPS / "helm" / name).read_text() for name in ("values.yaml", "tradewind.yaml"))
    assert not re.search(r"://[^\s:/]+:[^\s@]+@", text)
    secret = {f"{PREFIX}{n.upper()}" for n, f in Settings.model_fields.items() if "SecretStr" in str(f.annotation)}
    named = {entry["name"] for entry in VALUES["env"]}
    for pod in PODS.values():
        named |= {entry["name"] for container in pod["containers"] for entry in container["env"]}
    assert not named & secret
    for variable in (name for name in named if name.startswith(PREFIX)):
        assert variable.removeprefix(PREFIX).lower() in Settings.model_fields


def test_every_file_that_is_mounted_is_one_that_is_made() -> None:
    mounts = [*VALUES["volumeMounts"], *VALUES["triggerer"]["extraVolumeMounts"]]
    mounts += [mount for pod in PODS.values() for container in pod["containers"] for mount in container["volumeMounts"]]
    for mount in mounts:
        if "subPath" in mount:
            assert mount["subPath"] in COMPOSE["secrets"]
            assert mount["readOnly"] is True


def test_keys_are_where_trading_is() -> None:
    holding = [name for name, entry in SETS.items() if "exchange_api_key" in str(entry)]
    assert holding == ["trading"]
    assert "exchange_api_key" in str(VALUES["triggerer"])
    for part in ("scheduler", "apiServer", "dagProcessor", "volumeMounts"):
        assert "exchange_api" not in str(VALUES[part])
    assert "exchange_api" not in str(PODS)


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_hardened(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert not container["image"].endswith(":latest")
    assert VALUES["securityContexts"]["containers"]["capabilities"] == {"drop": ["ALL"]}
