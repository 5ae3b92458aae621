"""The check of the lock against known vulnerabilities, with a database that a test brings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = "six==1.16.0 --hash=sha256:" + "0" * 64 + "\nuv==0.1.0 --hash=sha256:" + "0" * 64 + "\n"
ADVISORY = {
    "id": "PYSEC-0000-1",
    "aliases": ["CVE-0000-1"],
    "summary": "made up",
    "details": "made up",
    "affected": [
        {
            "package": {"name": "six", "ecosystem": "PyPI"},
            "versions": ["1.15.0", "1.16.0"],
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.17.0"}]}],
        }
    ],
}


def audit(tmp_path: Path, accepted: str = "", advisory: dict[str, object] = ADVISORY) -> tuple[int, str]:
    (tmp_path / "osv").mkdir()
    (tmp_path / "osv" / "a.json").write_text(json.dumps(advisory))
    (tmp_path / "lock.txt").write_text(LOCK)
    (tmp_path / "accepted.toml").write_text(accepted)
    command = [sys.executable, ROOT / ".ci/audit", "--osv-database", tmp_path / "osv"]
    command += ["--requirements", tmp_path / "lock.txt", "--accepted", tmp_path / "accepted.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    return done.returncode, done.stdout + done.stderr


def test_a_known_vulnerability_fails_and_is_named(tmp_path: Path) -> None:
    code, said = audit(tmp_path)
    assert code == 1, said
    assert "six 1.16.0: PYSEC-0000-1, fixed in 1.17.0" in said
    assert "2 of 2 packages audited, 1 advisories, 0 accepted" in said


def test_another_version_is_not_accused(tmp_path: Path) -> None:
    other = json.loads(json.dumps(ADVISORY).replace('"1.16.0"', '"1.14.0"'))
    assert audit(tmp_path, advisory=other)[0] == 0


@pytest.mark.parametrize(("day", "code"), [("2999-01-01", 0), ("2020-01-01", 1)])
def test_what_is_accepted_is_open_again_after_its_day(tmp_path: Path, day: str, code: int) -> None:
    entry = f'[[accepted]]\nid = "CVE-0000-1"\nreason = "test"\nlook_again_on = {day}\n'
    found, said = audit(tmp_path, entry)
    assert found == code, said
