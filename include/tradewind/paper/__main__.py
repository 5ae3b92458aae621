"""`python -m tradewind.paper`: serve the paper exchange until stopped.

Options come from the command line, else from the settings (TRADEWIND_EXCHANGE_PORT, TRADEWIND_PAPER_DATABASE_URL,
TRADEWIND_EXCHANGE_ADMIN_TOKEN, TRADEWIND_MARKET and what begins with it, TRADEWIND_PUBLIC_*).
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path

import uvicorn

from tradewind.adapters.logs import configure_logging
from tradewind.adapters.strategy_file import leader_of
from tradewind.errors import BadSetting, StopError
from tradewind.paper.exchange import PaperExchange
from tradewind.paper.limits import RateLimits
from tradewind.paper.markets import Market
from tradewind.paper.markets_public import PublicMarket
from tradewind.paper.markets_replay import ReplayMarket
from tradewind.paper.markets_synthetic import SyntheticMarket
from tradewind.paper.public_feed import PublicFeed
from tradewind.paper.server import PaperServer, Protocol, wall_ms
from tradewind.paper.store import KEPT_CLOSED_ORDERS, PaperStore
from tradewind.settings import STRATEGY_FILE, load_settings

_GC_THRESHOLDS = (50_000, 20, 100)
KEEP_ALIVE_S = 75
"""Longer than clients keep an idle connection (httpx: 5 s): else one is used again in the moment it is closed."""


def make_market(name: str, symbols: tuple[str, ...], seed: int, structure: float) -> Market:
    """The market that a setting names: `synthetic`, `public`, or `replay:DIR`. Raises BadSetting."""
    if name.startswith("replay:"):
        return ReplayMarket(Path(name.removeprefix("replay:")).expanduser())
    if name == "public":
        return PublicMarket(symbols)
    if name != "synthetic":
        raise BadSetting("TRADEWIND_MARKET", f"is {name!r}", "TRADEWIND_MARKET=synthetic")
    return SyntheticMarket(symbols, seed, structure)


def main(argv: list[str] | None = None) -> int:
    settings = load_settings()
    parser = argparse.ArgumentParser(prog="python -m tradewind.paper", description="Serve the paper exchange.")
    parser.add_argument("--port", type=int, default=settings.exchange_port)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at")
    parser.add_argument("--database-url", default=settings.paper_database_url.get_secret_value())
    parser.add_argument("--market", default=settings.market or "synthetic", help="synthetic, public or replay:DIR")
    parser.add_argument(
        "--public-url", default=settings.public_market_url, help="where the public market's prices come from"
    )
    parser.add_argument("--poll-s", type=float, default=settings.public_poll_s)
    parser.add_argument("--stale-s", type=float, default=settings.public_stale_s)
    # The market leader is listed too, traded or not: every decision reads it.
    symbols = dict.fromkeys((*settings.symbols, leader_of(STRATEGY_FILE, settings.default_leader)))
    parser.add_argument("--symbols", default=",".join(symbols), help="comma-separated, as BTC/USDT")
    parser.add_argument("--seed", type=int, default=settings.market_seed)
    parser.add_argument("--structure", type=float, default=settings.market_structure_frac)
    parser.add_argument("--admin-token", default=settings.exchange_admin_token.get_secret_value())
    parser.add_argument(
        "--admin-from", choices=["loopback", "anywhere"], default="loopback",
        help="who may use the admin side with its token: in containers, others than this one must",
    )  # fmt: skip
    parser.add_argument(
        "--weight-limit", type=int, default=RateLimits().weight_per_minute, help="request weight a minute"
    )
    parser.add_argument(
        "--order-limit", type=int, default=RateLimits().orders_per_10s, help="new orders in ten seconds"
    )
    parser.add_argument("--kept-orders", type=int, default=KEPT_CLOSED_ORDERS, help="closed orders that stay in memory")
    parser.add_argument("--own-time", action="store_true", help="replay at the recording's own time, clock stopped")
    parser.add_argument("--memory", action="store_true", help="keep no state: everything is lost at the end")
    start_ms = round(settings.market_start.timestamp() * 1000) if settings.market_start else None
    parser.add_argument("--start-ms", type=int, default=start_ms, help="freeze a new market's clock there")
    options = parser.parse_args(argv)
    configure_logging(settings.log_level, process="exchange")
    try:
        return serve(options)
    except StopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; 1 when the state could not be kept."""
    market = make_market(options.market, tuple(options.symbols.split(",")), options.seed, options.structure)
    failed = False

    def give_up() -> None:
        nonlocal failed
        failed = True
        server.should_exit = server.force_exit = True

    store = PaperStore(options.database_url, give_up, options.kept_orders) if not options.memory else None
    # The real market has its own time.
    start_ms = None if isinstance(market, PublicMarket) else options.start_ms
    exchange = PaperExchange(market, store, start_ms=start_ms)
    limits = RateLimits(options.weight_limit, options.order_limit)
    feed = None
    if isinstance(market, PublicMarket):
        feed = PublicFeed(exchange, options.public_url, wall_ms, options.poll_s, options.stale_s)
    app = PaperServer(
        exchange, options.admin_token, limits, store, own_time=options.own_time, feed=feed,
        admin_from_anywhere=options.admin_from == "anywhere",
    )  # fmt: skip
    config = uvicorn.Config(
        app.app(), host=options.host, port=options.port, loop="uvloop", http=Protocol, lifespan="on",
        access_log=False, log_level="warning", server_header=False, timeout_graceful_shutdown=5,
        timeout_keep_alive=KEEP_ALIVE_S,
    )  # fmt: skip
    server = uvicorn.Server(config)
    # A full collection walks every order in memory and makes all clients wait; what was imported never goes anyway.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    server.run()
    return 1 if failed or not server.started else 0


if __name__ == "__main__":
    sys.exit(main())
