"""What each database role may do, tried for real: every statement that must fail, from one table of what may not."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from tests.support.homes import lent
from tradewind import stack
from tradewind.adapters.control_requests import sign
from tradewind.settings import Settings
from tradewind.stack import databases
from tradewind.stack.environment import airflow_environment, status_environment
from tradewind.stack.postgres import EmbeddedPostgres


@pytest.fixture
def settings(postgres_server: EmbeddedPostgres, tmp_path: Path) -> Settings:
    settings = stack.with_secrets(**lent(postgres_server, tmp_path))
    databases.recreate(settings, postgres_server)
    databases.ensure(settings, postgres_server)
    return settings


@pytest.fixture
def status(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.status_database_url.get_secret_value(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def writer(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.writer_database_url.get_secret_value(), autocommit=True) as connection:
        yield connection


# What each role may do besides reading. A table that is not named here is one that tasks write; whatever is not listed
# must fail, and every statement is tried.
DEFAULT = {"INSERT", "UPDATE", "DELETE"}
ADDED_ONLY, KEPT, NONE = {"INSERT"}, {"INSERT", "UPDATE"}, set[str]()
WRITER = {
    **dict.fromkeys(
        ("schema_migrations", "deployment", "latches", "latch_history", "latch_changes_in_force", "control_key",
         "accepted_differences", "equity_links"), NONE,
    ),
    **dict.fromkeys(
        ("audit", "candles", "fills", "payments", "baselines", "order_events", "position_events", "equity",
         "write_offs"), ADDED_ONLY
    ),
    **dict.fromkeys(("orders", "positions", "unprotected_spans", "flattenings", "heartbeats"), KEPT),
}  # fmt: skip
STATUS = {"audit": ADDED_ONLY, "jobs": ADDED_ONLY}
# One column may be written later, which says what a row was worth: rows can be locked for it, the table cannot.
VALUED_LATER = {"fills", "payments"}
# Columns that a role is not given although it may add rows: numbers that are drawn, times that are the database's.
NOT_GIVEN = {
    "tradewind_writer": {"audit": {"at"}},
    "tradewind_status": {
        "audit": {"at"},
        "jobs": {"chunks_total", "started_at", "finished_at", "reported_at", "created_at", "progress", "error"},
    },
}
FUNCTIONS = {
    "tighten_latch": {"tradewind_writer", "tradewind_status"},
    "signed_request": {"tradewind_writer"},
    "open_latch_as_requested": {"tradewind_writer"},
    "remove_expired_marks": {"tradewind_writer"},
    "remove_replaced_marks": {"tradewind_writer"},
    "close_equity_link": {"tradewind_writer"},
    "renew_statistics": {"tradewind_writer"},
    "open_latch": set[str](),
    "grant_rights": set[str](),
    "guard_equity": set[str](),
}
ROLES = ("tradewind_writer", "tradewind_status", "tradewind_reader")
REFUSED = (InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.WrongObjectType)

_TABLES = """
    SELECT relname, relkind, array_agg(attname ORDER BY attnum),
           array_agg(attname) FILTER (WHERE attidentity <> '')
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
    WHERE relkind IN ('r', 'v', 'p', 'm') AND relnamespace = 'public'::regnamespace GROUP BY 1, 2 ORDER BY 1"""
_FUNCTIONS = """
    SELECT proname, array(SELECT format('NULL::%s', t::regtype) FROM unnest(proargtypes) AS t)
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace"""
_SEQUENCES = "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"


@contextmanager
def acting_as(settings: Settings, server: EmbeddedPostgres, role: str) -> Iterator[psycopg.Connection]:
    """A session with a role's rights; the reader has no login of its own."""
    name = urlsplit(settings.database_url.get_secret_value()).path.removeprefix("/")
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute(f"SET ROLE {role}")
        yield connection


def may(connection: psycopg.Connection, statement: str) -> bool:
    """True if the statement is refused for no lack of rights; what it did is undone. A violated constraint is no such
    refusal: rights are looked at first."""
    with connection.transaction(force_rollback=True):
        try:
            with connection.transaction():
                connection.execute(statement)
        except REFUSED:
            return False
        except psycopg.Error:
            return True
        return True


