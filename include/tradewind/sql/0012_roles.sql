-- Who may do what. The owner of this schema migrates it. Tasks write rows. The status app reads, inserts audit and job
-- rows, and tightens the latch: nothing else. A role that reads alone is there for notebooks and dashboards.

-- The one way in which a latch tightens, whoever asks: one that is as tight already stays as it is, with its first
-- reason, and every change has its history row in the same transaction. It runs with its owner's rights, so that
-- whoever may do nothing else can still stop trading.
CREATE FUNCTION tighten_latch(
    wanted_account text, wanted_mode text, wanted_reason text, wanted_actor text, moment timestamptz
) RETURNS SETOF latches
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    tightness CONSTANT text[] := ARRAY['active', 'reduce_only', 'halted'];
    present latches;
BEGIN
    IF NOT wanted_mode = ANY (tightness) THEN
        RAISE EXCEPTION '% is no mode of a latch', wanted_mode USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO latches (account, mode, reason, since, sequence)
    VALUES (wanted_account, 'active', '', 'epoch', 0) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT present FROM latches WHERE account = wanted_account FOR UPDATE;
    IF array_position(tightness, wanted_mode) > array_position(tightness, present.mode) THEN
        UPDATE latches
        SET mode = wanted_mode, reason = wanted_reason, since = moment, sequence = present.sequence + 1
        WHERE account = wanted_account RETURNING * INTO STRICT present;
        INSERT INTO latch_history (account, sequence, mode, reason, actor, at)
        VALUES (wanted_account, present.sequence, wanted_mode, wanted_reason, wanted_actor, moment);
    END IF;
    RETURN NEXT present;
END $$;
REVOKE ALL ON FUNCTION tighten_latch FROM PUBLIC;

-- Statistics are the owner's to renew; the nightly upkeep is not the owner.
CREATE FUNCTION renew_statistics() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    ANALYZE candles, data_quality, equity, decisions, orders, fills, regimes;
END $$;
REVOKE ALL ON FUNCTION renew_statistics FROM PUBLIC;

-- Gives each role that exists its rights, also on tables that came later; called after every migration.
CREATE FUNCTION grant_rights() RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF to_regrole('tradewind_writer') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO tradewind_writer;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO tradewind_writer;
        GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO tradewind_writer;
        REVOKE INSERT, UPDATE, DELETE ON schema_migrations, deployment FROM tradewind_writer;
        -- What was done stays written.
        REVOKE UPDATE, DELETE ON audit, latch_history, order_events, position_events FROM tradewind_writer;
        GRANT EXECUTE ON FUNCTION tighten_latch, renew_statistics TO tradewind_writer;
    END IF;
    IF to_regrole('tradewind_reader') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO tradewind_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO tradewind_reader;
    END IF;
    IF to_regrole('tradewind_status') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA public TO tradewind_status;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO tradewind_status;
        GRANT INSERT ON audit, jobs TO tradewind_status;
        GRANT EXECUTE ON FUNCTION tighten_latch TO tradewind_status;
    END IF;
END $$;
REVOKE ALL ON FUNCTION grant_rights FROM PUBLIC;

-- On a server whose owner may make roles they are made here, without a login: whoever runs the server gives them a
-- password. Elsewhere the stack, or an administrator, makes them.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['tradewind_writer', 'tradewind_reader', 'tradewind_status'] LOOP
        BEGIN
            IF to_regrole(role_name) IS NULL THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            END IF;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % must be made by an administrator', role_name;
            WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database's migration was faster
        END;
    END LOOP;
END $$;
SELECT grant_rights();
