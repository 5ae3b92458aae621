"""Out of a replay's series the columns of the compiled loop, and whether it can live through them at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np

from tradewind.backtest.booking import decimals_of, rules_of
from tradewind.backtest.settings import ReplaySettings
from tradewind.backtest.signals import SymbolSeries, judged_at_once, moment, prefilter
from tradewind.backtest.spilling import MappedSeries
from tradewind.backtest.ticks import TickedSeries
from tradewind.backtest.timeline import Timeline
from tradewind.core.brackets import decimal_of
from tradewind.core.decision import RANKED_DIGITS
from tradewind.core.gates import SYMBOL_GATES, choose_signal
from tradewind.core.inputs import CycleInputs
from tradewind.core.matching_book import BarPath, MatchingSettings
from tradewind.core.matching_rules import atoms
from tradewind.core.orders import intent_id
from tradewind.core.params import StrategyParams
from tradewind.core.positions import Costs
from tradewind.core.regime import FAMILIES
from tradewind.core.types import BracketSupport, IntArray

from .layout import CANDIDATE, SYMBOL, TERMS, Market, Records

_PPM: Final = 1_000_000
_MOST_POSITIONS: Final = 64
_MOST_LOTS: Final = 10**17
_MOST_DENOMINATOR: Final = 1_000_000
_MOST_CELLS: Final = 30_000_000  # symbols × moments: more than that is left to the loop that reads mapped files
_MOST_CAPITAL: Final = 10**16  # atoms: products stay within 63 bits
_LATER: Final = ("permission", "cooldown")  # gates that the loop asks itself


def is_served(
    series: Mapping[str, SymbolSeries], params: StrategyParams, settings: ReplaySettings, matching: MatchingSettings
) -> bool:
    """Spot, long, alone with its own circumstances: what the compiled loop knows."""
    own = settings.recorded is None and not settings.recent_trades and not settings.base_held and not settings.baseline
    market = matching.path is BarPath.ADVERSE_FIRST and matching.quoted_half_spread_ticks == 0
    decimals = decimals_of(s.instrument for s in series.values())
    limits = params.max_positions_per_symbol == 1 and params.max_positions <= _MOST_POSITIONS
    fractions = (params.trending.target_r, params.ranging.target_r, params.partial_frac, params.partial_target_r)
    return (
        own
        and market
        and limits
        and not settings.visit_every_bar
        and 0 <= settings.decision_delay_s <= params.max_bar_age_s
        and settings.capital_quote.scaleb(decimals) == atoms(settings.capital_quote, decimals) <= _MOST_CAPITAL
        and all(_ratio(value)[1] <= _MOST_DENOMINATOR for value in fractions)
        and all(_is_simple(s) for s in series.values())
        and sum(len(s) for s in series.values()) <= _MOST_CELLS
    )


def _is_simple(series: SymbolSeries) -> bool:
    i = series.instrument
    whole = (
        i.taker_fee_frac * _PPM,
        i.maker_fee_frac * _PPM,
        i.min_quantity / i.step_size,
        min(i.max_market_quantity / i.step_size, Decimal(_MOST_LOTS)),
    )
    return (
        not isinstance(series, MappedSeries)
        and i.margin is None
        and i.active
        and i.target_rests
        and i.bracket is not BracketSupport.EMULATED
        and i.min_quantity > 0
        and all(value == int(value) for value in whole)
        and i.min_notional_quote.scaleb(8) == int(i.min_notional_quote.scaleb(8))
    )


def _ratio(value: float) -> tuple[int, int]:
    return decimal_of(value).as_integer_ratio()


# -------------------------------------------------------------------------------------------------------------- market
def market_of(series: Mapping[str, TickedSeries], params: StrategyParams, timeline: Timeline, start_ms: int) -> Market:
    """Columns by (symbol, index) over the timeline's moments; where a symbol has no bar they hold its first one."""
    times = timeline.times
    names = ("open", "high", "low", "close", "volume_lots")
    columns: dict[str, Any] = {
        name: _by_symbol([own.ticks for own in series.values()], name, timeline) for name in names
    }
    quotes = _by_symbol([own.bars for own in series.values()], "close", timeline)
    present = np.stack([rows >= 0 for rows in timeline.rows.values()])
    alone = len(series) == 1  # then nothing is correlated with it
    returns, known = (quotes, present.view(np.uint8)) if alone else _returns(quotes, present, timeline.follows)
    return Market(
        times=times,
        follows=timeline.follows,
        present=present,
        open=columns["open"],
        high=columns["high"],
        low=columns["low"],
        close=columns["close"],
        volume=columns["volume_lots"],
        close_quote=quotes,
        returns=returns,
        has_return=known,
        first=int(np.searchsorted(times, start_ms)),
        symbols=_symbols(series, params),
    )


