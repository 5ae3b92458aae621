"""docker-compose.yaml, read as YAML and held to its rules: no engine is needed to know that it is safe."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from tradewind import stack
from tradewind.settings import PREFIX, PROJECT_DIR, Settings
from tradewind.stack.compose_secrets import OPTIONAL, compose_files, init_compose_secrets
from tradewind.stack.deploy import require
from tradewind.stack.environment import airflow_environment

OPS = PROJECT_DIR / "include" / "ops"
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT_DIR / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"init", "account"}
# The processes that trade, and so the only ones that hold keys of an exchange account.
TRADING = {"trading-worker", "triggerer"}
every_service = pytest.mark.parametrize("name", SERVICES)


def secrets_of(service: dict[str, Any]) -> dict[str, str]:
    """Source to the name under /run/secrets."""
    given = [{"source": s, "target": s} if isinstance(s, str) else s for s in service.get("secrets", [])]
    return {secret["source"]: secret["target"] for secret in given}


def queues_of(name: str) -> set[str]:
    command = SERVICES[name]["command"]
    return set(command[command.index("-q") + 1].split(","))


# -------------------------------------------------------------------------------------------------------- every service
@every_service
def test_it_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "network_mode", "devices"} & service.keys()
    user = int(service["user"].split(":")[0])
    assert user > 0
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))


@every_service
def test_it_is_watched_restarted_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= service["healthcheck"].keys()
    assert service["restart"] == ("on-failure:3" if name in ONE_SHOT else "unless-stopped")
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory"} <= limits.keys()


@every_service
def test_its_image_is_pinned(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?", tag)


@every_service
def test_it_publishes_on_loopback_alone_and_each_port_can_be_moved(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+:-\d+\}:\d+", port)


@every_service
def test_no_secret_stands_in_its_environment_or_command(name: str) -> None:
    service = SERVICES[name]
    secret_settings = {
        PREFIX + field.upper() for field, info in Settings.model_fields.items() if info.annotation is SecretStr
    }
    for variable, value in service.get("environment", {}).items():
        assert variable not in secret_settings
        if re.search(r"PASSWORD|SECRET|TOKEN|FERNET|_CONN|_URL", variable) and "://" in str(value):
            assert "@" not in str(value)
        if re.search(r"PASSWORD|SECRET_KEY|JWT_SECRET|FERNET_KEY|SQL_ALCHEMY_CONN|BROKER_URL|RESULT_BACKEND", variable):
            assert variable.endswith(("_CMD", "_FILE", "__FILE"))
            assert "/run/secrets/" in value
    assert not re.search(
        r"passw(or)?d?[=:]|requirepass|secret=|token=|://[^ ]*@", " ".join(map(str, service.get("command", [])))
    )


@every_service
def test_its_dependencies_name_their_condition(name: str) -> None:
    needs = SERVICES[name].get("depends_on", {})
    for needed, how in needs.items():
        assert needed in SERVICES
        wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert how["condition"] == wanted
        # A service of a profile may be absent, and must not be missed then.
        if SERVICES[needed].get("profiles") and SERVICES[needed].get("profiles") != SERVICES[name].get("profiles"):
            assert how["required"] is False


# --------------------------------------------------------------------------------------------------------- the whole
def test_nothing_is_missing() -> None:
    assert set(SERVICES) == {
        "postgres", "redis", "init", "api-server", "scheduler", "dag-processor", "triggerer", "trading-worker",
        "training-worker", "airflow-maintenance", "status", "lookout", "exchange", "account", "statsd-exporter",
        "prometheus", "grafana", "flower",
    }  # fmt: skip
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["demo"]} == {
        "exchange",
        "account",
    }
    assert SERVICES["flower"]["profiles"] == ["flower"]
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {volume for volume in used if not volume.startswith("./")} == set(COMPOSE["volumes"])
    for path in (volume for volume in used if volume.startswith("./")):
        assert (PROJECT_DIR / path).exists(), path


def test_every_setting_of_a_deployment_is_passed_on() -> None:
    """What .env.example names means the same here; addresses, ports and secrets are the compose file's own."""
    documented = set(re.findall(r"^#?(TRADEWIND_\w+)=", (PROJECT_DIR / ".env.example").read_text(), re.MULTILINE))
    own = {
        name for name in documented if name.endswith(("_PORT", "_HOST", "_DIR", "DATABASE_URL", "CACHE_URL", "_PART"))
    }
    secret = {PREFIX + n.upper() for n, f in Settings.model_fields.items() if "SecretStr" in str(f.annotation)}
    given = SERVICES["lookout"]["environment"]
    assert documented - own - secret <= given.keys()
    for name in documented - own - secret:
        assert f"${{{name}" in given[name], name


def test_the_databases_have_no_way_out() -> None:
    assert COMPOSE["networks"]["inner"] == {"internal": True}
    for name in ("postgres", "redis", "init", "scheduler", "dag-processor", "statsd-exporter", "airflow-maintenance"):
        assert SERVICES[name]["networks"] == ["inner"], name
        assert "ports" not in SERVICES[name]


