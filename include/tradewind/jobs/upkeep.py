"""Keep our own tables small and their statistics fresh."""

from __future__ import annotations

from typing import Any

from tradewind.core.ports import Ports


def maintain_storage(ports: Ports) -> dict[str, Any]:
    """Remove what has outlived its use and refresh the planner's statistics; running it again removes nothing more.

    Returns `removed` (rows by table) and `largest` (bytes by table).
    """
    removed = ports.upkeep.remove_expired(ports.clock.now())
    tables = ports.upkeep.refresh_statistics()

    for table in tables:
        ports.metrics.gauge("tradewind.storage.table_bytes", table["bytes"], table=table["name"])
    for name, rows in removed.items():
        ports.metrics.count("tradewind.storage.rows_removed", rows, table=name)
    return {"removed": removed, "largest": {table["name"]: table["bytes"] for table in tables}}
