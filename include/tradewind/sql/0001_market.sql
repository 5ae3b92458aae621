-- Market data: truth is stored, not repaired. All times are UTC; a bar is named by its open time.

CREATE TABLE candles (
    symbol     text             NOT NULL,
    timeframe  text             NOT NULL,
    open_time  timestamptz      NOT NULL,
    open       double precision NOT NULL,
    high       double precision NOT NULL,
    low        double precision NOT NULL,
    close      double precision NOT NULL,
    volume     double precision NOT NULL,
    PRIMARY KEY (symbol, timeframe, open_time),
    CHECK (low <= least(open, close) AND high >= greatest(open, close) AND low > 0 AND volume >= 0)
);

-- What the exchange said later about a bar already stored. The first report stays; this remembers the difference.
CREATE TABLE candle_corrections (
    symbol     text        NOT NULL,
    timeframe  text        NOT NULL,
    open_time  timestamptz NOT NULL,
    open       double precision NOT NULL,
    high       double precision NOT NULL,
    low        double precision NOT NULL,
    close      double precision NOT NULL,
    volume     double precision NOT NULL,
    seen_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, timeframe, open_time, open, high, low, close, volume)
);

CREATE TABLE instruments (
    symbol     text PRIMARY KEY,
    rules      jsonb       NOT NULL,
    listed_at  timestamptz,
    delisted_at timestamptz,
    seen_at    timestamptz NOT NULL DEFAULT now()
);

-- Whether a symbol's recent window may be traded on, checked at a bar.
CREATE TABLE data_quality (
    symbol     text        NOT NULL,
    bar        timestamptz NOT NULL,
    passed     boolean     NOT NULL,
    findings   jsonb       NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, bar)
);

-- Work that reports progress: history loads, imports, trainings started through the API.
CREATE TABLE jobs (
    job_id          text PRIMARY KEY,
    kind            text        NOT NULL,
    state           text        NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
    params          jsonb       NOT NULL,
    dag_id          text,
    dag_run_id      text,
    requested_by    text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    finished_at     timestamptz,
    error           text
);

-- One row a chunk of a history load; a committed chunk is never fetched again.
CREATE TABLE history_chunks (
    job_id     text        NOT NULL REFERENCES jobs ON DELETE CASCADE,
    symbol     text        NOT NULL,
    timeframe  text        NOT NULL,
    start_time timestamptz NOT NULL,
    end_time   timestamptz NOT NULL,
    done_at    timestamptz,
    rows_seen  integer,
    rows_new   integer,
    PRIMARY KEY (job_id, symbol, timeframe, start_time)
);
