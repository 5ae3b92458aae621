-- Differences between account and ledger that a person explained: deposits, withdrawals, what was sold of one's own.
-- They move what the account is expected to hold, never a position and never the equity that the breaker watches.

CREATE TABLE accepted_differences (
    difference_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account       text        NOT NULL,
    asset         text        NOT NULL,
    quantity      numeric     NOT NULL CHECK (quantity <> 0),
    reason        text        NOT NULL,
    actor         text        NOT NULL,
    at            timestamptz NOT NULL
);
CREATE INDEX accepted_differences_by_account ON accepted_differences (account);
