"""A futures account on the stepped paper exchange, long, short and over a funding, and its replay: the same."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np

from tests.parity.conftest import PARAMS, START_MS, SYMBOLS, Models, stepwise, write_market
from tests.parity.test_live_against_replay import ParityRig
from tests.support.futures import futures_account
from tests.support.futures_rig import FuturesRig
from tests.support.paper_server import PaperServerProcess
from tradewind.core.features import LIVE_WINDOW_BARS
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.resampling import BASE_MS
from tradewind.core.timeframes import from_ms
from tradewind.core.types import FloatArray, OrderRole, OrderState
from tradewind.jobs.parity import check_parity

BARS = 40  # past 08:00, where funding is settled


class FuturesParityRig(ParityRig, FuturesRig):
    """The same bar by bar, on /fapi."""


def both_ways(features: FloatArray) -> FloatArray:
    """Long where the steps say so, short where they are against it."""
    p = stepwise(features)
    short = p[:, 0] < 0.3
    return np.where(short[:, None], np.column_stack((p[:, 1], 0.7 - p[:, 0], 0.3 + p[:, 0] - p[:, 1])), p)


def test_a_futures_account_and_its_replay_are_equal(tmp_path: Path, module_database: str) -> None:
    write_market(tmp_path, LIVE_WINDOW_BARS + 50, BARS + 4)
    with PaperServerProcess(market=f"replay:{tmp_path}", own_time=True) as server:
        server.admin.set_clock(START_MS)
        rig = FuturesParityRig(server, module_database, futures_account(server), params=PARAMS, symbols=SYMBOLS)
        rig.model_store = Models(from_ms(START_MS) - timedelta(days=2), both_ways, both_ways)
        rig.collect(LIVE_WINDOW_BARS)
        rig.make_ready()
        for number in range(BARS):
            server.admin.set_clock(START_MS + number * BASE_MS)
            rig.live_one_bar()
        live = rig.parity_store.ledger(from_ms(0), from_ms(1 << 42))
        payments = rig.database.rows("SELECT symbol, at, amount FROM payments WHERE kind = 'funding_fee' ORDER BY at")
        result = check_parity(rig, from_ms(0), matching=MatchingSettings())
        rig.close()
    filled = Counter((order.role, order.is_buy) for order in live.orders if order.state is OrderState.FILLED)
    assert filled[OrderRole.ENTRY, True] >= 3
    assert filled[OrderRole.ENTRY, False] >= 3
    assert len(payments) >= 2, "no funding was paid"
    assert all(payment["amount"] for payment in payments)
    assert result["orders"] > 100
    assert result["differences"] == 0, result["shown"]