@pytest.mark.parametrize("role", ROLES)
def test_every_statement_on_every_table_is_as_the_matrix_says(
    settings: Settings, postgres_server: EmbeddedPostgres, role: str
) -> None:
    wrong = []
    with acting_as(settings, postgres_server, role) as connection:
        found = connection.execute(_TABLES).fetchall()
        assert {"audit", "latch_history", "control_key"} <= {row[0] for row in found}
        for table, _, columns, numbers in found:
            wanted = {"tradewind_writer": WRITER.get(table, DEFAULT), "tradewind_status": STATUS.get(table, NONE)}
            rights = wanted.get(role, NONE)
            column = next(name for name in columns if name not in (numbers or ()))
            statements = {
                "INSERT": f"INSERT INTO {table} DEFAULT VALUES",
                "UPDATE": f"UPDATE {table} SET {column} = {column}",
                "DELETE": f"DELETE FROM {table}",
                "TRUNCATE": f"TRUNCATE {table} CASCADE",
            }
            actual = {right for right, statement in statements.items() if may(connection, statement)}
            if actual != rights:
                wrong.append((table, sorted(actual), sorted(rights)))
            # Who may neither change nor remove rows cannot hold the table, or a row of it, against others either.
            held = {"UPDATE", "DELETE"} & rights
            by_row = held or (role == "tradewind_writer" and table in VALUED_LATER)
            holding = {f"LOCK TABLE {table} IN SHARE MODE": held, f"SELECT * FROM {table} FOR SHARE": by_row}
            for statement, is_meant in holding.items():
                if may(connection, statement) and not is_meant:
                    wrong.append((table, statement))
            if may(connection, f"SELECT * FROM {table}") != (table != "control_key"):
                wrong.append((table, "SELECT"))
            for name in set(numbers or ()) | NOT_GIVEN.get(role, {}).get(table, NONE) & set(columns):
                if may(connection, f"INSERT INTO {table} ({name}) OVERRIDING SYSTEM VALUE VALUES (NULL)"):
                    wrong.append((table, f"INSERT of {name}"))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
def test_every_function_is_its_owners_but_for_those_in_the_matrix(
    settings: Settings, postgres_server: EmbeddedPostgres, role: str
) -> None:
    with acting_as(settings, postgres_server, role) as connection:
        found = connection.execute(_FUNCTIONS).fetchall()
        allowed = {name for name, arguments in found if may(connection, f"SELECT {name}({', '.join(arguments)})")}
        assert {name for name, _ in found} == FUNCTIONS.keys()
    assert allowed == {name for name, roles in FUNCTIONS.items() if role in roles}


@pytest.mark.parametrize("role", ROLES)
def test_no_role_sets_a_number_that_is_drawn(settings: Settings, postgres_server: EmbeddedPostgres, role: str) -> None:
    with acting_as(settings, postgres_server, role) as connection:
        names = [row[0] for row in connection.execute(_SEQUENCES)]
        assert {"position_fences", "latch_history_sequence_seq"} <= set(names)
        assert [name for name in names if may(connection, f"SELECT setval('{name}', 1)")] == []
        drawn = {name for name in names if may(connection, f"SELECT nextval('{name}')")}
    assert drawn == (set(names) - {"latch_history_sequence_seq"} if role == "tradewind_writer" else set())


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine ()",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "DROP TABLE candles",
        "ALTER TABLE orders ADD COLUMN x int",
        "ALTER TABLE equity DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "ALTER ROLE tradewind_status SUPERUSER",
        "COPY audit TO PROGRAM 'true'",
        "COPY control_key TO STDOUT",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
    ],
)
def test_no_role_changes_what_is_the_owners(
    settings: Settings, postgres_server: EmbeddedPostgres, role: str, statement: str
) -> None:
    with acting_as(settings, postgres_server, role) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement)


# ------------------------------------------------------------------------------------------------------------ the latch
@pytest.fixture(params=["writer", "status"])
def someone(request: pytest.FixtureRequest) -> psycopg.Connection:
    """Each role that may tighten the latch."""
    connection: psycopg.Connection = request.getfixturevalue(request.param)
    return connection


TIGHTEN = "SELECT mode, reason, sequence FROM tighten_latch('demo', %s, %s, 'control', now())"


