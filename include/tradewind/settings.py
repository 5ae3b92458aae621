"""The only reader of the environment.

A setting comes, in this order, from `TRADEWIND_<NAME>` in the environment, from `.env` beside the repository, from a
secret file named `tradewind_<name>` in `.tradewind/secrets/` or `/run/secrets/`, or from its default here.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

from pydantic import AwareDatetime, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tradewind.addresses import cache_socket, cache_url, postgres_url, socket_dir, with_scram
from tradewind.env_file import env_file_faults, env_file_problem, env_file_values
from tradewind.errors import BadSetting

PROJECT_DIR = Path(__file__).resolve().parents[2]
STRATEGY_FILE = PROJECT_DIR / "include" / "strategy.toml"
PREFIX = "TRADEWIND_"
LIVE_CONFIRMATION = "yes-real-money"
_RUN_SECRETS = Path("/run/secrets")
# Made by `stack.secrets` for processes of the stack itself; no task ever needs them.
STACK_ONLY = frozenset(
    {
        "postgres_password",
        "administrator_database_url",
        "airflow_database_url",
        "airflow_database_password",
        "paper_database_url",
        "paper_database_password",
        "airflow_fernet_key",
        "airflow_jwt_secret",
        "airflow_secret_key",
        "airflow_password",
        "status_database_url",
        "status_database_password",
        "writer_database_url",
        "writer_database_password",
        "api_read_token",
        "api_control_token",
        "api_control_token_digest",
        "api_session_key",
    }
)
# The embedded PostgreSQL and Valkey listen on no port any more.
_RETIRED = (f"{PREFIX}POSTGRES_PORT", f"{PREFIX}CACHE_PORT")
_PLACEHOLDERS = ("changeme", "change-me", "example", "default", "password", "secret", "your-", "xxx")
_SHORTEST_LIVE_SECRET = 16

Mode = Literal["demo", "paper", "testnet", "live"]
# Where processes are spread over containers each is given its own secrets only: those that trade have the exchange's
# keys, the status app has the tokens, others have neither.
Part = Literal["all", "trading", "status", "other"]
# All give market data; orders are sent to Binance, okx, bybit, bitget and the paper exchange (Binance to clients).
Exchange = Literal["binance", "bybit", "okx", "bitget", "kraken", "coinbase"]
Strings = Annotated[tuple[str, ...], NoDecode]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode]
Port = Annotated[int, Field(ge=1, le=65535)]
NO_SECRET = SecretStr("")


class Settings(BaseSettings):
    """What this deployment is and where its servers are. Frozen; addresses that were not given are derived."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, validate_default=True
    )

    # What is traded, and with whose money.
    mode: Mode = Field("demo", examples=["demo", "paper", "testnet", "live"])
    exchange: Exchange = Field("binance", examples=["binance"])
    market_type: Literal["spot", "usdm"] = Field("spot", examples=["spot", "usdm"])
    symbols: Strings = Field(
        ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT"), examples=["BTC/USDT,ETH/USDT"]
    )
    quote_currency: str = Field("USDT", pattern=r"^[A-Z0-9]{2,10}$", examples=["USDT"])
    account_id: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,40}$", examples=["main"])
    live_trading: str = Field("", examples=[LIVE_CONFIRMATION])
    max_capital_quote: Decimal | None = Field(None, gt=0, examples=["5000"])
    paper_capital_quote: Decimal = Field(Decimal(10_000), gt=0, examples=["10000"])

    # The paper exchange's market.
    market: str = Field("", pattern=r"^(|synthetic|public|replay:.+)$", examples=["synthetic", "replay:/data/candles"])
    market_seed: int = Field(7, ge=0, examples=["7"])
    market_structure_frac: float = Field(1.0, ge=0, le=1, examples=["1.0"])
    # The real exchange's public API, for the market `public`: polled so often, and closed when silent for so long.
    public_market_url: str = Field(
        "https://api.binance.com", pattern=r"^https?://.+$", examples=["https://data-api.binance.vision"]
    )
    public_poll_s: float = Field(1.0, ge=0.1, le=60, examples=["1.0"])
    public_stale_s: float = Field(10.0, ge=1, le=600, examples=["10.0"])
    # Where a new paper market's clock stands, stepped by hand from there; without it the market runs with the wall.
    market_start: AwareDatetime | None = Field(None, examples=["2026-01-05T00:00:00+00:00"])

    # State and servers.
    part: Part = Field("all", examples=["all", "trading", "status", "other"])
    home_dir: Path = Field(PROJECT_DIR / ".tradewind", examples=["/var/lib/tradewind"])
    database_url: SecretStr = Field(NO_SECRET, examples=["postgresql://user:password@db.example:5432/tradewind_live"])
    # The same database through roles with fewer rights; without them an external server sees the owner's role alone.
    writer_database_url: SecretStr = Field(
        NO_SECRET, examples=["postgresql://tradewind_writer:password@db.example:5432/tradewind_live"]
    )
    status_database_url: SecretStr = Field(
        NO_SECRET, examples=["postgresql://tradewind_status:password@db.example:5432/tradewind_live"]
    )
    # Who may make databases and roles on an external server; needed at the first start there, and after an upgrade.
    administrator_database_url: SecretStr = Field(
        NO_SECRET, examples=["postgresql://postgres:password@db.example:5432/postgres"]
    )
    paper_database_url: SecretStr = Field(NO_SECRET, examples=["postgresql://user:password@db.example:5432/paper"])
    airflow_database_url: SecretStr = Field(NO_SECRET, examples=["postgresql://user:password@db.example:5432/airflow"])
    cache_url: SecretStr = Field(NO_SECRET, examples=["redis://:password@cache.example:6379/0"])
    exchange_url: str = Field("", pattern=r"^(|https?://.+)$", examples=["http://127.0.0.1:8100"])
    exchange_api_key: SecretStr = Field(NO_SECRET, examples=["<the key that the exchange gave you>"])
    exchange_api_secret: SecretStr = Field(NO_SECRET, examples=["<the secret that the exchange gave you>"])
    exchange_api_passphrase: SecretStr = Field(NO_SECRET, examples=["<okx and bitget: what you chose for the key>"])
    exchange_admin_token: SecretStr = Field(NO_SECRET, examples=["<made by ./tradewind secrets init>"])
    model_url: str = Field("", pattern=r"^(|[a-z0-9+]+://.+)$", examples=["file:///var/lib/tradewind/models"])
    history_months: int = Field(6, ge=1, le=120, examples=["6"])
    # How long decided bars are kept of which no entry came; those with an entry are kept for ever.
    decisions_kept_days: int = Field(400, ge=30, le=36_500, examples=["400"])

    # News.
    news_feeds: Strings = Field((), examples=["https://news.example/rss,file:///srv/feed.xml"])
    gemini_api_key: SecretStr = Field(NO_SECRET, examples=["<a key from Google AI Studio>"])
    gemini_model: str = Field("gemini-2.5-flash", min_length=1, examples=["gemini-2.5-flash"])
    gemini_daily_budget_usd: Decimal = Field(Decimal(1), ge=0, examples=["1.00"])
    # What a million tokens of the model cost; thinking counts as answering.
    gemini_prompt_usd_per_million: Decimal = Field(Decimal("0.30"), ge=0, examples=["0.30"])
    gemini_answer_usd_per_million: Decimal = Field(Decimal("2.50"), ge=0, examples=["2.50"])

    # Who watches, and who may ask.
    statsd_host: str = Field("", examples=["127.0.0.1"])
    statsd_port: Port = Field(8125, examples=["8125"])
    alert_urls: Secrets = Field((), examples=["tgram://bottoken/ChatID"])
    # UTC; within these hours info and warning wait, critical alerts do not.
    alert_quiet_hours: str = Field("", pattern=r"^(|\d{2}:\d{2}-\d{2}:\d{2})$", examples=["22:00-07:00"])
    summary_hour_utc: int = Field(6, ge=0, le=23, examples=["6"])
    dead_man_url: SecretStr = Field(NO_SECRET, examples=["https://hc-ping.example/uuid"])
    api_read_token: SecretStr = Field(NO_SECRET, examples=["<made by ./tradewind secrets init>"])
    api_control_token: SecretStr = Field(NO_SECRET, examples=["<made by ./tradewind secrets init>"])
    api_session_key: SecretStr = Field(NO_SECRET, examples=["<made by ./tradewind secrets init>"])
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", examples=["INFO"])

    # Ports of the embedded stack, all on 127.0.0.1; PostgreSQL and Valkey have none.
    exchange_port: Port = Field(8100, examples=["8100"])
    airflow_port: Port = Field(8080, examples=["8080"])
    status_port: Port = Field(8090, examples=["8090"])

    # Where a browser reaches the status page, when that is not this machine: for links in Airflow and in alerts.
    status_page_url: str = Field("", pattern=r"^(|https?://.+)$", examples=["https://tradewind.example"])

    # Airflow.
    airflow_url: str = Field("", pattern=r"^(|https?://.+)$", examples=["http://127.0.0.1:8080"])
    airflow_username: str = Field("admin", min_length=1, examples=["admin"])
    airflow_password: SecretStr = Field(NO_SECRET, examples=["<made by ./tradewind secrets init>"])

    # SHA-256 of the control token, in hex: all that the status app needs of it. Derived where the token is given.
    api_control_token_digest: SecretStr = NO_SECRET

    # Generated once by `stack.secrets`.
    postgres_password: SecretStr = NO_SECRET
    database_password: SecretStr = NO_SECRET
    writer_database_password: SecretStr = NO_SECRET
    status_database_password: SecretStr = NO_SECRET
    paper_database_password: SecretStr = NO_SECRET
    airflow_database_password: SecretStr = NO_SECRET
    cache_password: SecretStr = NO_SECRET
    paper_api_key: SecretStr = NO_SECRET
    paper_api_secret: SecretStr = NO_SECRET
    airflow_fernet_key: SecretStr = NO_SECRET
    airflow_jwt_secret: SecretStr = NO_SECRET
    airflow_secret_key: SecretStr = NO_SECRET

    @field_validator("symbols", "news_feeds", "alert_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("home_dir")
    @classmethod
    def _make_absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _check_and_derive(self) -> Self:
        self._check_symbols()
        self._derive()
        if self.mode == "live":
            self._check_live()
        return self

    @property
    def is_paper_exchange(self) -> bool:
        """Whether orders go to our own paper exchange, so that no real money can move."""
        return self.mode in ("demo", "paper")

    @property
    def uses_embedded_database(self) -> bool:
        return "database_url" not in self.model_fields_set

    @property
    def uses_embedded_cache(self) -> bool:
        return "cache_url" not in self.model_fields_set

    @property
    def uses_embedded_exchange(self) -> bool:
        return self.is_paper_exchange and "exchange_url" not in self.model_fields_set

    @property
    def keeps_paper_exchange(self) -> bool:
        """Whether the paper exchange's database is this deployment's own, to be made and backed up with ours."""
        return self.uses_embedded_exchange or (self.is_paper_exchange and "paper_database_url" in self.model_fields_set)

    @property
    def default_leader(self) -> str:
        """The market leader, unless the strategy names another one: bitcoin in the account's quote currency."""
        return f"BTC/{self.quote_currency}"

    @property
    def secrets_dir(self) -> Path:
        return self.home_dir / "secrets"

    @property
    def identity(self) -> dict[str, str]:
        """What the database is stamped with; another deployment's database is refused by it."""
        identity = {
            "mode": self.mode,
            "exchange": self.exchange,
            "market_type": self.market_type,
            "market": self.market,
        }
        if self.market == "synthetic":
            return identity | {"seed": str(self.market_seed), "structure": str(self.market_structure_frac)}
        return identity if self.mode == "demo" else identity | {"account": self.account_id}

    def environment(self, also: frozenset[str] = frozenset()) -> dict[str, str]:
        """`TRADEWIND_*` variables from which another process of this deployment reads the same settings.

        Left out are the stack's own secrets, except those named in `also`: no task needs them. So is whatever the
        secret files say as well.
        """
        given = {"mode", "home_dir", "account_id", "market"} | self.model_fields_set
        texts = {name: _text(getattr(self, name)) for name in sorted(given - (STACK_ONLY - also))}
        return {PREFIX + name.upper(): text for name, text in texts.items() if self._secret_file(name) != text}

    def on_record(self) -> dict[str, str]:
        """What a stack writes down of its settings for the commands of other shells: all that was given, no secret."""
        return {name: self.text_of(name) for name in sorted(self.model_fields_set - SECRET_FIELDS)}

    def text_of(self, name: str) -> str:
        """A field as the environment would give it."""
        return _text(getattr(self, name))

    @property
    def database_place(self) -> str:
        """Where our own database is, without its user and password; "" for the embedded one."""
        if self.uses_embedded_database:
            return ""
        parts = urlsplit(self.database_url.get_secret_value())
        host = parts.hostname or parse_qs(parts.query).get("host", ["localhost"])[0]
        return f"{host}:{parts.port or 5432}{parts.path}"

    @property
    def exchange_key_sha256(self) -> str:
        """Tells one key of the exchange, and so one account there, from another; "" without a key."""
        key = self.exchange_api_key.get_secret_value()
        return hashlib.sha256(key.encode()).hexdigest() if key else ""

    def _secret_file(self, name: str) -> str | None:
        path = self.secrets_dir / (PREFIX + name.upper()).lower()
        text = path.read_text(encoding="utf-8").strip() if path.is_file() else None
        return with_scram(text) if text and name.endswith("database_url") else text

    def _check_symbols(self) -> None:
        if not self.symbols:
            raise BadSetting("TRADEWIND_SYMBOLS", "names no symbol", _example("symbols"))
        for symbol in self.symbols:
            base, slash, quote_currency = symbol.partition("/")
            if not (slash and base.isalnum() and base.isupper()) or quote_currency != self.quote_currency:
                problem = f"{symbol!r} is not a pair against {self.quote_currency}, such as BTC/{self.quote_currency}"
                raise BadSetting("TRADEWIND_SYMBOLS", problem, _example("symbols"))
        if len(set(self.symbols)) != len(self.symbols):
            raise BadSetting("TRADEWIND_SYMBOLS", "names a symbol twice", _example("symbols"))

    def _derive(self) -> None:
        """Fill what was not given. The model is frozen for everybody else, so this writes past its guard."""
        if self.is_paper_exchange and self.exchange != "binance":
            problem = f"is {self.exchange!r}, but the paper exchange of mode {self.mode} speaks Binance's dialect"
            raise BadSetting("TRADEWIND_EXCHANGE", problem, "TRADEWIND_EXCHANGE=binance")
        default_market = {"demo": "synthetic", "paper": "public"}.get(self.mode, "exchange")
        if not self.is_paper_exchange and self.market:
            problem = f"is {self.market!r}, but {self.mode} trades the exchange's own market"
            raise BadSetting("TRADEWIND_MARKET", problem, "TRADEWIND_MODE=demo with TRADEWIND_MARKET=synthetic")
        if self.mode == "demo" and self.market == "public":
            problem = "is 'public', but the demo's market must not depend on the internet"
            raise BadSetting("TRADEWIND_MARKET", problem, "TRADEWIND_MODE=paper")
        local_exchange = f"http://127.0.0.1:{self.exchange_port}" if self.is_paper_exchange else ""
        for name in sorted(self.model_fields_set):
            if name.endswith("database_url"):
                object.__setattr__(self, name, SecretStr(with_scram(getattr(self, name).get_secret_value())))
        derived: dict[str, Any] = {
            "market": default_market,
            "account_id": self.mode,
            "exchange_url": local_exchange,
            "airflow_url": f"http://127.0.0.1:{self.airflow_port}",
            "model_url": (self.home_dir / self.mode / "models").as_uri(),
            "database_url": self._embedded_database("tradewind", self.database_password),
            "writer_database_url": self._restricted_database("writer", self.writer_database_password),
            "status_database_url": self._restricted_database("status", self.status_database_password),
            "status_page_url": f"http://127.0.0.1:{self.status_port}",
            "cache_url": SecretStr(
                cache_url(cache_socket(socket_dir(self.home_dir / "valkey")), self.cache_password.get_secret_value())
            ),
            "paper_database_url": self._sibling_database("tradewind_paper", self.paper_database_password),
            "airflow_database_url": self._sibling_database("airflow", self.airflow_database_password),
        }
        if token := self.api_control_token.get_secret_value():
            derived["api_control_token_digest"] = SecretStr(hashlib.sha256(token.encode()).hexdigest())
        if self.is_paper_exchange:
            derived |= {"exchange_api_key": self.paper_api_key, "exchange_api_secret": self.paper_api_secret}
        for name, value in derived.items():
            if name not in self.model_fields_set or not getattr(self, name):
                object.__setattr__(self, name, value)

    def _embedded_database(self, name: str, password: SecretStr, role: str = "") -> SecretStr:
        """A database of this mode; its role, named without the mode, owns nothing else."""
        directory = socket_dir(self.home_dir / "postgres")
        return SecretStr(postgres_url(directory, role or name, password.get_secret_value(), f"{name}_{self.mode}"))

    def _restricted_database(self, role: str, password: SecretStr) -> SecretStr:
        """Our own database through another role; on an external server, unless it is given, the owner's."""
        if not self.uses_embedded_database:
            return self.database_url
        return self._embedded_database("tradewind", password, f"tradewind_{role}")

    def _sibling_database(self, name: str, password: SecretStr) -> SecretStr:
        """On the same server as ours, wherever that is."""
        if self.uses_embedded_database:
            return self._embedded_database(name, password)
        parts = urlsplit(self.database_url.get_secret_value())
        return SecretStr(urlunsplit(parts._replace(path=f"/{name}_{self.mode}")))

    def _check_live(self) -> None:
        if self.live_trading != LIVE_CONFIRMATION:
            problem = "mode live trades real money and needs this confirmation"
            raise BadSetting("TRADEWIND_LIVE_TRADING", problem, f"TRADEWIND_LIVE_TRADING={LIVE_CONFIRMATION}")
        if self.max_capital_quote is None:
            problem = "mode live needs a cap on the equity that it may use"
            raise BadSetting("TRADEWIND_MAX_CAPITAL_QUOTE", problem, "TRADEWIND_MAX_CAPITAL_QUOTE=5000")
        if self.exchange_url and not self.exchange_url.startswith("https://"):
            problem = "mode live sends orders and keys there, and never without encryption"
            raise BadSetting("TRADEWIND_EXCHANGE_URL", problem, "TRADEWIND_EXCHANGE_URL= (the exchange's own address)")
        needs_passphrase = self.exchange in ("okx", "bitget") and self.part in ("all", "trading")
        if needs_passphrase and not self.exchange_api_passphrase.get_secret_value():
            problem = f"{self.exchange} signs with the passphrase that was chosen for the key"
            raise BadSetting("TRADEWIND_EXCHANGE_API_PASSPHRASE", problem, _example("exchange_api_passphrase"))
        keys, tokens = ("exchange_api_key", "exchange_api_secret"), ("api_read_token", "api_control_token")
        digested = ("api_read_token", "api_control_token_digest")
        needed = {"all": keys + tokens, "trading": keys, "status": digested, "other": ()}
        for name in needed[self.part]:
            value = getattr(self, name).get_secret_value()
            if len(value) < _SHORTEST_LIVE_SECRET or any(word in value.lower() for word in _PLACEHOLDERS):
                problem = "mode live refuses a missing, short or default secret"
                raise BadSetting(PREFIX + name.upper(), problem, _example(name))


SECRET_FIELDS = frozenset(name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation))


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process.

    Parameters
    ----------
    overrides : fields given by the caller (the command line), stronger than any other source.

    Raises
    ------
    BadSetting : a value is missing or wrong, or a `TRADEWIND_` variable is no setting.
    """
    if unknown := overrides.keys() - Settings.model_fields.keys():
        raise TypeError(f"{sorted(unknown)} are no settings")
    for problem in unusable_values():
        raise problem
    home_dir = Path(overrides.get("home_dir") or home_of_shell())
    try:
        return Settings(_env_file=_env_file(), _secrets_dir=secrets_dirs(home_dir) or None, **overrides)
    except ValidationError as error:
        raise bad_setting(error) from None


def home_of_shell() -> Path:
    """The directory in which this shell's deployment keeps its state."""
    text, _ = given_values().get("home_dir", ("", ""))
    return Path(text or PROJECT_DIR / ".tradewind").expanduser().absolute()


