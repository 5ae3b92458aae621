"""One full retraining in a process of its own, so that its memory is its own: `python -m tradewind.bench.retraining`.

The real job on a real database: candles are read from PostgreSQL, the version is saved beside its gates. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tradewind.adapters.alerts import OutboxAlerts
from tradewind.adapters.database import Database
from tradewind.adapters.market_store import PgMarketStore
from tradewind.adapters.metrics import NullMetrics
from tradewind.adapters.model_store import PgModelStore
from tradewind.backtest.instruments import inferred_instrument
from tradewind.bench.servers import scratch_database, scratch_dir, scratch_postgres
from tradewind.core import boosters, ensemble
from tradewind.core.boosters import Booster, BoosterSettings, Rows
from tradewind.core.params import StrategyParams
from tradewind.core.timeframes import from_ms
from tradewind.core.types import Bars, Instrument
from tradewind.core.validation import TrainingParams
from tradewind.jobs.training import retrain_models


class _Clock:
    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at


class _Listed:
    """The rules of the bench's symbols, read off their prices."""

    def __init__(self, bars: Mapping[str, Bars], params: StrategyParams) -> None:
        self._rules = {symbol: inferred_instrument(series, params) for symbol, series in bars.items()}

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        return {symbol: self._rules[symbol] for symbol in symbols}


class _TrainingPorts:
    """The part of `core.ports.Ports` that a training reaches; its clock stands at the close of the last bar."""

    params_error = ""

    def __init__(self, database_url: str, directory: Path, bars: Mapping[str, Bars]) -> None:
        self.params = StrategyParams(leader_symbol=next(iter(bars)))
        self.symbols = tuple(bars)
        self.database = Database(database_url)
        last_ms = max(int(series.open_time_ms[-1]) for series in bars.values())
        self.clock = _Clock(from_ms(last_ms) + timedelta(minutes=15))
        self.metrics = NullMetrics()
        self.alerts = OutboxAlerts(self.database, "bench")
        self.market_data = _Listed(bars, self.params)
        self.market_store = PgMarketStore(self.database)
        self.model_store = PgModelStore(self.database, directory.as_uri())


class _Stopwatch:
    """The seconds of each library fit, and those in which at least one was running."""

    def __init__(self) -> None:
        self.fits: list[float] = []
        self._lock = threading.Lock()
        self._running = 0
        self._since = 0.0
        self.wall_s = 0.0

    def watch(
        self, fit: Callable[[str, Rows, Rows, BoosterSettings], Booster]
    ) -> Callable[[str, Rows, Rows, BoosterSettings], Booster]:
        def timed(library: str, rows: Rows, stop: Rows, settings: BoosterSettings) -> Booster:
            start = time.perf_counter()
            with self._lock:
                if self._running == 0:
                    self._since = start
                self._running += 1
            try:
                return fit(library, rows, stop, settings)
            finally:
                end = time.perf_counter()
                with self._lock:
                    self.fits.append(end - start)
                    self._running -= 1
                    if self._running == 0:
                        self.wall_s += end - self._since

        return timed


def run(bars: Mapping[str, Bars], training: TrainingParams) -> dict[str, Any]:
    """Store the bars, retrain once, and say how long everything and the library fits inside took."""
    stopwatch = _Stopwatch()
    # Each fit is timed where the ensemble starts it.
    ensemble.fit_booster = stopwatch.watch(boosters.fit_booster)  # type: ignore[attr-defined, assignment]
    with scratch_dir() as directory, scratch_postgres(directory) as server:
        ports = _TrainingPorts(scratch_database(server, "bench"), directory / "models", bars)
        ports.market_store.insert_candles(list(bars.values()))
        before_mib = _peak_mib()
        start = time.perf_counter()
        report = retrain_models(ports, "bench", training)  # type: ignore[arg-type]  # the ports that a training reaches
        seconds = time.perf_counter() - start
        metrics = ports.model_store.version(report["version"])["manifest"]["metrics"]
        ports.database.close()
    return {
        "seconds": seconds,
        "fits": len(stopwatch.fits),
        "fits_s": sum(stopwatch.fits),
        "fits_wall_s": stopwatch.wall_s,
        "peak_mib": _peak_mib(),
        "before_mib": before_mib,
        "report": report,
        "metrics": metrics,
    }


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1024 * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bars", type=Path, help="An .npz with six columns a symbol, written by the bench.")
    parser.add_argument("--folds", type=int, default=5)
    chosen = parser.parse_args()
    stored = np.load(chosen.bars)
    symbols = [str(name) for name in stored["symbols"]]
    bars = {symbol: Bars(symbol, "15m", *(stored[f"{symbol} {column}"] for column in COLUMNS)) for symbol in symbols}
    print(json.dumps(run(bars, TrainingParams(folds=chosen.folds))))


COLUMNS = ("open_time_ms", "open", "high", "low", "close", "volume")


if __name__ == "__main__":
    main()
