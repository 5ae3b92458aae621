"""A start, and `doctor machine`, say what of this machine is not as safe as it could be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tradewind import settings as settings_module
from tradewind.commands.doctor import doctor_app
from tradewind.settings import load_settings
from tradewind.stack import weaknesses as module
from tradewind.stack.weaknesses import bundled_postgres, weaknesses


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings_module, "PROJECT_DIR", tmp_path)
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(tmp_path / "home"))
    return tmp_path


def test_the_server_without_the_fixes_is_named_until_one_with_them_is_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    version = bundled_postgres()
    assert version[0] == 16
    named = [line for line in weaknesses(load_settings()) if "16.15" in line]
    assert bool(named) == (version < (16, 15))
    monkeypatch.setattr(module, "bundled_postgres", lambda: (16, 15))
    assert not [line for line in weaknesses(load_settings()) if "16.15" in line]
    monkeypatch.setattr(module, "bundled_postgres", lambda: (16, 9))
    (named_again,) = [line for line in weaknesses(load_settings()) if "16.15" in line]
    assert "PostgreSQL 16.9 " in named_again
    elsewhere = load_settings(database_url="postgresql://me:pw@db.example/x")
    assert weaknesses(elsewhere) == []


def test_root_is_told_to_be_somebody_else() -> None:
    assert any(line.startswith("root runs") for line in weaknesses(load_settings())) == (os.geteuid() == 0)


def test_an_env_file_that_others_read_is_told_by_the_doctor(project: Path) -> None:
    path = project / ".env"
    path.write_text("TRADEWIND_GEMINI_API_KEY=0123456789abcdef\n")  # pragma: allowlist secret
    path.chmod(0o644)
    said = CliRunner().invoke(doctor_app, ["machine", "--json"])
    assert said.exit_code == 0, said.output
    first = json.loads(said.stdout)[0]
    assert "chmod 600" in first
    assert "0123456789abcdef" not in said.output
    path.chmod(0o600)
    assert first not in CliRunner().invoke(doctor_app, ["machine"]).output
