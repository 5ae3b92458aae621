-- The last believable price of each market, and what was seen since and is not believed yet: a holding whose market has
-- no price is marked at it. `at` is the market's time, `suspect_since` the wall's.
CREATE TABLE last_prices (
    account       text        NOT NULL,
    symbol        text        NOT NULL,
    bid           numeric     NOT NULL CHECK (bid > 0 AND bid < 'Infinity'),
    ask           numeric     NOT NULL CHECK (ask >= bid AND ask < 'Infinity'),
    at            timestamptz NOT NULL,
    suspect_bid   numeric,
    suspect_ask   numeric,
    suspect_since timestamptz,
    PRIMARY KEY (account, symbol),
    CHECK (num_nulls(suspect_bid, suspect_ask, suspect_since) IN (0, 3))
);
