-- The latch, the heartbeats, equity, alerts and audit.

CREATE TABLE latches (
    account  text PRIMARY KEY,
    mode     text        NOT NULL CHECK (mode IN ('active', 'reduce_only', 'halted')),
    reason   text        NOT NULL,
    since    timestamptz NOT NULL,
    sequence bigint      NOT NULL
);

CREATE TABLE latch_history (
    account  text        NOT NULL,
    sequence bigint      NOT NULL,
    mode     text        NOT NULL,
    reason   text        NOT NULL,
    actor    text        NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (account, sequence)
);

-- One row an attempt to flatten after the latch; `verified_flat_at` ends it.
CREATE TABLE flattenings (
    account          text        NOT NULL,
    latch_sequence   bigint      NOT NULL,
    started_at       timestamptz NOT NULL,
    last_attempt_at  timestamptz NOT NULL,
    attempts         integer     NOT NULL,
    verified_flat_at timestamptz,
    report           jsonb       NOT NULL,
    PRIMARY KEY (account, latch_sequence)
);

CREATE TABLE heartbeats (
    account text        NOT NULL,
    name    text        NOT NULL,
    at      timestamptz NOT NULL,
    PRIMARY KEY (account, name)
);

CREATE TABLE equity (
    account      text        NOT NULL,
    at           timestamptz NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('day_open', 'mark')),
    equity_quote numeric     NOT NULL,
    detail       jsonb       NOT NULL,
    PRIMARY KEY (account, kind, at)
);

-- The outbox of alerts. The same key within the hour counts as a repeat of the row that is there.
CREATE TABLE alerts (
    alert_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    severity        text        NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    key             text        NOT NULL,
    title           text        NOT NULL,
    body            text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_seen_at    timestamptz NOT NULL DEFAULT now(),
    repeats         integer     NOT NULL DEFAULT 0,
    sent_at         timestamptz,
    attempts        integer     NOT NULL DEFAULT 0,
    last_attempt_at timestamptz,
    last_error      text
);
CREATE INDEX alerts_unsent ON alerts (created_at) WHERE sent_at IS NULL;
CREATE INDEX alerts_by_key ON alerts (key, last_seen_at DESC);

CREATE TABLE audit (
    audit_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    actor      text        NOT NULL,
    action     text        NOT NULL,
    outcome    text        NOT NULL,
    detail     jsonb       NOT NULL,
    request_id text,
    source     text
);

CREATE TABLE parity_reports (
    at          timestamptz PRIMARY KEY,
    account     text        NOT NULL,
    unexplained integer     NOT NULL,
    report      jsonb       NOT NULL
);
