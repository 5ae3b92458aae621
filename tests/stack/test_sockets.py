"""The embedded servers on their sockets: wherever the home lies, whoever starts them, and for nobody else."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.support.strangers import ROOT, as_user
from tradewind import addresses, stack
from tradewind.addresses import make_socket_dir, settle_socket_dir, socket_dir
from tradewind.errors import StackFailed
from tradewind.stack import services
from tradewind.stack.backup import backup
from tradewind.stack.postgres import discard
from tradewind.stack.restore import restore
from tradewind.stack.state import StackState, state_file

ORDINARY = "daemon" if ROOT else pwd.getpwuid(os.geteuid()).pw_name
# A socket's whole name may have 107 bytes.
PLACES = {"spaces": "a home, with 'spaces'", "long": "/".join(["a directory whose name is rather long"] * 4)}


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory of the ordinary user's, and of root's beside it."""
    base = Path(tempfile.mkdtemp(prefix="tradewind-tests-"))
    base.chmod(0o711)
    (base / "ordinary").mkdir()
    if ROOT:
        user = pwd.getpwnam(ORDINARY)
        os.chown(base / "ordinary", user.pw_uid, user.pw_gid)
    yield base
    shutil.rmtree(base)


def live(home: Path) -> dict[str, Any]:
    """A stack's life in this home: started, used, backed up, stopped; then restored elsewhere."""
    settings = stack.with_secrets(home_dir=home, account_id="rig")
    other = home.with_name("restored")
    with stack.running_stack(settings, parts={"postgres", "valkey"}) as running:
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            connection.execute("SELECT tighten_latch('rig', 'halted', 'day loss', 'watch', now())")
            told = connection.execute("SHOW listen_addresses").fetchone()
        with redis.Redis.from_url(settings.cache_url.get_secret_value()) as cache:
            assert cache.ping()
        modes = [stat.S_IMODE(socket_dir(home / name).stat().st_mode) for name in services.EMBEDDED]
        state = running.state
        assert state is not None
        ports = [process.port for process in state.processes]
        backup(settings, home.with_name("today.tar"))
    assert not services.embedded_postgres(settings).ready()
    restore(home.with_name("today.tar"), home_dir=other, account_id="rig")
    again = stack.with_secrets(home_dir=other, account_id="rig")
    with (
        stack.running_stack(again, parts={"postgres"}),
        psycopg.connect(again.database_url.get_secret_value()) as connection,
    ):
        latch = connection.execute("SELECT mode, reason FROM latches").fetchall()
    for made in (home, other):
        discard(made / "postgres")
        for name in services.EMBEDDED:
            addresses.leave_socket_dir(made / name)
            if (made / f"{name}-socket").is_symlink():
                shutil.rmtree((made / f"{name}-socket").readlink(), ignore_errors=True)
    closed = stat.S_IMODE(home.stat().st_mode)
    return {"listens": told, "modes": modes, "ports": ports, "latch": latch, "home": closed}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("ordinary", [False, True], ids=["me", "ordinary"])
def test_up_backup_and_restore_work_on_sockets(place: Path, kind: str, ordinary: bool) -> None:
    home = place / ("ordinary" if ordinary else "") / PLACES[kind] / "home"
    told = as_user(ORDINARY, live, home) if ordinary else live(home)
    assert told["listens"][0] == ""
    assert told["ports"] == [None, None]
    assert told["modes"] == [0o700, 0o700]
    assert told["home"] == 0o700
    assert [tuple(row) for row in told["latch"]] == [("halted", "day loss")]


def settle(server: Path) -> list[str]:
    settle_socket_dir(server)
    return [str(socket_dir(server)), str(make_socket_dir(server))]


