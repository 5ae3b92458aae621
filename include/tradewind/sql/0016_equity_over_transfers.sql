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

-- Where money came or went, or the measure of equity changed: equity just before and just after. Every reading made
-- before counts from then on by the ratio of the two, as the value of a fund's unit does; none where nothing was there
-- before. Without `after_quote` the next reading tells it.
CREATE TABLE equity_links (
    link_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account       text        NOT NULL,
    at            timestamptz NOT NULL,
    before_quote  numeric     NOT NULL,
    after_quote   numeric,
    difference_id bigint REFERENCES accepted_differences
);
CREATE INDEX equity_links_by_account ON equity_links (account);

-- `link_id`: the last link that a reading was made after. `is_kept`: an opening or a peak, not replaced in its minute.
ALTER TABLE equity DROP CONSTRAINT equity_pkey;
ALTER TABLE equity
    ADD COLUMN reading_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ADD COLUMN link_id bigint NOT NULL DEFAULT 0,
    ADD COLUMN is_kept boolean NOT NULL DEFAULT true;
CREATE INDEX equity_by_kind ON equity (account, kind, at);
DROP INDEX equity_by_value;
CREATE INDEX equity_by_value ON equity (account, link_id, equity_quote DESC);

-- Readings of before held neither transfers nor fees in third assets, and a part of the capital alone where a limit was
-- set: the first reading in the new measure says what they are worth in it.
INSERT INTO equity_links (account, at, before_quote)
SELECT DISTINCT ON (account) account, at, equity_quote FROM equity ORDER BY account, at DESC;

-- What a fee or payment in a third asset was worth in quote when it was first seen; null while it is not valued.
ALTER TABLE fills ADD COLUMN fee_quote numeric;
ALTER TABLE payments ADD COLUMN amount_quote numeric;
CREATE INDEX fills_not_valued ON fills (account)
    WHERE fee_quote IS NULL AND fee_asset NOT IN (split_part(symbol, '/', 1), split_part(symbol, '/', 2));

SELECT grant_rights();