def given_values() -> dict[str, tuple[str, str]]:
    """What this shell says: the text of each field that is given, and where it stands. The environment beats `.env`."""
    found: dict[str, tuple[str, str]] = {}
    for place, values in ((".env", env_file_values(_env_file())), ("the environment", dict(os.environ))):
        for name, value in values.items():
            field = name.upper().removeprefix(PREFIX).lower()
            if name.upper().startswith(PREFIX) and value and field in Settings.model_fields:
                found[field] = (value.strip(), place)
    return found


def unusable_values() -> list[BadSetting]:
    """What this shell says and no setting can be made of: a misspelt limit must not silently become the default."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    found = [BadSetting(".env", fault, _example("mode")) for fault in env_file_faults(_env_file(), PREFIX)]
    for name in sorted({*os.environ, *env_file_values(_env_file())}):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {close[0]}?" if close and name.upper() not in _RETIRED else "remove it"
            found.append(BadSetting(name, f"is no setting of Tradewind; {hint}", _example("mode")))
    return found


def exposed_env_file() -> str:
    """Why others may read or change this project's `.env`, and what to do; empty when they may not."""
    given = {name for name, value in env_file_values(_env_file()).items() if value}
    held = {PREFIX + name.upper() for name in SECRET_FIELDS}
    return env_file_problem(_env_file(), given & held)


def secrets_dirs(home_dir: Path) -> list[Path]:
    """Where secret files lie, the weaker directory first: a deployment's own wins over the container platform's."""
    directories = (_RUN_SECRETS, home_dir.expanduser().absolute() / "secrets")
    return [directory for directory in directories if directory.is_dir()]


def _env_file() -> Path:
    return PROJECT_DIR / ".env"


def bad_setting(error: ValidationError) -> BadSetting:
    """The first problem of pydantic's, in our form and without the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "mode"
    return BadSetting(PREFIX + name.upper(), first["msg"][:1].lower() + first["msg"][1:], _example(name))


def _example(name: str) -> str:
    field = Settings.model_fields[name]
    value = field.examples[0] if field.examples else field.default
    return f"{PREFIX}{name.upper()}={value}"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(_text(part) for part in value)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