def _by_symbol(columns: Sequence[Any], name: str, timeline: Timeline) -> Any:
    """One column of every symbol over the moments; what a symbol has no bar for holds anything."""
    found = [getattr(column, name) for column in columns]
    stretches = timeline.stretches
    if len(found) == 1 and stretches[0] is not None and stretches[0][0] == slice(0, len(timeline)):
        return found[0][stretches[0][1]].reshape(1, -1)
    out = np.empty((len(found), len(timeline)), dtype=found[0].dtype)
    for place, (column, rows, stretch) in enumerate(zip(found, timeline.rows.values(), stretches, strict=True)):
        if stretch is not None:
            out[place, stretch[0]] = column[stretch[1]]
        else:
            at = np.flatnonzero(rows >= 0)
            out[place, at] = column[rows[at]]
    return out


def _returns(quotes: Any, present: Any, follows: Any) -> tuple[Any, Any]:
    """Log returns between neighbouring bars by (symbol, index), 0 where there is none, and 1 where there is one."""
    known = np.zeros(quotes.shape, dtype=np.uint8)
    known[:, 1:] = present[:, 1:] & present[:, :-1] & follows[:-1]
    logs = np.zeros(quotes.shape)
    np.log(quotes, out=logs, where=present)
    steps = np.empty(quotes.shape)
    steps[:, 0] = 0.0
    np.subtract(logs[:, 1:], logs[:, :-1], out=steps[:, 1:])
    steps *= known
    return steps, known


def _symbols(series: Mapping[str, SymbolSeries], params: StrategyParams) -> Records:
    out = np.zeros(len(series), dtype=SYMBOL).view(np.recarray)
    decimals = decimals_of(own.instrument for own in series.values())
    for place, own in enumerate(series.values()):
        i, rules = own.instrument, rules_of(own.instrument, decimals)
        costs = Costs.of(params, float(i.taker_fee_frac))
        num, den = i.tick_size.as_integer_ratio()
        out[place] = (
            rules.quote_atoms_per_ticklot, rules.base_atoms_per_lot, num, den, float(i.tick_size), float(i.step_size),
            rules.min_lots, rules.max_market_lots, rules.min_notional_atoms, rules.maker_fee_ppm, rules.taker_fee_ppm,
            int(i.bracket is BracketSupport.OPOCO),
            costs.fee_frac, costs.market_frac,
        )  # fmt: skip
    return out


def terms_of(
    params: StrategyParams, settings: ReplaySettings, matching: MatchingSettings, decimals: int, count: int
) -> Records:
    """The thresholds of a run with `count` candidates."""
    costs = Costs.of(params)
    most = settings.max_capital_quote
    found = {
        "capital": atoms(settings.capital_quote, decimals),
        "atoms_per_unit": 10**decimals,
        "max_equity_quote": float(most) if most is not None else float("inf"),
        "delay_ms": round(settings.decision_delay_s * 1000),
        "half_spread_ppm": matching.half_spread_ppm,
        "level_step_ppm": matching.level_step_ppm,
        "slippage_ppm": matching.slippage_ppm,
        "levels": matching.levels,
        "participation_ppm": matching.participation_ppm,
        "needs_trade_through": matching.limit_needs_trade_through,
        "horizon_bars": params.horizon_bars,
        "break_even_r": params.break_even_r,
        "trail_atr": params.trail_atr,
        "min_stop_move_atr": params.min_stop_move_atr,
        "failed_stop_r": params.failed_stop_r,
        "entry_through_atr_frac": params.entry_through_atr_frac,
        "partial_num": _ratio(params.partial_frac)[0],
        "partial_den": _ratio(params.partial_frac)[1],
        "partial_target_num": _ratio(params.partial_target_r)[0],
        "partial_target_den": _ratio(params.partial_target_r)[1],
        "max_positions": params.max_positions,
        "cooldown_bars": params.cooldown_bars,
        "max_losses": min(params.max_consecutive_losses, count + 1),
        "loss_pause_ms": round(params.loss_pause_s * 1000),
        "max_correlation": params.max_correlation,
        "correlation_bars": params.correlation_window_bars,
        "fee_frac": costs.fee_frac,
        "market_frac": costs.market_frac,
        "risk_frac": params.risk_frac,
        "min_risk_share_frac": params.min_risk_share_frac,
        "max_bar_volume_frac": params.max_bar_volume_frac,
        "symbol_frac": params.max_symbol_exposure_frac,
        "total_frac": params.max_total_exposure_frac,
        "open_risk_frac": params.max_open_risk_frac,
        "max_daily_loss_frac": params.max_daily_loss_frac,
        "max_drawdown_frac": params.max_drawdown_frac,
    }
    out = np.zeros(1, dtype=TERMS)
    for name, value in found.items():
        out[name] = value
    return out.view(np.recarray)[0]


