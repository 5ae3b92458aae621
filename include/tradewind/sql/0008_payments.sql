-- What moved a futures wallet beside trades: funding, and what the exchange's insurance took or gave. Together with the
-- fills it explains the wallet to the last digit.

CREATE TABLE payments (
    account    text        NOT NULL,
    payment_id text        NOT NULL,
    symbol     text        NOT NULL,
    kind       text        NOT NULL,
    asset      text        NOT NULL,
    amount     numeric     NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (account, payment_id)
);
CREATE INDEX payments_by_time ON payments (account, at);