def test_the_exchange_answers_other_containers() -> None:
    """Its clock is the demo's clock, in every container; its admin side alone would answer this one only."""
    command = SERVICES["exchange"]["command"]
    assert command[command.index("--admin-from") + 1] == "anywhere"
    assert command[command.index("--host") + 1] == "0.0.0.0"
    for name in TRADING | {"training-worker", "status", "lookout", "account", "exchange"}:
        assert "exchange_admin_token" in secrets_of(SERVICES[name]), name


def test_airflow_waits_for_the_metrics_exporter() -> None:
    for name, service in SERVICES.items():
        if service["image"].startswith("tradewind:") and "AIRFLOW__METRICS__STATSD_ON" in service["environment"]:
            assert "statsd-exporter" in service["depends_on"], name


def test_secrets_are_files_that_the_command_makes_and_all_are_used(tmp_path: Path) -> None:
    settings = stack.with_secrets(home_dir=tmp_path)
    made = init_compose_secrets(settings)
    assert set(made) == set(COMPOSE["secrets"])
    assert init_compose_secrets(settings) == []
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"${{TRADEWIND_HOME_DIR:-./.tradewind}}/compose/{name}"}
    mounted = {source for service in SERVICES.values() for source in secrets_of(service)}
    assert mounted == set(COMPOSE["secrets"])
    directory = tmp_path / "compose"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        assert path.read_text().strip() or path.name in OPTIONAL


def test_a_persons_own_secret_is_kept(tmp_path: Path) -> None:
    settings = stack.with_secrets(home_dir=tmp_path)
    init_compose_secrets(settings)
    path = tmp_path / "compose" / "exchange_api_key"
    path.chmod(0o600)
    path.write_text("mine")
    init_compose_secrets(settings)
    assert path.read_text() == "mine"


def test_the_containers_read_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each container's /run/secrets and environment, put together as the engine does, make settings that load."""
    settings = stack.with_secrets(home_dir=tmp_path)
    init_compose_secrets(settings)
    for name in ("init", "triggerer", "trading-worker", "training-worker", "status", "lookout", "exchange", "account"):
        run_secrets = tmp_path / name
        run_secrets.mkdir()
        for source, target in secrets_of(SERVICES[name]).items():
            (run_secrets / target).write_text((tmp_path / "compose" / source).read_text())
        with monkeypatch.context() as patch:
            for variable, value in SERVICES[name]["environment"].items():
                if variable.startswith(PREFIX):
                    patch.setenv(variable, re.sub(r"\$\{[A-Z_]+:?-((?:[^{}]|\$\{[^}]*\})*)\}", r"\1", value))
            patch.setenv("TRADEWIND_HOME_DIR", str(tmp_path / "nothing-here"))
            patch.setenv("TRADEWIND_STATUS_PAGE_URL", "http://127.0.0.1:8090")
            patch.setattr("tradewind.settings._RUN_SECRETS", run_secrets)
            loaded = stack.stack.load_settings()
        assert loaded.mode == "demo"
        if name == "init":
            require(loaded, ["administrator_database_url", "airflow_password", "database_url"])
            assert loaded.keeps_paper_exchange
        if name in TRADING | {"account"}:
            assert loaded.exchange_api_key == settings.exchange_api_key
        if name == "status":
            assert "tradewind_status:" in loaded.database_url.get_secret_value()
            assert loaded.api_control_token_digest == settings.api_control_token_digest


def test_keys_are_where_trading_is() -> None:
    for name, service in SERVICES.items():
        held = secrets_of(service)
        has_keys = "exchange_api_key" in held or "exchange_api_secret" in held
        assert has_keys == (name in TRADING), name
        assert ("administrator_database_url" in held) == (name == "init"), name
        assert ("postgres_password" in held) == (name == "postgres"), name
        # The owner of the schema migrates it; nobody works as the owner.
        assert ("database_url" in held) == (name == "init"), name
        # The status app compares the token with its hash, and cannot sign what nobody sent it.
        assert ("api_control_token" in held) == (name == "init"), name
        assert ("api_control_token_digest" in held) == (name == "status"), name
        assert ("gemini_api_key" in held) == (name == "training-worker"), name
        if service["image"].startswith("tradewind:") and name != "init":
            part = service["environment"]["TRADEWIND_PART"]
            expected = "trading" if name in TRADING | {"account"} else "status" if name == "status" else "other"
            assert part == expected, name


def test_tasks_work_as_the_writer() -> None:
    values = {name: f"value-of-{name}" for name in _plain_secret_names()}
    files = compose_files(values, "demo")
    assert "tradewind_writer:value-of-writer_database_password@" in files["airflow_connections.json"]
    assert "value-of-database_password" not in files["airflow_connections.json"]
    assert files["redis.conf"].startswith("requirepass value-of-cache_password\n")


def _plain_secret_names() -> list[str]:
    from tradewind.stack.secrets import _MAKERS

    return list(_MAKERS)


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    from tradewind.errors import BadSetting

    settings = stack.with_secrets(home_dir=tmp_path)
    with pytest.raises(BadSetting, match="TRADEWIND_ADMINISTRATOR_DATABASE_URL: is missing"):
        require(settings, ["airflow_password", "administrator_database_url"])


