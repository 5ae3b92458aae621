"""The embedded PostgreSQL and Valkey: they start, keep what they should, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tradewind.errors import PortTaken
from tradewind.stack.postgres import EmbeddedPostgres, discard
from tradewind.stack.processes import LOCALHOST, ProcessMark, end_sessions, require_port
from tradewind.stack.valkey import EmbeddedValkey


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that an unprivileged user can reach."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give the data to another user")
def test_root_places_the_data_where_the_server_can_read_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    server = EmbeddedPostgres(tmp_path / "postgres", password="x", durable=False)
    try:
        server.start()
        assert (tmp_path / "postgres").is_symlink()
        assert server.data_dir.stat().st_mode & 0o077 == 0
        server.stop()
        server.start()
    finally:
        server.stop()
        discard(tmp_path / "postgres")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give the data to another user")
def test_a_home_that_was_removed_by_hand_begins_anew(tmp_path: Path) -> None:
    """It led to the data of the one before, whose password nobody has any more: the start waited for ever."""
    left: list[Path] = []
    for password in ("of the first home", "of the second home"):
        home = tmp_path / "home"
        home.mkdir(mode=0o700)
        server = EmbeddedPostgres(home / "postgres", password=password, durable=False)
        try:
            server.start()
            with psycopg.connect(server.url()) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        finally:
            server.stop()
        left.append(server.data_dir)
        shutil.rmtree(home)
    assert left[0] != left[1]
    for directory in left:
        shutil.rmtree(directory.parent)


def test_postgres_keeps_its_data_over_a_restart_and_leaves_nothing(home: Path) -> None:
    (home / "a home").mkdir(mode=0o711)
    server = EmbeddedPostgres(home / "a home" / "postgres", password="p w/'\"%:@", durable=False)
    server.start()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (7)")
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    server.stop()
    assert server.mark is None
    assert not (server.data_dir / "postmaster.pid").exists()
    assert not list(server.socket_dir.glob(".s.*"))

    server.start()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    server.stop()


def test_durable_postgres_syncs(home: Path) -> None:
    server = EmbeddedPostgres(home / "postgres", password="x")
    server.start()
    try:
        with psycopg.connect(server.url()) as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)  # type: ignore[arg-type]
    finally:
        server.stop()


def test_a_killed_postgres_recovers(home: Path) -> None:
    server = EmbeddedPostgres(home / "postgres", password="x", durable=False)
    server.start()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    mark = server.mark
    assert mark is not None
    end_sessions([mark], first=signal.SIGKILL)
    server.start()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    server.stop()


def test_a_wrong_password_is_refused(postgres_server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_server.url(password="wrong"))


def test_valkey_needs_its_password_and_hides_it_from_ps(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "a home", password="s3cret")
    process = server.launch()
    server.wait()
    try:
        redis.Redis.from_url(server.url()).set("a", 1)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=str(server.socket)).get("a")
        assert not any("s3cret" in part for part in psutil.Process(process.pid).cmdline())
    finally:
        server.stop()
    assert not server.socket.exists()


def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.create_server((LOCALHOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} .*TRADEWIND_STATUS_PORT=") as caught:
            require_port(port, "TRADEWIND_STATUS_PORT", "status app")
    suggestion = int(str(caught.value).rsplit("=", 1)[1])
    require_port(suggestion, "TRADEWIND_STATUS_PORT", "status app")


def test_a_reused_process_id_is_not_taken_for_ours() -> None:
    mark = ProcessMark.of(1)
    assert mark.alive()
    assert not ProcessMark(1, mark.started_s - 60).alive()
