-- A latch that nobody can hold, forge or open without a trace: its changes are rows that are only ever added, by the
-- functions below alone. It lies as tight as the tightest change that no opening has named. An opening names exactly the
-- changes that it saw, so one that was still uncommitted then stays in force, whoever commits it and whenever. Two
-- changes at once are two rows with numbers of their own: none waits for the other.

DROP FUNCTION tighten_latch(text, text, text, text, timestamptz);
ALTER TABLE latches RENAME TO former_latches;

ALTER TABLE latch_history ADD COLUMN opens bigint[];
UPDATE latch_history SET mode = 'halted' WHERE mode NOT IN ('active', 'reduce_only', 'halted');
UPDATE latch_history AS opening SET opens = ARRAY(
    SELECT shut.sequence FROM latch_history AS shut
    WHERE shut.account = opening.account AND shut.mode <> 'active' AND shut.sequence < opening.sequence
      AND shut.sequence > coalesce((SELECT max(earlier.sequence) FROM latch_history AS earlier
                                    WHERE earlier.account = opening.account AND earlier.mode = 'active'
                                      AND earlier.sequence < opening.sequence), 0)
    ORDER BY 1)
WHERE mode = 'active';
ALTER TABLE latch_history
    ADD CHECK (mode IN ('active', 'reduce_only', 'halted')),
    ADD CHECK ((mode = 'active') = (opens IS NOT NULL));

-- The changes in force: those that shut and that no opening names.
CREATE VIEW latch_changes_in_force AS
SELECT account, sequence, mode, reason, actor, at FROM latch_history AS change
WHERE mode <> 'active' AND NOT EXISTS (
    SELECT FROM latch_history AS opening, unnest(opening.opens) AS opened (sequence)
    WHERE opening.account = change.account AND opened.sequence = change.sequence);

-- Each latch as it lies: the tightest change in force with the reason that came first, else the newest opening.
CREATE VIEW latches AS
SELECT DISTINCT ON (account) account, mode, reason, since, sequence
FROM (
    SELECT account, mode, reason, at AS since, sequence FROM latch_changes_in_force
    UNION ALL
    SELECT account, mode, reason, at, sequence FROM latch_history WHERE mode = 'active'
) AS change
ORDER BY account, array_position(ARRAY['halted', 'reduce_only', 'active'], mode),
         CASE WHEN mode = 'active' THEN -sequence ELSE sequence END;

-- Where the history does not explain how the latch lay, the tighter of the two holds.
INSERT INTO latch_history (account, sequence, mode, reason, actor, at)
SELECT former.account,
       greatest(former.sequence, 1 + coalesce((SELECT max(sequence) FROM latch_history AS known
                                               WHERE known.account = former.account), 0)),
       former.mode, former.reason, 'migration', former.since
FROM former_latches AS former LEFT JOIN latches USING (account)
WHERE former.mode = 'halted' AND latches.mode IS DISTINCT FROM 'halted'
   OR former.mode = 'reduce_only' AND coalesce(latches.mode, 'active') = 'active';
DROP TABLE former_latches;

-- Numbers are drawn here, never given: none can be taken in advance.
ALTER TABLE latch_history ALTER COLUMN sequence ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('latch_history', 'sequence'),
              coalesce((SELECT max(sequence) FROM latch_history), 0) + 1, false);

