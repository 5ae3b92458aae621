"""When no entry may be sent: a clock that ran backwards, and nothing that a loss could be measured against."""

from __future__ import annotations

from datetime import timedelta

from tests.support.prices import ShiftedClock
from tests.support.trading_rig import Rig
from tradewind.jobs.permission import permission_now
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import watch_risk_once


def reasons(rig: Rig) -> str:
    permission = permission_now(rig)
    assert permission.allowed is not bool(permission.reasons)
    return "; ".join(permission.reasons)


def test_a_sign_of_life_from_the_future_is_none(rig: Rig) -> None:
    """The clock was an hour ahead and was set right; the watch died meanwhile."""
    rig.make_ready()
    rig.database.execute("UPDATE heartbeats SET at = at + interval '1 hour'")
    assert "the clock ran backwards" in reasons(rig)
    watch_risk_once(rig)
    assert reasons(rig) == "", "the next beat takes its place"
    rig.database.execute("UPDATE heartbeats SET at = at + interval '0.4 seconds'")
    assert reasons(rig) == "", "two machines' clocks differ by as much"


def test_a_comparison_from_the_future_is_none(rig: Rig) -> None:
    rig.make_ready()
    rig.database.execute("UPDATE reconciliations SET at = at + interval '1 hour'")
    assert "the last reconciliation is 3600 s in the future" in reasons(rig).replace("3599", "3600")
    manage_positions(rig)
    assert reasons(rig) == ""


def test_no_reading_of_equity_is_no_permission(rig: Rig) -> None:
    rig.make_ready()
    assert reasons(rig) == ""
    clock = rig.clock = ShiftedClock(rig.clock)
    clock.ahead = timedelta(days=1)
    assert reasons(rig) == "", "the last reading before midnight serves until the day has its own"
    rig.database.execute("DELETE FROM equity")
    assert reasons(rig).count("was not marked yet") == 2
    watch_risk_once(rig)
    assert reasons(rig) == ""
