"""How the servers are addressed: the embedded ones by Unix sockets, others by the URLs that were given.

An embedded server's socket lies in a directory that its user alone may enter, so that nobody else reaches its login. A
socket's whole name may have about 107 bytes, which a deep home uses up by itself: where the wished place is too long,
it is a link to a short directory, made once. Root's servers have theirs in /run/tradewind, because PostgreSQL, which
another user runs then, does not reach root's home.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

from tradewind.errors import StackFailed

# libpq takes a comma for the end of a host's name.
_MOST_BYTES = 80
_ROOTS = Path("/run/tradewind")
_PORT = 5432
_SCRAM = "scram-sha-256"


def socket_dir(server: Path) -> Path:
    """Where the socket of the server with this directory lies: beside it, or where a link there leads.

    Not where the link's end is another user's. Before it was made: where it will be, as far as that can be known.
    """
    place = _place(server)
    if place.is_symlink():
        real = place.readlink()
        if not os.path.lexists(real) or _is_private(real, None if os.geteuid() == 0 else os.geteuid()):
            return real
    return _root_dir(place) if os.geteuid() == 0 else place


def make_socket_dir(server: Path, uid: int | None = None, gid: int | None = None) -> Path:
    """Make that directory for one user, ourselves by default, and say where it is. Raises StackFailed."""
    place = _place(server)
    owner = os.geteuid() if uid is None else uid
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        real = _root_dir(place)
        make_passage(real.parent)
        real.mkdir(mode=0o700, exist_ok=True)
        os.chown(real, owner, os.getegid() if gid is None else gid, follow_symlinks=False)
    else:
        real = socket_dir(server)
        if not _fits(real):
            real = _short_dir()
        try:
            # A link's end may have been swept away, as a restart sweeps /tmp, and its name be another's by now.
            real.mkdir(mode=0o700)
        except FileExistsError:
            if real != place and not _is_private(real, owner):
                real = _short_dir()
    if not _is_private(real, owner):
        raise StackFailed(f"{real} must be a directory that its owner alone may enter: remove it, and start again")
    if real != place:
        _link(place, real)
    return real


def settle_socket_dir(server: Path) -> None:
    """Choose the directory now, before its address is told, where it cannot be derived from the server's."""
    if os.geteuid() != 0 and not _fits(socket_dir(server)):
        make_socket_dir(server)


def keep_socket_dir(server: Path) -> None:
    """Mark the directory and its sockets as used just now: what sweeps old files from /tmp then leaves them."""
    real = socket_dir(server)
    for path in [real, *real.glob("*")]:
        with suppress(FileNotFoundError):
            os.utime(path)


def leave_socket_dir(server: Path) -> None:
    """Remove root's, which is made anew at each start, once its server has ended; others stay where their home is."""
    if os.geteuid() == 0:
        shutil.rmtree(_root_dir(_place(server)), ignore_errors=True)


def make_passage(path: Path) -> None:
    """Make a directory of root's that others may pass through, and nobody else may write to."""
    path.mkdir(mode=0o711, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise StackFailed(f"{path} must be a directory that root alone may write to")
    path.chmod(0o711)


def postgres_url(directory: Path, user: str, password: str, dbname: str) -> str:
    """A libpq URL of the embedded server; the password is never sent in clear, whatever answers there."""
    where = urlencode({"host": directory, "require_auth": _SCRAM}, quote_via=quote, safe="/")
    return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@:{_PORT}/{dbname}?{where}"


def cache_url(socket: Path, password: str, db: int = 0) -> str:
    """A redis-py URL of the embedded Valkey."""
    return f"unix://:{quote(password, safe='')}@{quote(str(socket))}?db={db}"


def cache_socket(directory: Path) -> Path:
    return directory / "valkey.sock"


def with_scram(url: str) -> str:
    """The URL of an external server that may only ask for a password by SCRAM, unless it says otherwise itself.

    libpq would answer in clear to whoever asks it to.
    """
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    by_socket = not parts.hostname and asked.get("host", ["/"])[0].startswith("/")
    if not parts.scheme.startswith("postgres") or not parts.password or by_socket or "require_auth" in asked:
        return url
    return urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, f"require_auth={_SCRAM}"]))))


def libpq_environment(url: str) -> dict[str, str]:
    """How a program that is told the URL without `require_auth` still keeps to it."""
    rules = parse_qs(urlsplit(url).query).get("require_auth")
    return {"PGREQUIREAUTH": rules[0]} if rules else {}


def _fits(place: Path) -> bool:
    return len(os.fsencode(place)) <= _MOST_BYTES and "," not in str(place)


def _is_private(directory: Path, owner: int | None) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_mode & 0o077 == 0 and (owner is None or found.st_uid == owner)


def _place(server: Path) -> Path:
    return server.with_name(server.name + "-socket")


def _root_dir(place: Path) -> Path:
    name = Path(os.path.realpath(place.parent)) / place.name
    return _ROOTS / hashlib.sha256(os.fsencode(name)).hexdigest()[:12]


def _short_dir() -> Path:
    """A new directory of ours under a short shared one, where no other user can replace it."""
    for parent in map(Path, dict.fromkeys([tempfile.gettempdir(), "/var/tmp", "/tmp"])):  # noqa: S108 - mkdtemp below
        try:
            shared = parent.stat()
        except OSError:
            continue
        is_safe = shared.st_uid in (0, os.geteuid()) and (not shared.st_mode & 0o022 or shared.st_mode & stat.S_ISVTX)
        if is_safe and _fits(parent / "tradewind-12345678") and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="tradewind-", dir=parent))
    raise StackFailed("no short directory for sockets can be made: set TMPDIR to one of yours, or TRADEWIND_HOME_DIR")


def _link(place: Path, real: Path) -> None:
    """Let `place` lead there, whole or not at all."""
    if place.is_dir() and not place.is_symlink():
        raise StackFailed(f"{place} is in the way of a link to {real}: remove it, and start again")
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(real)
    unfinished.replace(place)
