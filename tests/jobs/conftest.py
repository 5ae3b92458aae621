"""A paper exchange and a database a test: each meets the same bars, whatever ran before it and beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind.core.timeframes import to_ms

NOW_MS = to_ms(datetime(2024, 3, 5, 12, 0, 5, tzinfo=UTC))


@pytest.fixture
def paper_server() -> Iterator[PaperServerProcess]:
    with PaperServerProcess() as server:
        server.admin.set_clock(NOW_MS)
        yield server


@pytest.fixture
def make_rig(paper_server: PaperServerProcess, postgres_url: str) -> Iterator[Callable[..., Rig]]:
    """Rigs on one database; give `balances` for another account than 10,000 USDT, `paper_account` for the same."""
    made: list[Rig] = []

    def make(balances: dict[str, str] | None = None, paper_account: Any = None, **options: Any) -> Rig:
        account = paper_account or paper_server.create_account(**(balances or {}))
        made.append(Rig(paper_server, postgres_url, account, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()