-- The one way in which a latch tightens, whoever asks: one that is as tight already stays as it is, with its first
-- reason. It runs with its owner's rights, so that who may do nothing else can still stop trading. A moment that no
-- clock can have shown yet would hold back those who wait for the flattening, and becomes now.
CREATE FUNCTION tighten_latch(
    wanted_account text, wanted_mode text, wanted_reason text, wanted_actor text, moment timestamptz
) RETURNS SETOF latches
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    tightness CONSTANT text[] := ARRAY['active', 'reduce_only', 'halted'];
BEGIN
    IF (wanted_mode = ANY (tightness)) IS NOT TRUE THEN
        RAISE EXCEPTION '% is no mode of a latch', wanted_mode USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO latch_history (account, mode, reason, actor, at)
    SELECT wanted_account, wanted_mode, left(wanted_reason, 2000), left(wanted_actor, 200),
           greatest('epoch', least(moment, clock_timestamp()))
    WHERE array_position(tightness, wanted_mode) > coalesce(
        (SELECT array_position(tightness, mode) FROM latches WHERE account = wanted_account), 1);
    RETURN QUERY SELECT * FROM latches WHERE account = wanted_account;
    IF NOT FOUND THEN
        RETURN QUERY SELECT wanted_account, 'active', '', timestamptz 'epoch', 0::bigint;
    END IF;
END $$;

-- The one way in which a latch opens: only as it was looked at (`seen`), with its row of history, its row in the audit,
-- and the equity from which losses count anew, after every reading so far. No row when it was closed anew since.
CREATE FUNCTION open_latch(
    wanted_account text, seen bigint, wanted_reason text, wanted_actor text, wanted_source text, moment timestamptz,
    market_moment timestamptz, equity_now numeric, asked_by jsonb DEFAULT '{}', after_link bigint DEFAULT NULL
) RETURNS SETOF latches
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    was latches;
BEGIN
    SELECT * INTO was FROM latches WHERE account = wanted_account AND mode <> 'active' AND sequence = seen;
    -- One statement, so one look at the rows: what it does not name stays shut.
    INSERT INTO latch_history (account, mode, reason, actor, at, opens)
    SELECT wanted_account, 'active', format('%s (was: %s)', left(wanted_reason, 2000), was.reason),
           left(wanted_actor, 200), greatest('epoch', least(moment, clock_timestamp())),
           ARRAY(SELECT sequence FROM latch_changes_in_force WHERE account = wanted_account)
    WHERE EXISTS (SELECT FROM latches WHERE account = wanted_account AND mode <> 'active' AND sequence = seen);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO equity (account, kind, at, equity_quote, link_id, detail)
    SELECT wanted_account, 'day_open', greatest(market_moment, max(at) + interval '1 microsecond'), equity_now,
           coalesce(after_link, (SELECT max(link_id) FROM equity_links WHERE account = wanted_account), 0),
           jsonb_build_object('resumed_by', wanted_actor, 'reason', wanted_reason)
    FROM equity WHERE account = wanted_account;
    INSERT INTO audit (actor, action, outcome, detail, source)
    VALUES (wanted_actor, 'resume', 'opened', asked_by || jsonb_build_object(
                'account', wanted_account, 'was', was.reason, 'equity_quote', equity_now::text, 'opened', seen,
                'role', session_user), wanted_source);
    RETURN QUERY SELECT * FROM latches WHERE account = wanted_account;
END $$;

-- ------------------------------------------------------------------------------------------------- signed requests
-- What checks the signature of a request that a person made with the control token: HMAC-SHA256's two padded keys. The
-- owner alone reads and writes it, at every start.
CREATE TABLE control_key (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    inner_block bytea NOT NULL,
    outer_block bytea NOT NULL
);
CREATE INDEX audit_by_request ON audit ((detail ->> 'request')) WHERE detail ? 'request';

