"""`./tradewind` makes its environment: once, whole, one at a time; again when the lock changed or it was killed.

The script is the real one, with a lock of its own that names next to nothing, in a path with spaces.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ECHO = """
import sys
import six
print("ran", sys.argv[1:], sys.flags.dont_write_bytecode)
"""


def stanza(package: str) -> str:
    """One package of the real lock, with its hashes."""
    match = re.search(rf"^{package}==(?:.*\n)(?:    .*\n)*", (ROOT / "requirements-test.txt").read_text(), re.MULTILINE)
    assert match is not None
    return match[0]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "a b" / "tw"
    (root / "include" / "tradewind").mkdir(parents=True)
    shutil.copy(ROOT / "tradewind", root)
    (root / "include" / "tradewind" / "__init__.py").touch()
    (root / "include" / "tradewind" / "cli.py").write_text(ECHO)
    (root / "requirements.txt").write_text(stanza("uv") + stanza("six"))
    (root / "requirements-test.txt").write_text(stanza("six") + stanza("iniconfig"))
    return root


def start(project: Path, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [project / "tradewind", *arguments],
        cwd=cwd or project.parent,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(project: Path, *arguments: str, cwd: Path | None = None) -> tuple[str, str]:
    process = start(project, *arguments, cwd=cwd)
    out, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    return out, error


def installed(project: Path, module: str) -> bool:
    return subprocess.run([project / ".venv/bin/python", "-c", f"import {module}"], capture_output=True).returncode == 0


def test_it_installs_once_with_bytecode_and_follows_the_lock(project: Path) -> None:
    out, error = run(project, "status", "--json", "two words", cwd=Path("/"))
    assert out.startswith("ran ['status', '--json', 'two words']")
    assert "installing" in error
    packages = next((project / ".venv/lib").glob("python3*/site-packages"))
    assert list((packages / "__pycache__").glob("six*.pyc"))
    assert not (project / ".tradewind/install.lock").exists()

    _, error = run(project, "again")
    assert error == ""

    assert not installed(project, "iniconfig")
    run(project, "test")
    assert installed(project, "iniconfig")

    with (project / "requirements.txt").open("a") as lock:
        lock.write(stanza("pluggy"))
    _, error = run(project, "later")
    assert "making" not in error
    assert installed(project, "pluggy")
    _, error = run(project, "later")
    assert error == ""


def test_two_at_once_install_once_and_the_second_says_who(project: Path) -> None:
    both = [start(project, str(number)) for number in range(2)]
    results = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    texts = [error for _, error in results]
    assert sum("making" in text for text in texts) == 1
    (waited,) = [text for text in texts if "waiting" in text]
    assert re.search(rf"process ({both[0].pid}|{both[1].pid}) is installing", waited)


@pytest.mark.parametrize("before", ["", "4194303"], ids=["nobody before", "a killed one before"])
def test_a_holder_that_has_not_written_its_number_yet_is_named(project: Path, before: str) -> None:
    lock = project / ".tradewind/install.lock"
    lock.parent.mkdir()
    with lock.open("w+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(before)
        file.flush()
        waiting = start(project)
        time.sleep(0.5)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        assert waiting.stderr is not None
        said = next(line for line in waiting.stderr if "waiting" in line)
    _, error = waiting.communicate(timeout=240)
    assert waiting.returncode == 0, error
    assert f"process {os.getpid()} is installing" in said


@pytest.mark.parametrize("sight", [".venv/bin/python", ".venv/bin/uv"])
def test_killed_half_way_it_starts_anew(project: Path, sight: str) -> None:
    first = start(project, "first")
    deadline = time.monotonic() + 120
    while not (project / sight).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not list(project.glob(".venv/installed-*"))
    out, error = run(project, "second")
    assert out.startswith("ran ['second']")
    assert "making" in error


def test_a_wrong_hash_is_refused_and_leaves_no_stamp(project: Path) -> None:
    lock = project / "requirements.txt"
    lock.write_text(stanza("uv") + re.sub(r"sha256:\w+", "sha256:" + "0" * 64, stanza("six")))
    process = start(project)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 2
    assert "run ./tradewind again" in error
    assert not list(project.glob(".venv/installed-*"))