def test_a_role_tightens_the_latch_and_never_loosens_it(someone: psycopg.Connection) -> None:
    def tighten(mode: str, reason: str) -> tuple[object, ...] | None:
        return someone.execute(TIGHTEN, (mode, reason)).fetchone()

    assert tighten("active", "nothing to loosen") == ("active", "", 0)
    assert tighten("reduce_only", "lunch") == ("reduce_only", "lunch", 1)
    assert tighten("reduce_only", "again") == ("reduce_only", "lunch", 1)
    assert tighten("halted", "worse") == ("halted", "worse", 2)
    assert tighten("active", "open it") == ("halted", "worse", 2)
    history = someone.execute("SELECT sequence, mode, actor FROM latch_history ORDER BY 1").fetchall()
    assert history == [(1, "reduce_only", "control"), (2, "halted", "control")]
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        tighten("open", "no such mode")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE latches SET mode = 'active'",
        "UPDATE latch_history SET mode = 'active', opens = '{}'",
        "UPDATE latch_changes_in_force SET account = 'another'",
        "DELETE FROM latch_history",
        "INSERT INTO latch_history (account, mode, reason, actor, at, opens) "
        "VALUES ('demo', 'active', '', 'me', now(), '{1}')",
        "SELECT open_latch('demo', 1, 'mine', 'me', 'nowhere', now(), now(), 1)",
        "SELECT * FROM latch_history FOR UPDATE",
        "LOCK TABLE latch_history IN SHARE MODE",
    ],
)
def test_no_role_opens_the_latch_or_holds_it(someone: psycopg.Connection, statement: str) -> None:
    someone.execute(TIGHTEN, ("halted", "breach"))
    with pytest.raises(REFUSED), someone.transaction():
        someone.execute(statement)
    assert someone.execute("SELECT mode, reason FROM latches").fetchall() == [("halted", "breach")]


def test_no_role_takes_a_number_in_advance(someone: psycopg.Connection, writer: psycopg.Connection) -> None:
    """Of the latch, so that it could not tighten; of the audit, so that a halt would answer with an error."""
    for statement in (
        "INSERT INTO latch_history (account, sequence, mode, reason, actor, at) OVERRIDING SYSTEM VALUE "
        "VALUES ('demo', 1, 'reduce_only', '', 'me', 'epoch')",
        "INSERT INTO audit (audit_id, actor, action, outcome, detail) OVERRIDING SYSTEM VALUE "
        "VALUES (1, 'me', 'x', 'x', '{}')",
        "INSERT INTO audit (at, actor, action, outcome, detail) VALUES ('epoch', 'me', 'x', 'x', '{}')",
    ):
        with pytest.raises(InsufficientPrivilege):
            someone.execute(statement)
    assert writer.execute(TIGHTEN, ("halted", "breach")).fetchone() == ("halted", "breach", 1)
    writer.execute("INSERT INTO audit (actor, action, outcome, detail) VALUES ('watch', 'x', 'x', '{}')")


def test_a_table_of_the_caller_cannot_stand_in_for_ours(someone: psycopg.Connection) -> None:
    """The function runs with its owner's rights, so it must not look into the caller's temporary schema first."""
    someone.execute("CREATE TEMP TABLE latch_history (LIKE public.latch_history)")
    someone.execute("SELECT tighten_latch('demo', 'halted', 'x', 'control', now())")
    assert someone.execute("SELECT count(*) FROM pg_temp.latch_history").fetchone() == (0,)
    assert someone.execute("SELECT mode FROM public.latches").fetchone() == ("halted",)


# ---------------------------------------------------------------------------------------------------- a signed request
READING = "INSERT INTO equity (account, at, kind, equity_quote, detail) VALUES "
MARK = f"{READING} ('demo', %s, 'mark', %s, '{{}}')"
OPEN = "SELECT mode FROM open_latch_as_requested('demo', %s, 'looked at it', now(), now(), 9600)"
ASK = "INSERT INTO audit (actor, action, outcome, detail, source) VALUES ('control', 'resume', 'requested', %s, 'api')"


def asked(settings: Settings, number: str, token: str = "", **changed: object) -> Jsonb:
    """The detail of an audit row that asks for a resume, signed with the control token or another."""
    fields: dict[str, object] = {
        "account": "demo", "action": "resume", "request": number, "latch_sequence": 1, "actor": "control",
        "source": "api", "at": int(time.time()),
    } | changed  # fmt: skip
    signed = sign(token or settings.api_control_token.get_secret_value(), **fields)  # type: ignore[arg-type]
    return Jsonb({"request": number, "account": "demo", **signed})


