-- The rules a position was opened with, and the least that its market took then; NULL for positions of before, which
-- follow their strategy version's and today's.
ALTER TABLE positions ADD COLUMN rules jsonb, ADD COLUMN minimums jsonb;

-- When an order was last seen at the exchange, by the machine's clock: a stop that vanished was gone from then on.
ALTER TABLE orders ADD COLUMN seen_at timestamptz;

-- Holdings that a person gave up, because they can be sold no more: the one way beside fills in which a position ends
-- with something held. `quantity` is negative for a short; it stays in the account, or is taken off it by the exchange,
-- and is not ours again. `settled_quote` is what the exchange paid for a contract that it settled itself.
CREATE TABLE write_offs (
    position_id   text PRIMARY KEY REFERENCES positions,
    account       text        NOT NULL,
    symbol        text        NOT NULL,
    quantity      numeric     NOT NULL CHECK (quantity <> 0),
    cost_quote    numeric     NOT NULL,
    settled_quote numeric     NOT NULL,
    reason        text        NOT NULL CHECK (reason <> ''),
    actor         text        NOT NULL,
    at            timestamptz NOT NULL
);
CREATE INDEX write_offs_by_account ON write_offs (account);
