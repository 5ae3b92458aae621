-- The rules a position was opened with; NULL for positions of before, which follow their strategy version's.
ALTER TABLE positions ADD COLUMN rules jsonb;

-- When an order was last seen at the exchange, by the machine's clock: a stop that vanished was gone from then on.
ALTER TABLE orders ADD COLUMN seen_at timestamptz;