def test_a_task_opens_what_the_control_token_asked_for_and_only_once(
    settings: Settings, status: psycopg.Connection, writer: psycopg.Connection
) -> None:
    writer.execute(TIGHTEN, ("halted", "breach"))
    writer.execute(MARK, (datetime.now(UTC), 9600))
    status.execute(ASK, (asked(settings, "r-1"),))
    assert writer.execute(OPEN, ("r-1",)).fetchall() == [("active",)]
    row = writer.execute("SELECT actor, source, detail FROM audit WHERE outcome = 'opened'").fetchone()
    assert row is not None
    assert row[:2] == ("control", "api")
    assert (row[2]["was"], row[2]["role"], row[2]["request"]) == ("breach", "tradewind_writer", "r-1")
    assert writer.execute("SELECT actor, mode FROM latch_history ORDER BY sequence").fetchall()[-1] == (
        "control", "active",
    )  # fmt: skip
    writer.execute(TIGHTEN, ("halted", "another breach"))
    assert writer.execute(OPEN, ("r-1",)).fetchall() == [], "it asked for another latch"
    assert writer.execute("SELECT mode FROM latches").fetchall() == [("halted",)]


@pytest.mark.parametrize(
    "forged",
    [
        {"token": "a token of one's own"},
        {"account": "another"},
        {"action": "halt"},
        {"request": "another"},
        {"latch_sequence": 2},
        {"at": int(time.time()) - 86_400},
        {"at": int(time.time()) + 86_400},
    ],
)
def test_a_forged_or_stale_request_opens_nothing(
    settings: Settings, status: psycopg.Connection, writer: psycopg.Connection, forged: dict[str, object]
) -> None:
    writer.execute(TIGHTEN, ("halted", "breach"))
    for connection in (status, writer):
        connection.execute(ASK, (asked(settings, "r-1", **forged),))  # type: ignore[arg-type]
    assert writer.execute(OPEN, ("r-1",)).fetchall() == []
    assert writer.execute("SELECT mode FROM latches").fetchall() == [("halted",)]


@pytest.mark.parametrize(
    "detail",
    [
        {"request": "r-1", "account": "demo"},
        {"request": "r-1", "signed": "{", "signature": "00"},
        {"request": "r-1", "signed": '{"at": "soon"}', "signature": "0" * 64},
    ],
)
def test_rows_that_are_no_request_stand_in_nobodys_way(
    settings: Settings, status: psycopg.Connection, writer: psycopg.Connection, detail: dict[str, str]
) -> None:
    writer.execute(TIGHTEN, ("halted", "breach"))
    writer.execute(MARK, (datetime.now(UTC), 9600))
    status.execute(ASK, (Jsonb(detail),))
    assert writer.execute(OPEN, ("r-1",)).fetchall() == []
    status.execute(ASK, (asked(settings, "r-1"),))
    assert writer.execute(OPEN, ("r-1",)).fetchall() == [("active",)]


def test_another_control_token_signs_from_the_next_start_on(
    settings: Settings, postgres_server: EmbeddedPostgres, status: psycopg.Connection, writer: psycopg.Connection
) -> None:
    writer.execute(TIGHTEN, ("halted", "breach"))
    writer.execute(MARK, (datetime.now(UTC), 9600))
    status.execute(ASK, (asked(settings, "old"),))
    object.__setattr__(settings, "api_control_token", SecretStr("another"))
    databases.ensure(settings, postgres_server)
    assert writer.execute(OPEN, ("old",)).fetchall() == []
    status.execute(ASK, (asked(settings, "new"),))
    assert writer.execute(OPEN, ("new",)).fetchall() == [("active",)]


# --------------------------------------------------------------------------------------- what losses are measured from
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE equity SET equity_quote = 1 WHERE kind = 'day_open'",
        "UPDATE equity SET equity_quote = 1 WHERE kind = 'mark'",
        "DELETE FROM equity",
        f"{READING} ('demo', '2026-01-05T13:00Z', 'day_open', 1, '{{}}')",
        f"{READING} ('demo', '2026-01-06', 'day_open', 1, '{{\"resumed_by\": \"me\"}}')",
        "INSERT INTO accepted_differences (account, asset, quantity, reason, actor, at) "
        "VALUES ('demo', 'USDT', -9000, 'mine', 'me', now())",
        "INSERT INTO equity_links (account, at, before_quote, after_quote) VALUES ('demo', now(), 10000, 1)",
        "UPDATE equity_links SET after_quote = 1",
    ],
)
def test_a_task_cannot_rewrite_what_the_breaker_measures_from(writer: psycopg.Connection, statement: str) -> None:
    writer.execute("SET timezone = 'UTC'")
    writer.execute(f"{READING} ('demo', '2026-01-05', 'day_open', 10000, '{{}}')")
    writer.execute(MARK, ("2026-01-05T12:00Z", 11000))
    with pytest.raises(InsufficientPrivilege):
        writer.execute(statement)


