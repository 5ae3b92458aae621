-- Whose alert it is: a demo's database holds an account for each of its runs, and each is shown its own. Alerts of before
-- belong to the account that the database is stamped with; a demo's is not stamped with one.
DO $$
BEGIN
    EXECUTE format(
        'ALTER TABLE alerts ADD COLUMN account text NOT NULL DEFAULT %L',
        coalesce((SELECT identity ->> 'account' FROM deployment), '')
    );
END $$;
ALTER TABLE alerts ALTER COLUMN account DROP DEFAULT;

DROP INDEX alerts_by_key;
DROP INDEX alerts_by_time;
CREATE INDEX alerts_by_key ON alerts (account, key, last_seen_at DESC);
CREATE INDEX alerts_by_time ON alerts (account, last_seen_at DESC);
