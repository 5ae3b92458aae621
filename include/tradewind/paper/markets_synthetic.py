"""The synthetic market: seeded, endless, and the same bars for the same seed and time whatever range is asked.

Time is cut into blocks of four weeks. A block is drawn from a counter-based generator keyed by (seed, symbol, block),
so any block can be made without the ones before it. Prices join at block borders because each block is bent to start
and end on levels that are drawn separately, by halving a span of blocks again and again (a Brownian bridge): over years
the level wanders, but always comes back.

Inside a block the return of minute i is

    r_i = σ_i · (√share · common_i + √(1 - share) · own_i + drift_i) - pull · (distance to the recent mean)

with a volatility σ that drifts over days (volatility clusters, fat tails at every timeframe) and rare jumps. Drift and
pull are the market's only secret, scaled by `structure` in 0..1:

- every symbol is, for days at a time, in a following or in a contrary state; the first trades more and moves more;
- a latent flow, persistent for half a day, shows in who trades: volume is higher on bars in its direction;
- most of a day later the price drifts with that flow in the following state, and against it in the contrary one;
- the price is pulled back a little towards its recent mean, which hides the drift from anyone who looks at past
  returns alone.

So no single measure tells where the price goes: the balance of volume means one thing in one state and the opposite in
the other, and they must be read together. With `structure` = 0 states and flow are still there, and say nothing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tradewind.core.matching_rules import SymbolRules
from tradewind.core.types import FloatArray
from tradewind.paper.markets import DAY_MS, MINUTE_MS, Listing, TickBars, empty_bars, join_bars, listing
from tradewind.paper.markets_kernel import bend_ends, minute_returns

MARKET_VERSION = 2
"""Raise it whenever the same seed gives other bars: state kept under the old ones is then refused, not mixed."""
BLOCK_DAYS = 28
BLOCK_MINUTES = BLOCK_DAYS * 1440
BLOCK_MS = BLOCK_DAYS * DAY_MS
HISTORY_START_MS = 1_545_868_800_000 // BLOCK_MS * BLOCK_MS + BLOCK_MS
"""The first bar of the market, early in 2019."""

_LEVEL_SPAN = 32  # blocks between two anchors of the price level
_CACHED_BLOCKS = 48
_NODE_MINUTES = 15


@dataclass(frozen=True, slots=True)
class SyntheticParams:
    """The character of the market. Rates are per minute where a name says so; days are days of market time."""

    daily_sigma_frac: float = 0.032
    common_share: float = 0.25
    """Share of a symbol's variance that is the common factor's: about the correlation between two symbols."""
    slow_vol_days: float = 12.0
    slow_vol_sd: float = 0.30
    state_days: float = 4.0
    state_vol: float = 0.12
    """Half the log-volatility gap between the following and the contrary state."""
    state_volume: float = 0.6
    flow_days: float = 0.6
    flow_lead_days: float = 0.9
    """How long the flow shows in the volume before the price follows it."""
    trend_drift: float = 2.2
    """Drift in daily σ per unit of flow in the following state."""
    contrary_drift: float = 2.2
    """The same against the flow, in the contrary state."""
    reversion_days: float = 0.4
    reversion_pull: float = 0.7
    """How much of the distance to the recent mean is pulled back in `reversion_days`."""
    flow_volume: float = 0.8
    jump_rate: float = 1 / 2000
    jump_size: float = 7.0
    volume_noise: float = 0.6
    level_sigma_frac: float = 0.16


class SyntheticMarket:
    """An endless market in the given symbols (written BASE/QUOTE)."""

    def __init__(
        self, symbols: Iterable[str], seed: int, structure: float = 1.0, params: SyntheticParams | None = None
    ) -> None:
        if not 0 <= structure <= 1:
            raise ValueError(f"structure is {structure}; it must lie in 0..1")
        listings = [listing(s) for s in symbols]
        self._listings: dict[str, Listing] = {x.rules.symbol: x for x in listings}
        self._seed = seed
        self._structure = structure
        self._params = params or SyntheticParams()
        self._blocks: OrderedDict[tuple[str, int], TickBars] = OrderedDict()
        self._common: OrderedDict[int, FloatArray] = OrderedDict()

    @property
    def name(self) -> str:
        return "synthetic"

    @property
    def identity(self) -> str:
        return f"synthetic {MARKET_VERSION} seed={self._seed} structure={self._structure:g}"

    @property
    def base_ms(self) -> int:
        return MINUTE_MS

    @property
    def rules(self) -> dict[str, SymbolRules]:
        return {s: x.rules for s, x in self._listings.items()}

    def first_ms(self, symbol: str) -> int:
        return HISTORY_START_MS

    def bars(self, symbol: str, start_ms: int, end_ms: int) -> TickBars:
        """Minute bars that open in [start_ms, end_ms)."""
        start_ms = max(start_ms, HISTORY_START_MS)
        if end_ms <= start_ms:
            return empty_bars()
        blocks = range(start_ms // BLOCK_MS, (end_ms - 1) // BLOCK_MS + 1)
        return join_bars(self._block(symbol, b).between(start_ms, end_ms) for b in blocks)

    def _block(self, symbol: str, block: int) -> TickBars:
        key = (symbol, block)
        found = self._blocks.get(key)
        if found is None:
            found = self._blocks[key] = self._make_block(symbol, block)
            while len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(key)
        return found

    def _make_block(self, symbol: str, block: int) -> TickBars:
        p, entry = self._params, self._listings[symbol]
        rng = self._rng(symbol, block)
        nodes = BLOCK_MINUTES // _NODE_MINUTES
        own_vol = self._lattice(symbol, "vol", block, p.slow_vol_days)
        common_vol = self._lattice("*", "vol", block, p.slow_vol_days)
        state = np.tanh(2.5 * self._lattice(symbol, "state", block, p.state_days, balanced=True))
        flow = _squash(self._lattice(symbol, "flow", block, p.flow_days))
        earlier_flow = _squash(self._lattice(symbol, "flow", block, p.flow_days, int(p.flow_lead_days * DAY_MS)))
        log_vol = p.slow_vol_sd * (0.6 * own_vol + 0.8 * common_vol) + p.state_vol * state
        sigma_node = p.daily_sigma_frac / np.sqrt(1440) * np.exp(log_vol)

        noise = rng.standard_normal(BLOCK_MINUTES)
        noise *= np.sqrt(1 - p.common_share)
        noise += np.sqrt(p.common_share) * self._common_noise(block)
        jumps = rng.random(BLOCK_MINUTES) < p.jump_rate
        noise[jumps] *= p.jump_size
        following = (1 + state) / 2
        strength = self._structure
        flow_drift = (
            strength * earlier_flow * (p.trend_drift * following - p.contrary_drift * (1 - following)) / np.sqrt(1440)
        )
        pull = np.full_like(flow_drift, strength * p.reversion_pull / (p.reversion_days * 1440))
        returns = minute_returns(noise, sigma_node, flow_drift, pull, 1.0 / (p.reversion_days * 1440), _NODE_MINUTES)
        start, end = self._level(symbol, block), self._level(symbol, block + 1)
        log_close = bend_ends(returns, sigma_node, start, end, _NODE_MINUTES)
        return self._bars_from(symbol, entry, block, rng, log_close, start, sigma_node, state, flow, log_vol, nodes)

    def _bars_from(
        self,
        symbol: str,
        entry: Listing,
        block: int,
        rng: np.random.Generator,
        log_close: FloatArray,
        start: float,
        sigma_node: FloatArray,
        state: FloatArray,
        flow: FloatArray,
        log_vol: FloatArray,
        nodes: int,
    ) -> TickBars:
        p = self._params
        tick = float(entry.rules.tick)
        log_open = np.empty_like(log_close)
        log_open[0], log_open[1:] = start, log_close[:-1]
        # The extremes of a Brownian path between two known ends, from the reflection principle.
        variance = np.repeat(sigma_node**2, _NODE_MINUTES)
        gap = log_close - log_open
        reach = rng.exponential(size=(2, BLOCK_MINUTES)).astype(np.float64)
        wide = np.sqrt(gap * gap + 2 * variance * reach)
        log_high = (log_open + log_close + wide[0]) / 2
        log_low = (log_open + log_close - wide[1]) / 2
        scale = entry.anchor_price / tick

        def ticks(log_price: FloatArray) -> NDArray[np.int64]:
            return np.maximum(np.rint(np.exp(log_price) * scale), 2).astype(np.int64)

        opens, closes = ticks(log_open), ticks(log_close)
        highs = np.maximum(ticks(log_high), np.maximum(opens, closes))
        lows = np.minimum(ticks(log_low), np.minimum(opens, closes))

        lean = np.tanh(gap / np.sqrt(variance))
        per_minute = entry.daily_volume_quote / 1440
        activity = np.repeat(0.6 * log_vol + p.state_volume * state, _NODE_MINUTES)
        activity += p.flow_volume * lean * np.repeat(flow, _NODE_MINUTES)
        activity += 0.35 * np.abs(lean) + p.volume_noise * rng.standard_normal(BLOCK_MINUTES)
        quote_volume = per_minute * np.exp(activity - p.volume_noise**2 / 2)
        volume = np.maximum(quote_volume / (closes * tick * float(entry.rules.step)), 1).astype(np.int64)
        taker = (volume * (0.5 + 0.2 * lean)).astype(np.int64)
        open_ms = np.arange(BLOCK_MINUTES, dtype=np.int64) * MINUTE_MS + block * BLOCK_MS
        return TickBars(open_ms, opens, highs, lows, closes, volume, taker)

    # -------------------------------------------------------------------------------------------------- random access
    def _rng(self, *key: str | int) -> np.random.Generator:
        text = "|".join(str(part) for part in (self._seed, *key))
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        words = np.frombuffer(digest, np.uint64)
        return np.random.Generator(np.random.Philox(key=words))

    def _common_noise(self, block: int) -> FloatArray:
        found = self._common.get(block)
        if found is None:
            found = self._common[block] = self._rng("common", block).standard_normal(BLOCK_MINUTES)
            while len(self._common) > 4:
                self._common.popitem(last=False)
        return found

    def _lattice(
        self, symbol: str, what: str, block: int, period_days: float, ago_ms: int = 0, *, balanced: bool = False
    ) -> FloatArray:
        """A smooth, stationary, unit-variance process at 15-minute steps: values drawn at its nodes, blended between.

        The blend keeps the variance at one between nodes too. Nodes are numbered from the epoch and drawn a few hundred
        at a time, so that neighbouring blocks draw the same ones. `balanced` gives the two nodes of a pair opposite
        signs: over weeks neither side prevails. `ago_ms` reads the process so much earlier.
        """
        period_ms = int(period_days * DAY_MS)
        at = (
            np.arange(BLOCK_MINUTES // _NODE_MINUTES, dtype=np.int64) * (_NODE_MINUTES * MINUTE_MS)
            + block * BLOCK_MS
            - ago_ms
        )
        node, offset = np.divmod(at, period_ms)
        first, last = int(node[0]), int(node[-1]) + 1
        chunks = range(first // 256, last // 256 + 1)
        drawn = np.concatenate([self._rng(symbol, what, c).standard_normal(256) for c in chunks])
        if balanced:
            drawn[1::2] = -np.sign(drawn[::2]) * np.abs(drawn[1::2])
        base = chunks[0] * 256
        weight = offset / period_ms
        left, right = drawn[node - base], drawn[node + 1 - base]
        blended: FloatArray = np.cos(np.pi / 2 * weight) * left + np.sin(np.pi / 2 * weight) * right
        return blended

    def _level(self, symbol: str, block: int) -> float:
        """The log price (relative to the anchor price) at the start of a block."""
        share = self._params.common_share
        return float(np.sqrt(share) * self._bridge("*", block) + np.sqrt(1 - share) * self._bridge(symbol, block))

    def _bridge(self, symbol: str, block: int) -> float:
        left = block // _LEVEL_SPAN * _LEVEL_SPAN
        right = left + _LEVEL_SPAN
        low, high = (0.15 * float(self._rng(symbol, "anchor", b).standard_normal()) for b in (left, right))
        while right - left > 1:
            if block == left:
                return low
            middle = (left + right) // 2
            sd = self._params.level_sigma_frac * np.sqrt(right - left) / 2
            value = (low + high) / 2 + sd * float(self._rng(symbol, "level", left, right).standard_normal())
            if block >= middle:
                left, low = middle, value
            else:
                right, high = middle, value
        return low


def _squash(values: FloatArray) -> FloatArray:
    """A normal process as one that mostly sits near plus or minus one, with unit variance."""
    squashed: FloatArray = np.tanh(1.2 * values) / 0.66
    return squashed
