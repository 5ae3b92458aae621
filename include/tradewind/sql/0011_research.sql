-- What research leaves behind: live compared with its own replay, and studies of parameters with their trials.

-- Until now nothing wrote these reports: the table takes the shape in which they are written.
DROP TABLE parity_reports;
CREATE TABLE parity_reports (
    report_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account          text        NOT NULL,
    strategy_version text        NOT NULL,
    at               timestamptz NOT NULL,
    since            timestamptz NOT NULL,
    until            timestamptz NOT NULL,
    cycles           integer     NOT NULL,
    differences      integer     NOT NULL,
    unexplained      integer     NOT NULL,
    report           jsonb       NOT NULL
);
CREATE INDEX parity_reports_by_time ON parity_reports (account, at DESC);

CREATE TABLE studies (
    study       text PRIMARY KEY,
    settings    jsonb       NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    report      jsonb
);

-- One row a finished trial: a study that was stopped goes on from these.
CREATE TABLE study_trials (
    study       text        NOT NULL REFERENCES studies ON DELETE CASCADE,
    trial       integer     NOT NULL,
    params      jsonb       NOT NULL,
    value       double precision,
    result      jsonb       NOT NULL,
    finished_at timestamptz NOT NULL,
    PRIMARY KEY (study, trial)
);