def test_a_day_is_opened_once(writer: psycopg.Connection) -> None:
    """A second opening of the same midnight would be a lower reference for who may add rows alone."""
    for equity in (10000, 1):
        writer.execute(f"{READING} ('demo', '2026-01-05T00:00Z', 'day_open', %s, '{{}}')", (equity,))
    assert writer.execute("SELECT equity_quote::int FROM equity").fetchall() == [(10000,)]


def test_a_task_makes_way_for_a_mark_and_never_for_a_peak(writer: psycopg.Connection) -> None:
    mark = READING.replace("detail", "is_kept, detail") + "('demo', %s, 'mark', %s, %s, '{}')"
    for at, equity, kept in (("11:59:59Z", 1, False), ("12:00:01Z", 2, False), ("12:00:02Z", 12000, True)):
        writer.execute(mark, (f"2026-01-05T{at}", equity, kept))
    for moment in ("2020-01-01", "2026-01-05T12:00:30Z"):
        writer.execute("SELECT remove_replaced_marks('demo', 0, %s)", (moment,))
    assert writer.execute("SELECT equity_quote::int FROM equity ORDER BY at").fetchall() == [(1,), (12000,)]


def test_the_peak_outlives_the_upkeep(writer: psycopg.Connection) -> None:
    for minute, equity in enumerate((10, 12000, 9, 8, 9)):
        writer.execute(MARK, (f"2026-01-05T12:0{minute}:00Z", equity))
    assert writer.execute("SELECT remove_expired_marks('2026-01-20')").fetchone() == (2,)
    assert writer.execute("SELECT max(equity_quote)::int FROM equity").fetchone() == (12000,)


def test_the_writer_may_do_what_tasks_do(writer: psycopg.Connection) -> None:
    writer.execute("INSERT INTO heartbeats VALUES ('demo', 'watch_risk', now())")
    writer.execute("CREATE TEMPORARY TABLE incoming (symbol text)")
    writer.execute("SELECT nextval('position_fences')")
    writer.execute("SELECT renew_statistics()")
    writer.execute("INSERT INTO alerts (account, severity, key, title, body) VALUES ('a', 'info', 'k', 't', 'b')")
    assert writer.execute("SELECT count(*) FROM heartbeats").fetchone() == (1,)
    assert writer.execute("SELECT severity, title FROM alerts").fetchall() == [("info", "t")]


def test_tables_of_later_migrations_are_covered_by_the_next_start(
    settings: Settings, postgres_server: EmbeddedPostgres, writer: psycopg.Connection, status: psycopg.Connection
) -> None:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as owner:
        owner.execute("CREATE TABLE later (number int)")
    databases.ensure(settings, postgres_server)
    writer.execute("INSERT INTO later VALUES (1)")
    assert status.execute("SELECT number FROM later").fetchone() == (1,)
    with pytest.raises(InsufficientPrivilege):
        status.execute("INSERT INTO later VALUES (2)")


def test_each_process_is_given_its_own_role(settings: Settings) -> None:
    assert "//tradewind_writer:" in airflow_environment(settings)["AIRFLOW_CONN_TRADEWIND_DB"]
    status = status_environment(settings)
    assert "//tradewind_status:" in status["TRADEWIND_DATABASE_URL"]
    other = [settings.database_password, settings.writer_database_password, settings.postgres_password]
    assert not [secret for secret in other for value in status.values() if secret.get_secret_value() in value]


def test_no_other_role_takes_the_connections_that_stop_trading(
    settings: Settings, postgres_server: EmbeddedPostgres
) -> None:
    """The watch, the breaker and the status app's halt come in where Airflow and the paper exchange have taken all."""
    others = itertools.cycle([settings.airflow_database_url, settings.paper_database_url])
    with ExitStack() as held:
        refused = ""
        for url in itertools.islice(others, 400):
            try:
                # Airflow's own database is made later: any that the role may enter will do.
                taken = psycopg.connect(url.get_secret_value(), dbname="postgres")
            except psycopg.OperationalError as error:
                refused = str(error)
                break
            held.callback(taken.close)
        assert "remaining connection slots are reserved" in refused
        for name in ("database_url", "writer_database_url", "status_database_url"):
            url = getattr(settings, name).get_secret_value()
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT count(*) FROM latches").fetchone() == (0,)


def test_a_session_that_holds_a_lock_and_does_nothing_is_ended(settings: Settings) -> None:
    for url in (settings.writer_database_url, settings.status_database_url):
        with psycopg.connect(url.get_secret_value()) as connection:
            for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
                row = connection.execute("SELECT setting::int FROM pg_settings WHERE name = %s", (name,)).fetchone()
                assert row is not None
                assert 0 < row[0] <= 120_000
