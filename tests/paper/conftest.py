"""A paper exchange for the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.paper_server import PaperServerProcess

NOW_MS = 1_760_000_040_000


@pytest.fixture(scope="module")
def paper_server() -> Iterator[PaperServerProcess]:
    """An exchange without a database, shared by the tests of one file; its clock is the wall clock until set."""
    with PaperServerProcess() as server:
        yield server


@pytest.fixture
def troubled(paper_server: PaperServerProcess) -> Iterator[PaperServerProcess]:
    """The file's exchange at a moment that stands still; what a test did to its markets is undone after it."""
    paper_server.admin.set_clock(NOW_MS)
    yield paper_server
    paper_server.admin.clear_faults()
    paper_server.admin.calm()


@pytest.fixture
def paper_exchange(empty_postgres_url: str) -> Iterator[PaperServerProcess]:
    """An exchange of its own for one test, with a database that survives its restarts."""
    with PaperServerProcess(empty_postgres_url) as server:
        yield server