-- Actor and source of a request in the audit, and the latch that it wants to open: none without one that bears the
-- control token's signature for this account and action and is younger than ten minutes. Any role that may insert audit
-- rows could have made the row; only who was given the token can have made the signature.
CREATE FUNCTION signed_request(wanted_account text, wanted_action text, wanted_request text)
RETURNS TABLE (actor text, source text, seen bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    signed jsonb;
BEGIN
    FOR signed IN
        SELECT a.detail ->> 'signed' FROM audit AS a, control_key AS k
        WHERE a.detail ? 'request' AND a.detail ->> 'request' = wanted_request
          AND a.action = wanted_action AND a.outcome = 'requested'
          AND a.detail ->> 'signature' = encode(
              sha256(k.outer_block || sha256(k.inner_block || convert_to(a.detail ->> 'signed', 'UTF8'))), 'hex')
    LOOP
        IF signed ->> 'account' = wanted_account AND signed ->> 'action' = wanted_action
           AND signed ->> 'request' = wanted_request
           AND abs(extract(epoch FROM clock_timestamp()) - (signed ->> 'at')::numeric) < 600 THEN
            RETURN QUERY SELECT signed ->> 'actor', signed ->> 'source', (signed ->> 'latch_sequence')::bigint;
        END IF;
    END LOOP;
END $$;

-- Open the latch that a signed request named, as who may not open any other. No row without such a request, or when the
-- latch was closed anew since.
CREATE FUNCTION open_latch_as_requested(
    wanted_account text, wanted_request text, wanted_reason text, moment timestamptz, market_moment timestamptz,
    equity_now numeric, after_link bigint DEFAULT NULL
) RETURNS SETOF latches
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
    SELECT opened.* FROM (SELECT * FROM signed_request(wanted_account, 'resume', wanted_request) LIMIT 1) AS asked,
        open_latch(wanted_account, asked.seen, wanted_reason, asked.actor, asked.source, moment, market_moment,
                   equity_now, jsonb_build_object('request', wanted_request), after_link) AS opened
$$;

-- A login link is good once: the row that says so is the row in the audit.
CREATE UNIQUE INDEX login_ticket_used_once ON audit ((detail ->> 'login_ticket')) WHERE detail ? 'login_ticket';

-- ---------------------------------------------------------------------------------------------------------- equity
-- What the breaker measures losses from. A task adds readings and opens a day once, at its midnight; it rewrites none,
-- and begins nothing anew: that is an opening's, above. Whoever could rewrite the references could disarm the breaker.
CREATE FUNCTION guard_equity() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.kind <> 'day_open'
       OR pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'MEMBER') THEN
        RETURN NEW;
    END IF;
    IF NEW.detail ? 'resumed_by' OR NEW.at <> date_trunc('day', NEW.at, 'UTC') THEN
        RAISE EXCEPTION 'this role may not begin anew what losses are measured from'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (SELECT FROM equity WHERE account = NEW.account AND kind = 'day_open'
               AND at >= NEW.at AND at < NEW.at + interval '24 hours') THEN
        RETURN NULL;  -- the day has its opening
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_equity BEFORE INSERT ON equity FOR EACH ROW EXECUTE FUNCTION guard_equity();

