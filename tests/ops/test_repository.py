"""What must never lie in the repository: keys, tokens, addresses with a password in them."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from detect_secrets import SecretsCollection
from detect_secrets.settings import transient_settings

from tradewind.settings import PROJECT_DIR

BASELINE = ".secrets.baseline"

# Each has a form of its own that no hash, id or word of ours shares.
PATTERNS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an AWS key": r"\bAKIA[0-9A-Z]{16}\b",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a GitHub token": r"\bgh[pousr]_[0-9A-Za-z]{36}\b",
    "a Slack token": r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a Telegram bot": r"\b\d{8,10}:AA[0-9A-Za-z_-]{33}\b",
    "a PyPI token": r"\bpypi-[0-9A-Za-z_-]{50,}",
    "a key of Binance's length": r"(?i)(?:api_?key|api_?secret)[\"']?\s*[:=]\s*[\"'][0-9a-z]{64}[\"']",
    "a Fernet key": r"(?i)fernet\w*[\"']?\s*[:=]\s*[\"'][0-9A-Za-z_-]{43}=[\"']",
}


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """Every text file that git tracks, but the locks, which are hashes."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT_DIR, capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    found = {}
    for name in filter(None, listed.decode().split("\0")):
        path = PROJECT_DIR / name
        if path.is_file() and not re.match(r"requirements.*\.txt$", path.name):
            try:
                found[name] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # an image
    return found


@pytest.mark.parametrize("what", PATTERNS)
def test_no_file_holds(files: dict[str, str], what: str) -> None:
    assert [name for name, text in files.items() if re.search(PATTERNS[what], text)] == []


def test_detect_secrets_finds_nothing_new(files: dict[str, str]) -> None:
    """Beside what the baseline knows by its hash: values of tests, and names of secret files.

    After a look at each: `.venv/bin/detect-secrets scan --exclude-files 'requirements.*\\.txt' > .secrets.baseline`.
    """
    baseline = json.loads((PROJECT_DIR / BASELINE).read_text())
    found = SecretsCollection(root=str(PROJECT_DIR))
    with transient_settings(baseline):
        for name in files:
            if name != BASELINE:
                found.scan_file(name)
    known = {(name, secret["hashed_secret"]) for name, secrets in baseline["results"].items() for secret in secrets}
    assert {(name, secret.type) for name, secret in found if (name, secret.secret_hash) not in known} == set()
    assert len(known) < 40, "the baseline is for what is no secret, not for what there was no time to look at"


def test_the_patterns_find_what_they_name() -> None:
    examples = {
        "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
        "an AWS key": "AKIA" + "A" * 16,
        "a Google key": "AIza" + "b" * 35,
        "a GitHub token": "ghp_" + "c" * 36,
        "a Slack token": "xoxb-" + "1" * 12,
        "a Telegram bot": "123456789:AA" + "d" * 33,
        "a PyPI token": "pypi-" + "e" * 50,
        "a key of Binance's length": "api_key = '" + "f" * 64 + "'",
        "a Fernet key": 'FERNET_KEY: "' + "g" * 43 + '="',
    }
    assert examples.keys() == PATTERNS.keys()
    for what, text in examples.items():
        assert re.search(PATTERNS[what], text), what


def test_state_and_settings_are_ignored_by_git() -> None:
    ignored = (PROJECT_DIR / ".gitignore").read_text().split()
    assert {".tradewind/", ".env"} <= set(ignored)


@pytest.mark.parametrize("name", ["threat-model.md", "exchanges.md"])
def test_each_test_that_a_document_names_is_there(name: str) -> None:
    text = (PROJECT_DIR / "docs" / name).read_text()
    named = re.findall(r"`(tests/[^`:]+)(?:::(\w+))?`", text)
    assert len(named) > 20
    for path, test in named:
        found = PROJECT_DIR / path
        assert found.exists(), path
        assert not test or f"def {test}(" in found.read_text(), f"{path}::{test}"