def test_a_short_directory_is_found_again_and_never_taken_from_another(place: Path) -> None:
    """Chosen once; made anew under its name after a sweep; given up when somebody else has made it meanwhile."""
    server = place / "ordinary" / PLACES["long"] / "postgres"
    first, second = as_user(ORDINARY, settle, server)
    assert first == second
    try:
        assert as_user(ORDINARY, settle, server) == [first, first]
        os.rmdir(first)
        assert as_user(ORDINARY, settle, server) == [first, first]
        os.rmdir(first)
        for squat in (lambda: os.mkdir(first, 0o755), lambda: os.symlink("/etc", first)):
            squat()
            chosen = as_user(ORDINARY, settle, server)[1]
            assert chosen != first
            Path(chosen).rmdir()
            (server.parent / "postgres-socket").unlink()
            (server.parent / "postgres-socket").symlink_to(first)
            Path(first).unlink() if Path(first).is_symlink() else Path(first).rmdir()
    finally:
        shutil.rmtree(first, ignore_errors=True)


def test_root_follows_no_link_when_it_makes_or_removes(tmp_path: Path) -> None:
    """The home may be another user's, who puts a link where the socket's directory is looked up."""
    server = tmp_path / "postgres"
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "kept").touch()
    (tmp_path / "postgres-socket").symlink_to(precious)
    if not ROOT:
        # Only root acts in others' homes; one's own link is one's own affair.
        assert socket_dir(server) == precious
        return
    before = precious.stat()
    made = make_socket_dir(server, 65534, 65534)
    assert made != precious
    addresses.leave_socket_dir(server)
    assert not made.exists()
    assert (precious / "kept").exists()
    assert (precious.stat().st_uid, precious.stat().st_mode) == (before.st_uid, before.st_mode)


def test_a_data_directory_that_is_gone_is_not_made_anew(place: Path) -> None:
    """An empty database in place of the ledger would look like a first start."""
    home = place / "home"
    home.mkdir(mode=0o700)
    (home / "postgres").symlink_to(place / "unmounted" / "postgres")
    server = services.embedded_postgres(stack.with_secrets(home_dir=home))
    with pytest.raises(StackFailed, match="is gone"):
        server.start()
    assert not (place / "unmounted").exists()


def test_a_cluster_in_a_home_that_was_closed_since_moves_along(place: Path) -> None:
    """As root: made where PostgreSQL's user could once reach it, it is found where he reaches it now."""
    home = place / "open"
    home.mkdir(mode=0o711)
    settings = stack.with_secrets(home_dir=home)
    home.chmod(0o711)
    server = services.embedded_postgres(settings)
    server.start()
    assert not (home / "postgres").is_symlink()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    stack.with_secrets(home_dir=home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    server.start()
    try:
        assert (home / "postgres").is_symlink() == ROOT
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    finally:
        server.stop()
        discard(home / "postgres")


@pytest.mark.parametrize("why", ["killed", "elsewhere"])
def test_a_move_that_is_cut_short_loses_no_ledger(place: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Killed between moving the cluster and linking to it, or told to move it by hand: no start makes an empty one."""
    home = place / "open"
    home.mkdir(mode=0o711)
    settings = stack.with_secrets(home_dir=home)
    home.chmod(0o711)
    server = services.embedded_postgres(settings)
    server.start()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    home.chmod(0o700)

    def killed(path: Path, target: Path) -> None:
        raise KeyboardInterrupt(f"{path} {target}")

    def other_disk(path: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if ROOT:  # elsewhere nothing has to move
        with monkeypatch.context() as patch:
            if why == "killed":
                patch.setattr(Path, "replace", killed)
                with pytest.raises(KeyboardInterrupt):
                    server.start()
            else:
                patch.setattr(Path, "rename", other_disk)
                for _ in range(2):
                    with pytest.raises(StackFailed, match="run mv") as caught:
                        server.start()
                _, source, _, target, _ = str(caught.value).rpartition("run ")[2].split("'")
                os.rename(source, target)
        assert not (home / "postgres").exists()
    server.start()
    try:
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
    finally:
        server.stop()
        discard(home / "postgres")


def test_nothing_is_written_about_a_stack_that_has_ended(place: Path) -> None:
    home = place / "home"
    settings = stack.with_secrets(home_dir=home)
    with stack.running_stack(settings, parts={"valkey"}):
        assert StackState.load(state_file(home)) is not None
        where = socket_dir(home / "valkey")
        assert where.is_dir()
    assert StackState.load(state_file(home)) is None
    assert where.exists() != ROOT
