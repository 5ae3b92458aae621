"""What a deployment's database holds of its trading, also while nothing runs: after a restore, after `down`."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from tradewind.adapters.database import Database
from tradewind.errors import AlreadyRunning, StackFailed
from tradewind.settings import Settings
from tradewind.stack import services
from tradewind.stack.backup_file import count_rows, server_of

_LATCH: Final = "SELECT mode, reason, since FROM latches WHERE account = %(account)s"
_HELD: Final = """
    SELECT symbol, side, status, quantity, entry_price, stop_price, target_price, opened_at FROM positions
    WHERE account = %(account)s AND status IN ('opening', 'open', 'closing') ORDER BY opened_at, symbol"""
# A demo trades on an account of its own; whoever asks for the wrong one must not read "no positions" and believe it.
_OTHERS: Final = """
    SELECT account, coalesce(latches.mode, 'active') AS latch, coalesce(held.positions, 0) AS positions
    FROM latches FULL JOIN (
        SELECT account, count(*) FILTER (WHERE status IN ('opening', 'open', 'closing')) AS positions
        FROM positions GROUP BY account
    ) held USING (account)
    WHERE account <> %(account)s ORDER BY account"""
_DECIDED: Final = "SELECT max(bar) AS bar FROM decisions WHERE account = %(account)s"


def other_accounts(database: Database, account: str) -> list[dict[str, Any]]:
    """Latch and number of positions of each account in the database but this one."""
    return database.rows(_OTHERS, {"account": account})


def on_record(settings: Settings) -> dict[str, Any] | None:
    """The account's latch, what it holds, its newest decided bar (UTC); latch and number of positions of each other
    account; the rows of each table, whosever they are. None before the first start.

    An embedded server that is down is started for this while, unless the stack of this home is up without it. What
    cannot be read is told as `error`: whoever asks is looking for what is wrong.
    """
    if settings.uses_embedded_database and not services.embedded_postgres(settings).is_made:
        return None
    url = settings.database_url.get_secret_value()
    values = {"account": settings.account_id}
    try:
        with server_of(settings), psycopg.connect(url, connect_timeout=10, row_factory=dict_row) as connection:
            connection.read_only = True
            latch, decided = (connection.execute(query, values).fetchone() for query in (_LATCH, _DECIDED))
            return {
                "account": settings.account_id,
                "latch": latch or {"mode": "active", "reason": "", "since": None},
                "positions": connection.execute(_HELD, values).fetchall(),
                "last_decided_bar": decided["bar"] if decided else None,
                "other_accounts": connection.execute(_OTHERS, values).fetchall(),
                "rows": count_rows(connection),
            }
    except (AlreadyRunning, StackFailed) as error:
        return {"error": str(error)}
    except psycopg.Error as error:
        return {"error": f"the database could not be read ({type(error).__name__}): ./tradewind logs postgres says why"}
