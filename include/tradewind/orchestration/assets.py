"""What one DAG makes and another waits for. An event is a wake-up, never data: who wakes reads the store."""

from __future__ import annotations

from airflow.sdk import Asset, AssetAlias

CLOSED_CANDLES_15M = Asset(name="closed_candles_15m", uri="tradewind://candles/15m", group="candles")
CLOSED_CANDLES_1H = Asset(name="closed_candles_1h", uri="tradewind://candles/1h", group="candles")

# Collection owns only an alias, and adds the asset to it for the newest interval alone. With the asset itself as its
# outlet, each of a backfill's runs would wake trading.
COLLECTED_15M = AssetAlias(name="collected_15m", group="candles")
COLLECTED_1H = AssetAlias(name="collected_1h", group="candles")
