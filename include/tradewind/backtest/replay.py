"""The live chain over stored bars: the same stages, filters, sizes, brackets and position rules, with another clock.

One account trades all symbols. What is decided at the close of a bar is done at the open of the next, where the
matching engine fills it with spread, slippage, fees and the volume of the last finished bar. Only bars at which
something can happen are visited (`chain`, `skipping`); a test holds that to be the same as visiting them all.

Two things differ from live, and are said in the result's notes: equity is marked at closes and opens, not every two
seconds, and after a breaker trip trading resumes at the next UTC midnight, as if a person had looked by then.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache

from tradewind.core.decision import decide
from tradewind.core.params import StrategyParams
from tradewind.core.resampling import BASE_MS
from tradewind.core.risk import Breach
from tradewind.core.types import Decision, Fill, Order, Outcome, Side

from .booking import matching_settings
from .chain import Chain
from .compiled.columns import is_served
from .compiled.run import CompiledRun
from .funding import NOT_SETTLED, FundingPaid
from .results import Lazy, RunResult
from .settings import ReplaySettings
from .signals import SymbolSeries

__all__ = ["ReplayResult", "ReplaySettings", "decision_row", "replay"]


@dataclass(frozen=True, slots=True, eq=False)
class ReplayResult:
    """The run as the report shows it, and everything underneath."""

    run: RunResult
    decisions: Sequence[Decision]  # of every candidate that was decided in full, with its words: made when it is read
    orders: Sequence[Order]
    fills: Sequence[Fill]
    funding: Sequence[FundingPaid]  # in the equity, in no trade's result
    breaches: Sequence[tuple[int, Breach]]
    bars_seen: int
    bars_visited: int
    sentiment_coverage_frac: float  # share of the full decisions for which a stored score was known


def replay(
    series: Mapping[str, SymbolSeries],
    params: StrategyParams,
    start_ms: int,
    end_ms: int,
    settings: ReplaySettings | None = None,
    *,
    title: str = "Replay",
    labels: Sequence[str] = (),
) -> ReplayResult:
    """Trade the bars opened in [start_ms, end_ms). Bars before it are warm-up: read, never traded.

    Deterministic. Long only where the instruments are spot; both sides where all of them have margin. Raises
    ValueError when no symbol has a bar in the range.
    """
    settings = settings or ReplaySettings()
    if not settings.detailed:
        matching = settings.matching or matching_settings(params)
        if is_served(series, params, settings, matching):
            found = CompiledRun(series, params, start_ms, end_ms, settings, matching)
            with _uncollected():
                found.go()
            return _compiled_result(found, title, labels)
    chain = Chain(series, params, start_ms, end_ms, settings)
    with _uncollected():
        chain.run()
    return _result(chain, title, labels)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles: a replay makes none, and it would be searched for among all that it keeps."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:
            # What was made becomes old unseen; else the next allocation would search all of it. Where a parent has
            # frozen what it shares with this process, that stays frozen.
            gc.freeze()
            gc.unfreeze()
        if was:
            gc.enable()


def _result(chain: Chain, title: str, labels: Sequence[str]) -> ReplayResult:
    settings = chain.settings
    held = sum(h.position.entry_quantity > 0 for h in chain.live.values())
    asked = [symbol for inputs in chain.decided for symbol in inputs.symbols]
    scored = sum(symbol.sentiment is not None and symbol.sentiment.status == "ok" for symbol in asked)
    coverage_frac = scored / max(len(asked), 1)
    done = (
        f"{len(chain.times)} bars of {len(chain.series)} symbols; {chain.visited} visited, "
        f"{len(asked)} candidates decided in full"
    )
    notes = _notes(done, coverage_frac, held)
    if Side.SHORT in chain.sides:
        notes.append(f"futures with isolated margin; {_funding_note(chain)}")
    holdings = list(chain.account.holdings.values())
    decisions = Lazy(lambda: [decision for inputs in chain.decided for decision in decide(inputs)])
    run = RunResult(
        title=title,
        labels=list(labels),
        strategy_version=chain.params.strategy_version,
        start_ms=int(chain.times[0]),
        end_ms=int(chain.times[-1]) + BASE_MS,
        initial_equity_quote=float(settings.capital_quote),
        trades=chain.trades,
        equity=chain.marks.curve(),
        funnel=Lazy(lambda: chain.funnel.with_decisions(decisions).rows()),
        decisions=Lazy(lambda: [decision_row(d) for d in reversed(decisions[-settings.shown_decisions :])]),
        bars={symbol: s.bars for symbol, s in chain.series.items()},
        notes=notes,
    )
    return ReplayResult(
        run=run,
        decisions=decisions,
        orders=Lazy(lambda: [order for h in holdings for order in h.orders.values()]),
        funding=chain.funding.paid if chain.funding is not None else (),
        fills=Lazy(lambda: [fill for h in holdings for fill in h.fills]),
        breaches=chain.marks.breaches,
        bars_seen=int(sum((rows >= 0).sum() for rows in chain.timeline.rows.values())),
        bars_visited=chain.visited,
        sentiment_coverage_frac=coverage_frac,
    )


def _compiled_result(found: CompiledRun, title: str, labels: Sequence[str]) -> ReplayResult:
    """Trades and equity as they are; whoever reads more asks the detailed replay for it, once."""

    @cache
    def detailed() -> ReplayResult:
        settings = replace(found.settings, detailed=True)
        return replay(found.given, found.params, found.start_ms, found.end_ms, settings, title=title, labels=labels)

    coverage_frac = found.scored / max(len(found.candidates), 1)
    done = (
        f"{len(found.times)} bars of {len(found.series)} symbols; {found.visited} visited by the compiled loop, "
        f"{found.handed_back.total()} stretches handed to the engine, {len(found.candidates)} candidates"
    )
    run = RunResult(
        title=title,
        labels=list(labels),
        strategy_version=found.params.strategy_version,
        start_ms=int(found.times[0]),
        end_ms=int(found.times[-1]) + BASE_MS,
        initial_equity_quote=float(found.settings.capital_quote),
        trades=found.trades,
        equity=found.curve(),
        funnel=Lazy(lambda: detailed().run.funnel),
        decisions=Lazy(lambda: detailed().run.decisions),
        bars={symbol: own.bars for symbol, own in found.series.items()},
        notes=_notes(done, coverage_frac, found.held),
    )
    return ReplayResult(
        run=run,
        decisions=Lazy(lambda: detailed().decisions),
        orders=Lazy(lambda: detailed().orders),
        fills=Lazy(lambda: detailed().fills),
        funding=(),
        breaches=found.breaches,
        bars_seen=found.bars_seen,
        bars_visited=found.visited,
        sentiment_coverage_frac=coverage_frac,
    )


def _notes(done: str, coverage_frac: float, held: int) -> list[str]:
    """What a reader must know besides the numbers; `held` positions are open at the end."""
    notes = [
        done,
        f"a stored sentiment score was known for {coverage_frac:.0%} of them, the others were neutral",
        "equity is marked at bar closes; after a breaker trip trading resumes at the next UTC midnight",
    ]
    if held:
        notes.append(f"{held} positions are still open at the end: in the equity, not among the trades")
    return notes


def _funding_note(chain: Chain) -> str:
    if chain.funding is None or chain.settings.funding is None:
        return NOT_SETTLED
    paid = chain.funding.paid
    received = sum((payment.amount_quote for payment in paid), Decimal(0))
    quote = f"{received:+.2f} {chain.account.quote_asset}"
    return f"funding is settled {chain.settings.funding.words}: {quote} in {len(paid)} payments, in no trade's result"


def decision_row(decision: Decision) -> dict[str, object]:
    """One line of the report's decision table."""
    prediction, regime = decision.prediction, decision.regime
    return {
        "bar": f"{decision.bar:%Y-%m-%d %H:%M}",
        "symbol": decision.symbol,
        "outcome": decision.outcome.value,
        "p long": f"{prediction.p_long:.3f}" if prediction is not None else "",
        "p short": f"{prediction.p_short:.3f}" if prediction is not None else "",
        "expected R": f"{prediction.expected_r_long:.3f}" if prediction is not None else "",
        "regime": regime.regime.value if regime is not None else "",
        "reason": decision.reason if decision.outcome is not Outcome.INTENT else "",
    }
