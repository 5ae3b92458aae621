-- Regimes, news and models: what the decision chain reads besides candles.

CREATE TABLE regimes (
    symbol             text        NOT NULL,
    bar                timestamptz NOT NULL,
    params_hash        text        NOT NULL,
    regime             text        NOT NULL,
    family             text,
    adx                double precision NOT NULL,
    natr_ratio         double precision NOT NULL,
    natr_quantile      double precision NOT NULL,
    bandwidth_quantile double precision NOT NULL,
    stored_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, bar, params_hash)
);

CREATE TABLE articles (
    article_id   text PRIMARY KEY,
    feed         text        NOT NULL,
    title        text        NOT NULL,
    summary      text        NOT NULL,
    link         text        NOT NULL,
    symbols      text[]      NOT NULL,
    published_at timestamptz NOT NULL,
    seen_at      timestamptz NOT NULL
);
CREATE INDEX articles_by_time ON articles (seen_at);
CREATE INDEX articles_by_publication ON articles (published_at);

-- A score is knowable at scored_at, not at publication.
CREATE TABLE article_scores (
    article_id text        NOT NULL REFERENCES articles ON DELETE CASCADE,
    scorer     text        NOT NULL,
    score      double precision NOT NULL CHECK (score BETWEEN -1 AND 1),
    scored_at  timestamptz NOT NULL,
    PRIMARY KEY (article_id, scorer)
);

CREATE TABLE sentiment (
    symbol  text        NOT NULL,
    as_of   timestamptz NOT NULL,
    score   double precision NOT NULL CHECK (score BETWEEN -1 AND 1),
    weight  double precision NOT NULL,
    status  text        NOT NULL,
    scorer  text        NOT NULL,
    PRIMARY KEY (symbol, as_of)
);

CREATE TABLE feed_states (
    feed          text PRIMARY KEY,
    etag          text,
    last_modified text,
    fetched_at    timestamptz,
    last_error    text
);

-- One row an immutable version; only `state` changes, and each change has an event.
CREATE TABLE models (
    version       text PRIMARY KEY,
    state         text        NOT NULL CHECK (state IN ('challenger', 'champion', 'retired')),
    manifest      jsonb       NOT NULL,
    artifact_url  text        NOT NULL,
    trained_from  timestamptz NOT NULL,
    trained_until timestamptz NOT NULL,
    created_at    timestamptz NOT NULL
);
CREATE UNIQUE INDEX one_champion ON models ((true)) WHERE state = 'champion';

CREATE TABLE model_gates (
    version text    NOT NULL REFERENCES models,
    gate    text    NOT NULL,
    passed  boolean NOT NULL,
    numbers jsonb   NOT NULL,
    PRIMARY KEY (version, gate)
);

CREATE TABLE model_events (
    event_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version    text        NOT NULL,
    event      text        NOT NULL,
    actor      text        NOT NULL,
    detail     jsonb       NOT NULL,
    at         timestamptz NOT NULL
);

CREATE TABLE training_runs (
    run_id      text PRIMARY KEY,
    reason      text        NOT NULL,
    state       text        NOT NULL,
    report      jsonb       NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz
);

CREATE TABLE drift_reports (
    at      timestamptz PRIMARY KEY,
    version text        NOT NULL,
    alarmed boolean     NOT NULL,
    report  jsonb       NOT NULL
);
