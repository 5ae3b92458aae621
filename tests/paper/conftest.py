"""A paper exchange for the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.paper_server import PaperServerProcess


@pytest.fixture(scope="module")
def paper_server() -> Iterator[PaperServerProcess]:
    """An exchange without a database, shared by the tests of one file; its clock is the wall clock until set."""
    with PaperServerProcess() as server:
        yield server


@pytest.fixture
def paper_exchange(empty_postgres_url: str) -> Iterator[PaperServerProcess]:
    """An exchange of its own for one test, with a database that survives its restarts."""
    with PaperServerProcess(empty_postgres_url) as server:
        yield server
