"""A model loaded and asked once in a process of its own: bytes that crash or bloat a library end that process alone.

The libraries parse their files in native code. A hash says that a file is the one that was saved, not that it is sound,
so that a version is tried like this before it may become champion, however it came into the registry.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from tradewind.adapters.model_artifacts import load_family
from tradewind.core.types import RegimeFamily
from tradewind.errors import ModelUnavailable

# A family of three libraries takes some 400 MB, imports included; address space is several times that.
_MAX_MEMORY_BYTES: Final = 8 << 30
_MAX_CPU_S: Final = 120
_PATIENCE_S: Final = 600


def try_model(version: str, files: Mapping[str, bytes], families: Sequence[str], features: int) -> None:
    """Load every family and predict one row elsewhere.

    Raises ModelUnavailable, naming the cause, where that process refuses, crashes, or takes more than 8 GB or two
    minutes of processor time.
    """
    with tempfile.TemporaryDirectory(prefix="tradewind-model-") as directory:
        for name, content in files.items():
            target = Path(directory) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        command = [sys.executable, "-m", __name__, directory, str(features), *families]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise ModelUnavailable(f"model {version} cannot be used: loading it does not end") from None
    if done.returncode < 0:
        raise ModelUnavailable(
            f"model {version} cannot be used: loading it ends its process (signal {-done.returncode})"
        )
    if done.returncode > 0:
        cause = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelUnavailable(f"model {version} cannot be used: {cause[:300]}")


def main(directory: str, features: str, *families: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))
    root = Path(directory)
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    row = np.zeros((1, int(features)), dtype=np.float32)
    for name in families:
        answer = load_family(RegimeFamily(name), files).probabilities(row)
        if answer.shape != (1, 3) or not np.isfinite(answer).all():
            raise ModelUnavailable(f"the {name} model answers {answer.tolist()}, which are no probabilities")


if __name__ == "__main__":
    main(*sys.argv[1:])