-- Make way for a new reading: the newest minute's earlier ones, but no peak and no opening.
CREATE FUNCTION remove_replaced_marks(wanted_account text, after_link bigint, moment timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
    DELETE FROM equity WHERE account = wanted_account AND kind = 'mark' AND NOT is_kept AND link_id = after_link
      AND at >= date_trunc('minute', greatest(moment, (SELECT max(at) FROM equity WHERE account = wanted_account)))
$$;

-- Say what equity was after a link that did not know it, once; where nothing was there before it is a new reference.
CREATE FUNCTION close_equity_link(wanted_account text, link bigint, moment timestamptz, equity_now numeric)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    before numeric;
BEGIN
    UPDATE equity_links SET after_quote = equity_now
    WHERE account = wanted_account AND link_id = link AND after_quote IS NULL RETURNING before_quote INTO before;
    IF before <= 0 THEN
        INSERT INTO equity (account, kind, at, equity_quote, link_id, detail)
        VALUES (wanted_account, 'day_open',
                greatest(moment, (SELECT max(at) FROM equity WHERE account = wanted_account)), equity_now, link,
                '{"source": "nothing was there before"}');
    END IF;
END $$;

-- Marks come every few seconds. After a week the highest (the peak that drawdown is measured from), the lowest and the
-- last of each quarter of an hour tell as much. Returns how many went.
CREATE FUNCTION remove_expired_marks(market_now timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    removed bigint;
BEGIN
    DELETE FROM equity AS e USING (
        SELECT ctid,
               row_number() OVER (quarter ORDER BY equity_quote DESC, at) AS from_top,
               row_number() OVER (quarter ORDER BY equity_quote, at) AS from_bottom,
               row_number() OVER (quarter ORDER BY at DESC) AS from_end
        FROM equity
        WHERE kind = 'mark' AND at < market_now - interval '7 days' AND at >= market_now - interval '40 days'
        WINDOW quarter AS (PARTITION BY account, link_id, date_bin('15 minutes', at, 'epoch'))
    ) AS ranked
    WHERE e.ctid = ranked.ctid AND from_top > 1 AND from_bottom > 1 AND from_end > 1;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- ---------------------------------------------------------------------------------------------------------- rights
-- Gives each role that exists its rights, also on tables that came later; called after every migration. A function is
-- everybody's by default: here it is its owner's, and of the roles that are named below.
CREATE OR REPLACE FUNCTION grant_rights() RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    numbered record;
BEGIN
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
    IF to_regrole('tradewind_writer') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO tradewind_writer;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO tradewind_writer;
        GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO tradewind_writer;
        -- What draws its own number must not be given one: a number taken in advance makes the next row fail.
        FOR numbered IN
            SELECT attrelid::regclass AS name, string_agg(quote_ident(attname), ', ') FILTER (WHERE attidentity = '')
                AS columns
            FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
            GROUP BY attrelid HAVING bool_or(attidentity <> '')
        LOOP
            EXECUTE format('REVOKE INSERT ON %s FROM tradewind_writer', numbered.name);
            EXECUTE format('GRANT INSERT (%s) ON %s TO tradewind_writer', numbered.columns, numbered.name);
        END LOOP;
        REVOKE INSERT, UPDATE, DELETE ON schema_migrations, deployment, latch_history, latches, latch_changes_in_force,
            accepted_differences, equity_links FROM tradewind_writer;
        REVOKE ALL ON control_key FROM tradewind_writer;
        REVOKE ALL ON SEQUENCE latch_history_sequence_seq FROM tradewind_writer;
        -- What was done stays written, and nobody gives it another time.
        REVOKE INSERT, UPDATE, DELETE ON audit FROM tradewind_writer;
        GRANT INSERT (actor, action, outcome, detail, request_id, source) ON audit TO tradewind_writer;
        REVOKE UPDATE, DELETE ON candles, order_events, position_events, fills, payments, baselines, equity,
            write_offs FROM tradewind_writer;
        -- What a fee in a third asset was worth is told after it was paid.
        GRANT UPDATE (fee_quote) ON fills TO tradewind_writer;
        GRANT UPDATE (amount_quote) ON payments TO tradewind_writer;
        REVOKE DELETE ON orders, positions, unprotected_spans, flattenings, heartbeats FROM tradewind_writer;
        GRANT EXECUTE ON FUNCTION tighten_latch, signed_request, open_latch_as_requested, remove_expired_marks,
            remove_replaced_marks, close_equity_link, renew_statistics TO tradewind_writer;
    END IF;
    IF to_regrole('tradewind_reader') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO tradewind_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO tradewind_reader;
        REVOKE ALL ON control_key FROM tradewind_reader;
    END IF;
    IF to_regrole('tradewind_status') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO tradewind_status;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO tradewind_status;
        REVOKE ALL ON control_key FROM tradewind_status;
        REVOKE INSERT ON audit, jobs FROM tradewind_status;
        GRANT INSERT (actor, action, outcome, detail, request_id, source) ON audit TO tradewind_status;
        GRANT INSERT (job_id, kind, state, params, dag_id, dag_run_id, requested_by) ON jobs TO tradewind_status;
        GRANT EXECUTE ON FUNCTION tighten_latch TO tradewind_status;
    END IF;
END $$;
SELECT grant_rights();
