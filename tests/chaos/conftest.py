"""The same parts as in tests/jobs: one paper exchange a session, accounts of their own."""

from __future__ import annotations

from tests.jobs.conftest import make_rig, paper_server, rig

__all__ = ["make_rig", "paper_server", "rig"]