# ------------------------------------------------------------------------------------------------------------- Airflow
def test_airflow_is_tuned_as_the_embedded_one(tmp_path: Path) -> None:
    """What the embedded stack measured holds here too; where it differs is listed with the reason above it."""
    embedded = airflow_environment(stack.with_secrets(home_dir=tmp_path))
    here = SERVICES["scheduler"]["environment"]
    differing = {
        # Celery's executor, in containers: other places, other names, files instead of values.
        "CORE__DAGS_FOLDER", "CORE__PLUGINS_FOLDER", "CORE__EXECUTOR", "CORE__PARALLELISM",
        "CORE__EXECUTION_API_SERVER_URL", "API__HOST", "API__BASE_URL", "API__WORKER_TIMEOUT",
        "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", "LOGGING__BASE_LOG_FOLDER", "LOGGING__LOGGING_LEVEL",
        "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY", "SCHEDULER__ENABLE_HEALTH_CHECK",
        "CORE__FERNET_KEY", "DATABASE__SQL_ALCHEMY_CONN", "API__SECRET_KEY", "API_AUTH__JWT_SECRET",
        # The SimpleAuthManager is for the embedded stack alone.
        "CORE__SIMPLE_AUTH_MANAGER_USERS", "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    }  # fmt: skip
    for name, value in embedded.items():
        option = name.removeprefix("AIRFLOW__")
        if name.startswith("AIRFLOW__") and option not in differing:
            assert here.get(name) == value, name
    for option in ("CORE__FERNET_KEY", "DATABASE__SQL_ALCHEMY_CONN", "API__SECRET_KEY", "API_AUTH__JWT_SECRET"):
        assert here[f"AIRFLOW__{option}_CMD"].startswith("cat /run/secrets/")


def test_the_users_come_from_the_fab_auth_manager() -> None:
    manager = SERVICES["api-server"]["environment"]["AIRFLOW__CORE__AUTH_MANAGER"]
    assert manager == "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
    assert "apache-airflow-providers-fab==" in (OPS / "requirements-image.txt").read_text()
    assert "airflow_password" in secrets_of(SERVICES["init"])


def test_every_package_of_the_image_is_pinned_with_hashes() -> None:
    for lock in (PROJECT_DIR / "requirements.txt", OPS / "requirements-image.txt"):
        blocks = re.split(r"(?m)^(?=[a-z0-9])", lock.read_text())[1:]
        assert blocks
        for block in blocks:
            assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==", block), block[:80]
            assert "--hash=sha256:" in block, block[:80]
    dockerfile = (OPS / "Dockerfile").read_text()
    # The lock leaves out what nobody needs, which pip would look for in vain.
    assert dockerfile.count("pip install") == dockerfile.count("--no-deps --require-hashes") == 2
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"apache/airflow:3.3.2-python3.12"}
    assert "USER 50000:0" in dockerfile.split("FROM")[-1]


def test_the_auth_manager_has_all_it_imports() -> None:
    """A package that requirements.txt names for no platform at all must stand in the image's own lock."""
    image = (OPS / "requirements-image.txt").read_text()
    assert {"flask-appbuilder==", "flask-babel==", "pytz=="} <= set(re.findall(r"(?m)^[a-z0-9-]+==", image))
    assert "sys_platform" not in image


def test_the_image_brings_what_a_wheel_expects_of_the_system() -> None:
    """LightGBM's links OpenMP, which Airflow's image has not; and nothing is fetched but from its own sources."""
    dockerfile = (OPS / "Dockerfile").read_text()
    assert "libgomp1" in dockerfile.split("FROM")[-1]
    assert "# syntax=" not in dockerfile


def test_no_secret_goes_into_the_image() -> None:
    ignored = (PROJECT_DIR / ".dockerignore").read_text().split()
    assert {".tradewind/", ".env", ".git/"} <= set(ignored)
    copied = re.findall(r"^COPY (?:--from=\S+ )?(.+)$", (OPS / "Dockerfile").read_text(), re.MULTILINE)
    assert "." not in {source for line in copied for source in line.split()[:-1]}


# -------------------------------------------------------------------------------------------------------- where it can
def test_docker_compose_accepts_it(tmp_path: Path) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
    environment["TRADEWIND_HOME_DIR"] = str(tmp_path)
    try:
        found = subprocess.run(["docker", "compose", "version"], env=environment, capture_output=True, check=False)
    except FileNotFoundError:
        found = None
    if found is None or found.returncode != 0:
        pytest.skip("docker compose is not installed here; the rules above were still checked")
    for profiles in ([], ["--profile", "demo"], ["--profile", "flower"]):
        done = subprocess.run(
            ["docker", "compose", *profiles, "config", "-q"],
            cwd=PROJECT_DIR, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "variable is not set" not in done.stderr


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if hadolint is None:
        pytest.skip("hadolint is not installed here")
    done = subprocess.run([hadolint, OPS / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
