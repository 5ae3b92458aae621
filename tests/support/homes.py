"""Homes of deployments whose embedded servers are the test session's."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tradewind.stack.postgres import EmbeddedPostgres


def lent(server: EmbeddedPostgres, home: Path) -> dict[str, Any]:
    """Overrides of a home that finds this server where its own would be."""
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "postgres-socket").symlink_to(server.socket_dir)
    return {"home_dir": home, "postgres_password": unquote(urlsplit(server.url()).password or "")}
