"""What a run is made of, symbol by symbol: bars from files or the database, forecasts of a rule or of stored models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Final

from tradewind.core.params import StrategyParams
from tradewind.core.ports import Ports
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import Bars
from tradewind.errors import BadInput, ModelUnavailable

from .candle_files import read_candles
from .instruments import inferred_instrument
from .parallel import build_all
from .rules import RULES, rule_series
from .signals import ModelSpan, SymbolSeries
from .spilling import spilled

Say = Callable[[str], None]
OpenPorts = Callable[[], AbstractContextManager[Ports]]
_FAR_MS: Final = 1 << 45  # the year 3084: still a date
_MODELS: Final = ("walk-forward", "champion")


@contextmanager
def spill_folder(parent: Path | None) -> Iterator[Path | None]:
    """A folder of one's own inside `parent`, gone afterwards; None without a parent."""
    if parent is None:
        yield None
        return
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="columns-", dir=parent) as name:
        yield Path(name)


@contextmanager
def bars_reader(candles: Path | None, open_ports: OpenPorts, warn: Say) -> Iterator[Callable[[str], Bars]]:
    """Reads one symbol's 15m bars, from files or from the database; one at a time, whoever asks.

    Raises BadInput for a symbol without bars.
    """
    lock = Lock()
    with ExitStack() as stack:
        ports = stack.enter_context(open_ports()) if candles is None else None

        def read(symbol: str) -> Bars:
            with lock:
                if candles is not None:
                    bars = _read_file(candles, symbol, warn)
                else:
                    assert ports is not None
                    bars = ports.market_store.read_bars((symbol,), "15m", 0, _FAR_MS)[symbol]
            if len(bars) == 0:
                raise BadInput(f"no 15m bars of {symbol}: import them, or point --candles at a folder that has them")
            return bars

        yield read


def _read_file(candles: Path, symbol: str, warn: Say) -> Bars:
    bars, refused = read_candles(candles, symbol)
    if refused:
        warn(f"{refused} rows of {symbol} cannot be true and were left out")
    return bars


@dataclass(frozen=True)
class Inputs:
    """What a run is made of."""

    series: dict[str, SymbolSeries]
    params: StrategyParams
    labels: list[str]
    spans: tuple[ModelSpan, ...] | None = None


def inputs_of(
    rule: str,
    models: str,
    symbols: tuple[str, ...],
    candles: Path | None,
    open_ports: OpenPorts,
    end_ms: int,
    step: Say,
    spilling: Path | None = None,
    warn: Say = lambda _words: None,
) -> Inputs:
    """Everything that a run over these symbols is made of; `step` hears what is being done, `warn` what was left out.

    With a folder to spill to, a symbol's columns are kept there as soon as they are made.
    """
    if rule:
        return _rule_inputs(rule, symbols, candles, open_ports, step, _keeper(spilling), warn)
    if models not in _MODELS:
        raise BadInput(f"--models {models} is not known; use {' or '.join(_MODELS)}, or --rule ema_cross")
    return _model_inputs(models, symbols, candles, open_ports, end_ms, step, _keeper(spilling), warn)


def _keeper(spilling: Path | None) -> Callable[[SymbolSeries], SymbolSeries]:
    if spilling is None:
        return lambda series: series
    return lambda series: spilled(series, spilling)


def _rule_inputs(
    name: str,
    symbols: tuple[str, ...],
    candles: Path | None,
    open_ports: OpenPorts,
    step: Say,
    keep: Callable[[SymbolSeries], SymbolSeries],
    warn: Say,
) -> Inputs:
    if name not in RULES:
        raise BadInput(f"--rule {name} is not known; one of {', '.join(RULES)}")
    rule = RULES[name]
    series = {}
    with bars_reader(candles, open_ports, warn) as read:
        for symbol in symbols:
            step(f"columns of {symbol}")
            bars = read(symbol)
            series[symbol] = keep(rule_series(bars, inferred_instrument(bars, rule.params), rule))
    return Inputs(series, rule.params, [f"rule {name}: no model"])


def _model_inputs(
    models: str,
    symbols: tuple[str, ...],
    candles: Path | None,
    open_ports: OpenPorts,
    end_ms: int,
    step: Say,
    keep: Callable[[SymbolSeries], SymbolSeries],
    warn: Say,
) -> Inputs:
    """Series with forecasts, stored news scores and, with stored bars, the rules that the account last traded by."""
    from .walk_forward import spans_of, walk_forward_series

    with open_ports() as ports:
        params, store = ports.params, ports.model_store
        if models == "champion":
            champion = store.champion()
            ends = {} if champion is None else {champion.version: 0}
            label = "looks back: bars before the model's training end were seen in training"
        else:
            ends = {row["version"]: to_ms(row["trained_until"]) for row in store.deciding(from_ms(end_ms))}
            label = "walk-forward: each version decides from the end of its data; it was chosen by the weeks after"
        if not ends:
            raise ModelUnavailable("no model could decide here: train one (./tradewind demo), or use --rule ema_cross")
        spans = spans_of(ends)
        news = ports.state_store.sentiment_between(symbols, from_ms(0), from_ms(end_ms))
        stored = {} if candles is not None else ports.parity_store.newest_instruments()
        loaded = {version: store.load(version) for version in ends}
    with bars_reader(candles, open_ports, warn) as read:
        leader = read(params.leader_symbol)

        def build(symbol: str) -> SymbolSeries:
            bars = leader if symbol == params.leader_symbol else read(symbol)
            rules = stored.get(symbol) or inferred_instrument(bars, params)
            made = walk_forward_series(bars, leader, rules, spans, loaded.__getitem__, params, news[symbol])
            return keep(made)

        series = build_all(symbols, build, lambda symbol: step(f"features and forecasts of {symbol}"))
    guessed = [symbol for symbol in symbols if symbol not in stored]
    labels = [label] + ([f"steps and ticks of {', '.join(guessed)} are read off the prices"] if guessed else [])
    return Inputs(series, params, labels, None if models == "champion" else spans)
