-- What the status page asks for every few seconds must not take longer with each month that is stored: the newest
-- orders, fills, positions and alerts.
CREATE INDEX orders_by_time ON orders (account, planned_at DESC, client_order_id);
CREATE INDEX fills_by_time ON fills (account, at DESC, trade_id DESC);
CREATE INDEX positions_by_time ON positions (account, (coalesce(opened_at, bar)) DESC, position_id);
CREATE INDEX alerts_by_time ON alerts (last_seen_at DESC);
CREATE INDEX jobs_by_time ON jobs (created_at DESC);
