"""Settings: where they come from, what they refuse, and that a refusal says what to do without telling a secret."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError

from tradewind import settings as settings_module
from tradewind.errors import BadSetting
from tradewind.settings import PREFIX, Settings, exposed_env_file, load_settings
from tradewind.stack import with_secrets
from tradewind.stack.secrets import init_secrets

LIVE = {
    "TRADEWIND_MODE": "live",
    "TRADEWIND_LIVE_TRADING": "yes-real-money",
    "TRADEWIND_MAX_CAPITAL_QUOTE": "5000",
    "TRADEWIND_EXCHANGE_API_KEY": "k" * 64,
    "TRADEWIND_EXCHANGE_API_SECRET": "s" * 64,
    "TRADEWIND_API_READ_TOKEN": "r" * 32,
    "TRADEWIND_API_CONTROL_TOKEN": "c" * 32,
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project directory of the test's own, so that a developer's .env plays no part."""
    monkeypatch.setattr(settings_module, "PROJECT_DIR", tmp_path)
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(tmp_path / "home"))
    return tmp_path


def test_the_defaults_are_a_demo_on_the_embedded_stack() -> None:
    settings = load_settings()
    assert (settings.mode, settings.market, settings.account_id) == ("demo", "synthetic", "demo")
    assert settings.exchange_url == "http://127.0.0.1:8100"
    for name, wanted in (("", "tradewind_demo"), ("paper_", "tradewind_paper_demo"), ("airflow_", "airflow_demo")):
        reached = conninfo_to_dict(getattr(settings, f"{name}database_url").get_secret_value())
        assert (reached["dbname"], reached["require_auth"]) == (wanted, "scram-sha-256")
        assert str(reached["host"]).startswith("/")
    assert settings.cache_url.get_secret_value().startswith("unix://")
    assert settings.uses_embedded_database
    assert settings.uses_embedded_cache
    assert settings.uses_embedded_exchange
    assert settings.max_capital_quote is None


def test_environment_beats_env_file_beats_secret_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets_dir = project / "home" / "secrets"
    secrets_dir.mkdir(parents=True)
    (secrets_dir / "tradewind_gemini_api_key").write_text("from-secret-file\n")
    assert load_settings().gemini_api_key.get_secret_value() == "from-secret-file"
    (project / ".env").write_text("TRADEWIND_GEMINI_API_KEY=from-env-file\nOTHER=1\n")
    assert load_settings().gemini_api_key.get_secret_value() == "from-env-file"
    monkeypatch.setenv("TRADEWIND_GEMINI_API_KEY", "from-environment")
    assert load_settings().gemini_api_key.get_secret_value() == "from-environment"
    monkeypatch.setenv("TRADEWIND_GEMINI_API_KEY", "")
    assert load_settings().gemini_api_key.get_secret_value() == "from-env-file"
    assert load_settings(gemini_api_key="from-caller").gemini_api_key.get_secret_value() == "from-caller"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("TRADEWIND_MODE", "real", "demo"),
        ("TRADEWIND_STATUS_PORT", "99999", "65535"),
        ("TRADEWIND_STATUS_PORT", "abc", "integer"),
        ("TRADEWIND_POSTGRES_PORT", "5543", "remove it"),
        ("TRADEWIND_SYMBOLS", "BTCUSDT", "BTCUSDT"),
        ("TRADEWIND_SYMBOLS", "BTC/USDT,BTC/USDT", "twice"),
        ("TRADEWIND_SYMBOLS", ",", "no symbol"),
        ("TRADEWIND_MARKET", "replay:", "pattern"),
        ("TRADEWIND_MARKET", "public", "internet"),
        ("TRADEWIND_MARKET_STRUCTURE_FRAC", "1.5", "less than or equal to 1"),
        ("TRADEWIND_PAPER_CAPITAL_QUOTE", "-1", "greater than 0"),
        ("TRADEWIND_PAPER_CAPITAL_QUOTE", "nan", "finite"),
        ("TRADEWIND_LOG_LEVEL", "LOUD", "DEBUG"),
    ],
)
def test_a_bad_value_is_named_with_its_problem_and_an_example(
    name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting) as caught:
        load_settings()
    assert caught.value.setting == name
    assert problem in caught.value.problem
    assert "TRADEWIND_" in caught.value.example


