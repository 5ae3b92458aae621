"""What is compiled while the stack starts is what the first cycle would have compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

KERNELS = ("rolling.", "regime.")


def test_the_kernels_of_a_cycle_lie_in_the_cache(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": "include"}
    command = [sys.executable, "-m", "tradewind.stack.kernels"]
    subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], check=True, timeout=120)
    compiled = {path.name for path in tmp_path.rglob("*.nbi")}
    for start in KERNELS:
        assert any(name.startswith(start) for name in compiled), compiled