# ---------------------------------------------------------------------------------------------------------- candidates
def candidates_of(
    series: dict[str, TickedSeries],
    params: StrategyParams,
    settings: ReplaySettings,
    market: Market,
    timeline: Timeline,
    inputs_at: Any,
) -> Records:
    """What passes every gate that looks at one symbol alone, in order of time, best first, then by symbol.

    The columns' filters decide (`signals.prefilter`); where a gate asks more than they know (news, the bars' quality,
    a model's age), live's own gates are asked as well, by `inputs_at(symbol, row)`.
    """
    made = []
    least = min(params.least_probability(family) for family in FAMILIES)
    for place, (symbol, own) in enumerate(list(series.items())):
        rows = timeline.rows[symbol]
        # Most bars are signalled by nothing: the others alone are asked the rest.
        hopeful = np.flatnonzero(own.forecast.p_long[rows[market.first :]] >= least) + market.first
        hopeful = hopeful[rows[hopeful] >= 0]
        chosen = hopeful[np.logical_and.reduce(list(prefilter(own, params, rows=rows[hopeful]).values()))]
        if asks_more(own, params, settings):
            series[symbol] = own = judged_at_once(own, rows[chosen])
            kept = [index for index in chosen.tolist() if _passes(inputs_at(symbol, int(rows[index])))]
            chosen = np.array(kept, dtype=np.int64)
        made.append(_records(own, params, market, place, chosen, rows[chosen]))
    found = np.concatenate([records for records, _ in made])
    expected = np.concatenate([values for _, values in made])
    ranked = np.array([-round(value, RANKED_DIGITS) for value in expected.tolist()])
    order = np.lexsort((found["symbol"], ranked, found["index"]))
    out = found[order].view(np.recarray)
    if len(series) > 1 and params.max_consecutive_losses <= len(out):
        out.rank = _ranks(out, list(series), params, settings, market.times)
    return out


def asks_more(series: SymbolSeries, params: StrategyParams, settings: ReplaySettings) -> bool:
    """Do live's gates look at more than the columns do?"""
    neutral_passes = params.sentiment_veto < 0 and params.sentiment_raise < 0
    return bool(series.sentiment) or series.quality is not None or settings.models is not None or not neutral_passes


def _passes(inputs: CycleInputs) -> bool:
    (symbol,) = inputs.symbols
    signal = choose_signal(symbol.prediction, inputs.allowed_sides)
    return all(gate(inputs, symbol, signal) for name, gate in SYMBOL_GATES if name not in _LATER)


def _records(
    own: SymbolSeries, params: StrategyParams, market: Market, place: int, chosen: IntArray, rows: IntArray
) -> tuple[Any, Any]:
    """The candidates of one symbol, and what each is expected to win."""
    out = np.zeros(len(chosen), dtype=CANDIDATE)
    geometries = [params.geometry(family) for family in FAMILIES]
    ratios = [_ratio(geometry.target_r) for geometry in geometries]
    families = own.families[rows]
    close = own.numbers.close[rows]
    on_grid = close / market.symbols[place].tick
    out["index"], out["symbol"], out["row"] = chosen, place, rows
    last = len(market.times) - 1
    follower = np.minimum(chosen + 1, last)
    out["followed"] = (chosen < last) & market.follows[chosen] & market.present[place, follower]
    out["close_ticks"] = np.where(np.abs(on_grid - np.rint(on_grid)) < 1e-6, np.rint(on_grid), -1).astype(np.int64)
    out["target_num"] = np.array([num for num, _ in ratios])[families]
    out["target_den"] = np.array([den for _, den in ratios])[families]
    out["close"], out["atr"] = close, own.numbers.atr_quote[rows]
    out["volume_base"] = own.numbers.volume_base[rows]
    out["stop_atr"] = np.array([geometry.stop_atr for geometry in geometries])[families]
    return out, own.forecast.expected_r_long[rows]


def _ranks(
    out: Records, names: Sequence[str], params: StrategyParams, settings: ReplaySettings, times: IntArray
) -> Any:
    """The place of each candidate's position id among all of them, by which live orders trades of one moment."""
    ids = [
        intent_id(settings.account, params.strategy_version, names[int(s)], moment(int(times[int(index)])))
        for s, index in zip(out.symbol, out.index, strict=True)
    ]
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[np.argsort(np.array(ids))] = np.arange(len(ids))
    return ranks