def test_the_examples_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = set()
    for name, field in Settings.model_fields.items():
        for example in field.examples or []:
            if name in ("mode", "home_dir"):
                continue
            monkeypatch.setenv(f"TRADEWIND_{name.upper()}", example)
            accepted |= {name} & load_settings().model_fields_set
            monkeypatch.delenv(f"TRADEWIND_{name.upper()}")
    wanted = {name for name, field in Settings.model_fields.items() if field.examples}
    assert accepted == wanted - {"mode", "home_dir"}


def test_a_misspelt_setting_is_refused_with_the_right_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEWIND_MAX_CAPTIAL_QUOTE", "5000")
    with pytest.raises(BadSetting, match="did you mean TRADEWIND_MAX_CAPITAL_QUOTE"):
        load_settings()


def test_live_starts_with_everything_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIVE.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.max_capital_quote == Decimal(5000)
    assert settings.exchange_url == ""
    assert not settings.uses_embedded_exchange


@pytest.mark.parametrize("missing", sorted(LIVE.keys() - {"TRADEWIND_MODE"}))
def test_live_refuses_to_start_without(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIVE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    with pytest.raises(BadSetting) as caught:
        load_settings()
    assert caught.value.setting == missing


@pytest.mark.parametrize("value", ["changeme-changeme-changeme", "hunter2"])
def test_live_refuses_a_default_secret_without_showing_it(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, good in LIVE.items():
        monkeypatch.setenv(name, good)
    monkeypatch.setenv("TRADEWIND_EXCHANGE_API_SECRET", value)
    with pytest.raises(BadSetting, match="TRADEWIND_EXCHANGE_API_SECRET") as caught:
        load_settings()
    assert value not in str(caught.value)


def test_live_never_takes_the_paper_keys(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init_secrets(project / "home")
    assert load_settings().exchange_api_key.get_secret_value()
    for name, value in LIVE.items():
        if "EXCHANGE" not in name:
            monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting, match="TRADEWIND_EXCHANGE_API_KEY"):
        load_settings()


def test_identities_of_deployments_differ() -> None:
    demo = load_settings()
    others = [load_settings(market_seed=8), load_settings(mode="paper"), load_settings(mode="testnet")]
    others += [load_settings(mode="testnet", account_id="b"), load_settings(market="replay:/data")]
    identities = [str(settings.identity) for settings in [demo, *others]]
    assert len(set(identities)) == len(identities)
    assert load_settings(account_id="another-run").identity == demo.identity


def test_a_child_process_reads_the_same_settings(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init_secrets(project / "home")
    parent = load_settings(market_seed=9, symbols=("BTC/USDT",), exchange_port=9100, account_id="run-1")
    environment = parent.environment()
    assert not any(parent.database_password.get_secret_value() in value for value in environment.values())
    monkeypatch.delenv("TRADEWIND_HOME_DIR")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings().model_dump() == parent.model_dump()


def test_external_servers_replace_the_embedded_ones() -> None:
    settings = load_settings(database_url="postgresql://me:pw@db:5432/mine?sslmode=require", cache_url="redis://c/0")
    assert not settings.uses_embedded_database
    assert not settings.uses_embedded_cache
    airflow = settings.airflow_database_url.get_secret_value()
    assert airflow == "postgresql://me:pw@db:5432/airflow_demo?sslmode=require&require_auth=scram-sha-256"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:pw@db:5432/mine?require_auth=md5",
        "postgresql://me@db:5432/mine",
        "postgresql:///mine?host=/var/run/postgresql",
        "postgresql://me:pw@/mine?host=/var/run/postgresql",
    ],
)
def test_a_server_that_is_given_with_its_own_rule_or_no_password_keeps_its_url(url: str) -> None:
    assert load_settings(database_url=url).database_url.get_secret_value() == url


def test_no_secret_shows_in_print_and_nothing_changes_later(project: Path) -> None:
    made = init_secrets(project / "home")
    assert made
    assert init_secrets(project / "home") == []
    settings = load_settings()
    for path in (project / "home" / "secrets").iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert path.read_text() not in repr(settings)
    with pytest.raises(ValidationError):
        settings.mode = "live"


def test_the_example_file_is_accepted_when_every_line_is_taken(project: Path) -> None:
    """Its commented lines too, except what only a live or external deployment may set."""
    example = Path(__file__).parents[1] / ".env.example"
    lines = [line.removeprefix("#") for line in example.read_text().splitlines() if line.lstrip("#").startswith(PREFIX)]
    assert len(lines) > 25
    (project / ".env").write_text("\n".join(lines))
    assert load_settings().mode == "demo"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_live_does_not_start_with_an_env_file_that_others_may_read_or_change(
    mode: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project / ".env"
    path.write_text("".join(f"{name}={value}\n" for name, value in LIVE.items()))
    path.chmod(mode)
    with pytest.raises(BadSetting, match=r"chmod 600 .*\.env") as caught:
        with_secrets()
    assert load_settings().mode == "live", "what runs already goes on protecting"
    assert not [value for name, value in LIVE.items() if "API" in name and value in str(caught.value)]
    path.chmod(0o600)
    assert with_secrets().mode == "live"


def test_an_env_file_without_secrets_may_be_read_by_others(project: Path) -> None:
    path = project / ".env"
    path.write_text("TRADEWIND_MODE=demo\n")
    path.chmod(0o644)
    assert exposed_env_file() == ""
    path.write_text("TRADEWIND_GEMINI_API_KEY=0123456789abcdef\n")  # pragma: allowlist secret
    assert "TRADEWIND_GEMINI_API_KEY" in exposed_env_file()
    assert load_settings().mode == "demo"


def test_live_asks_each_part_for_its_own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIVE.items():
        monkeypatch.setenv(name, value)
    for name in ("TRADEWIND_EXCHANGE_API_KEY", "TRADEWIND_EXCHANGE_API_SECRET"):
        monkeypatch.delenv(name)
    for part in ("all", "trading"):
        with pytest.raises(BadSetting, match="TRADEWIND_EXCHANGE_API_KEY"):
            load_settings(part=part)
    assert load_settings(part="status").mode == "live"
    monkeypatch.delenv("TRADEWIND_API_CONTROL_TOKEN")
    with pytest.raises(BadSetting, match="TRADEWIND_API_CONTROL_TOKEN"):
        load_settings(part="status")
    assert load_settings(part="other").mode == "live"


def test_live_never_sends_keys_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LIVE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting, match="encryption"):
        load_settings(exchange_url="http://exchange:8100")
    assert load_settings(exchange_url="https://api.example").mode == "live"


@pytest.mark.parametrize("line", ["TRADEWIND_MODE live", "TRADEWIND_MODE", "TRADEWIND_MODE='live"])
def test_a_line_of_the_env_file_that_gives_no_value_is_refused(project: Path, line: str) -> None:
    """It would otherwise be passed over, and the mode be the default."""
    (project / ".env").write_text(f"TRADEWIND_MARKET_SEED=8\n{line}\n")
    with pytest.raises(BadSetting, match=r"\.env: line 2 gives no value"):
        load_settings()


def test_a_line_that_is_another_programs_is_none_of_ours(project: Path) -> None:
    (project / ".env").write_text("COMPOSE_PROFILES demo\nTRADEWIND_MARKET_SEED=8\n")
    assert load_settings().market_seed == 8


def test_an_env_file_that_is_no_text_is_refused(project: Path) -> None:
    (project / ".env").write_bytes(b"TRADEWIND_MARKET_SEED=8\n# caf\xe9\n")
    with pytest.raises(BadSetting, match="is no text in UTF-8"):
        load_settings()


def test_the_leader_is_bitcoin_in_the_accounts_currency() -> None:
    assert load_settings().default_leader == "BTC/USDT"
    assert load_settings(quote_currency="EUR", symbols=("ETH/EUR",)).default_leader == "BTC/EUR"
