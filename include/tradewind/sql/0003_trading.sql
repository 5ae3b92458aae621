-- The ledger. Rows of a decision are inserted by their stage and never updated; orders and positions change only by
-- allowed steps, each with an event row.

CREATE TABLE strategies (
    strategy_version text PRIMARY KEY,
    params           jsonb       NOT NULL,
    first_used_at    timestamptz NOT NULL DEFAULT now()
);

-- The decision, stage by stage: (account, strategy_version, symbol, bar) is the natural key of them all.
-- All that the decisions of one bar are made of: decided again from it, they come out the same.
CREATE TABLE cycle_inputs (
    account          text        NOT NULL,
    strategy_version text        NOT NULL,
    bar              timestamptz NOT NULL,
    inputs           jsonb       NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, strategy_version, bar)
);

CREATE TABLE predictions (
    account          text        NOT NULL,
    strategy_version text        NOT NULL,
    symbol           text        NOT NULL,
    bar              timestamptz NOT NULL,
    available        boolean     NOT NULL,
    reason           text        NOT NULL,
    prediction       jsonb,
    inputs           jsonb       NOT NULL,
    code_sha256      text        NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, strategy_version, symbol, bar)
);

CREATE TABLE filter_verdicts (
    account          text        NOT NULL,
    strategy_version text        NOT NULL,
    symbol           text        NOT NULL,
    bar              timestamptz NOT NULL,
    passed           boolean     NOT NULL,
    verdicts         jsonb       NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, strategy_version, symbol, bar)
);

CREATE TABLE decisions (
    account          text        NOT NULL,
    strategy_version text        NOT NULL,
    symbol           text        NOT NULL,
    bar              timestamptz NOT NULL,
    outcome          text        NOT NULL CHECK (outcome IN ('intent', 'declined', 'expired', 'unavailable')),
    reason           text        NOT NULL,
    intent_id        text UNIQUE,
    decision         jsonb       NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, strategy_version, symbol, bar)
);
CREATE INDEX decisions_by_bar ON decisions (account, bar DESC);

CREATE TABLE cycles (
    account     text        NOT NULL,
    bar         timestamptz NOT NULL,
    state       text        NOT NULL CHECK (state IN ('done', 'failed', 'missed', 'expired')),
    run_id      text        NOT NULL,
    detail      jsonb       NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, bar)
);

CREATE TABLE orders (
    client_order_id   text PRIMARY KEY CHECK (length(client_order_id) <= 36),
    account           text        NOT NULL,
    position_id       text        NOT NULL,
    symbol            text        NOT NULL,
    role              text        NOT NULL CHECK (role IN ('entry', 'stop', 'target', 'exit')),
    is_buy            boolean     NOT NULL,
    lot               integer     NOT NULL,
    generation        integer     NOT NULL,
    order_type        text        NOT NULL,
    quantity          numeric     NOT NULL CHECK (quantity > 0),
    price             numeric,
    stop_price        numeric,
    list_client_id    text,
    state             text        NOT NULL CHECK (state IN ('planned', 'sent', 'working', 'partial', 'filled',
                                                            'rejected', 'cancelled', 'expired', 'unknown')),
    exchange_order_id text,
    filled_quantity   numeric     NOT NULL DEFAULT 0,
    planned_at        timestamptz NOT NULL,
    sent_at           timestamptz,
    updated_at        timestamptz NOT NULL,
    reason            text        NOT NULL DEFAULT '',
    UNIQUE (account, position_id, role, lot, generation)
);
CREATE INDEX orders_live ON orders (account, state) WHERE state IN ('planned', 'sent', 'working', 'partial', 'unknown');
CREATE INDEX orders_by_position ON orders (position_id);

CREATE TABLE order_events (
    event_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_order_id text        NOT NULL REFERENCES orders,
    from_state      text        NOT NULL,
    to_state        text        NOT NULL,
    detail          jsonb       NOT NULL,
    at              timestamptz NOT NULL
);
CREATE INDEX order_events_by_order ON order_events (client_order_id);

CREATE TABLE fills (
    account         text        NOT NULL,
    symbol          text        NOT NULL,
    trade_id        text        NOT NULL,
    client_order_id text        NOT NULL,
    is_buy          boolean     NOT NULL,
    quantity        numeric     NOT NULL CHECK (quantity > 0),
    price           numeric     NOT NULL CHECK (price > 0),
    fee             numeric     NOT NULL,
    fee_asset       text        NOT NULL,
    is_maker        boolean     NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (account, symbol, trade_id)
);
CREATE INDEX fills_by_order ON fills (client_order_id);

CREATE TABLE positions (
    position_id        text PRIMARY KEY,
    account            text        NOT NULL,
    strategy_version   text        NOT NULL,
    symbol             text        NOT NULL,
    side               text        NOT NULL,
    family             text        NOT NULL,
    status             text        NOT NULL CHECK (status IN ('opening', 'open', 'closing', 'closed', 'dust')),
    bar                timestamptz NOT NULL,
    opened_at          timestamptz,
    closed_at          timestamptz,
    quantity           numeric     NOT NULL,
    entry_quantity     numeric     NOT NULL,
    entry_price        numeric,
    initial_stop_price numeric     NOT NULL,
    stop_price         numeric     NOT NULL,
    target_price       numeric     NOT NULL,
    atr_quote          double precision NOT NULL,
    best_close         numeric,
    managed_bar        timestamptz,
    realised_quote     numeric     NOT NULL,
    fees_quote         numeric     NOT NULL,
    exit_reason        text        NOT NULL DEFAULT '',
    fence              bigint      NOT NULL DEFAULT 0
);
CREATE INDEX positions_live ON positions (account) WHERE status IN ('opening', 'open', 'closing');

-- Every lock on a position draws the next number; a write under an older one is refused.
CREATE SEQUENCE position_fences;

CREATE TABLE position_events (
    event_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    position_id text        NOT NULL REFERENCES positions,
    event       text        NOT NULL,
    detail      jsonb       NOT NULL,
    at          timestamptz NOT NULL
);
CREATE INDEX position_events_by_position ON position_events (position_id);

-- How long a position was without protection at the exchange, each time.
CREATE TABLE unprotected_spans (
    span_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    position_id text        NOT NULL REFERENCES positions,
    cause       text        NOT NULL,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz,
    seconds     double precision
);

-- One open span a position.
CREATE UNIQUE INDEX one_open_span ON unprotected_spans (position_id) WHERE ended_at IS NULL;

-- What the account held before us: never sold, sized on or counted.
CREATE TABLE baselines (
    account  text        NOT NULL,
    asset    text        NOT NULL,
    quantity numeric     NOT NULL,
    taken_at timestamptz NOT NULL,
    PRIMARY KEY (account, asset)
);

CREATE TABLE reconciliations (
    reconciliation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account           text        NOT NULL,
    at                timestamptz NOT NULL,
    clean             boolean     NOT NULL,
    report            jsonb       NOT NULL
);
CREATE INDEX reconciliations_by_time ON reconciliations (account, at DESC);
