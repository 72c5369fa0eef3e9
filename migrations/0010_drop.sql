-- Dropping finds by key what leaves, and does not walk through ids that nobody ever had.

-- migrate:up

-- As in 0005, but for how it finds what leaves, and where the next step begins.
CREATE OR REPLACE FUNCTION dispatcher.drop_step(retention interval, step integer DEFAULT 50000) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old record;
    begin_at bigint;
    name text;
    ids text[];
BEGIN
    PERFORM dispatcher.check_patience(retention, '1 hour');
    IF NOT dispatcher.keep_alone() THEN
        RETURN NULL;
    END IF;
    FOR old IN
        SELECT p.* FROM dispatcher.partitions() p, dispatcher.message_id s
        WHERE p.past <= s.last_value + 1 AND s.is_called ORDER BY p.first
    LOOP
        name := format('%s_to_%s', old.first, old.past);
        SELECT upto INTO begin_at FROM dispatcher.keeping k
        WHERE k.work = 'drop' AND k.part = old.first;
        IF NOT FOUND THEN
            CONTINUE WHEN NOT dispatcher.all_over(old.first, old.past, now() - retention);
            begin_at := old.first;
            INSERT INTO dispatcher.keeping (work, part, upto) VALUES ('drop', old.first, begin_at);
        END IF;
        -- Somebody may have sent one of them again since.
        CONTINUE WHEN dispatcher.any_open(old.first, old.past);
        IF begin_at < old.past THEN
            -- Looked up by key, and not joined: a plan that reads the whole of a table of twenty
            -- million for the fifty thousand that leave would be made for a table that is small.
            PERFORM set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
                set_config('plan_cache_mode', 'force_generic_plan', true);
            DELETE FROM dispatcher.idempotency WHERE ctid = ANY (ARRAY(
                SELECT i.ctid FROM dispatcher.message m
                CROSS JOIN LATERAL (
                    SELECT k.ctid, k.message_id FROM dispatcher.idempotency k
                    WHERE k.app = m.app AND k.key = m.idempotency_key OFFSET 0
                ) AS i
                WHERE m.id >= begin_at AND m.id < least(begin_at + step, old.past)
                  AND m.idempotency_key IS NOT NULL AND i.message_id = m.id));
            ids := ARRAY(
                SELECT o.provider_id FROM dispatcher.outcome o
                WHERE o.message_id >= begin_at AND o.message_id < least(begin_at + step, old.past)
                  AND o.provider_id IS NOT NULL);
            DELETE FROM dispatcher.report WHERE provider_id = ANY (ids);
            DELETE FROM dispatcher.report_sum WHERE provider_id = ANY (ids);
            -- On to the next message there is: most of a partition that was ended before it was
            -- full are ids that nobody ever had.
            SELECT min(m.id) INTO begin_at FROM dispatcher.message m
            WHERE m.id >= begin_at + step AND m.id < old.past;
            UPDATE dispatcher.keeping k SET upto = coalesce(begin_at, old.past)
            WHERE k.work = 'drop' AND k.part = old.first;
            RETURN 'pruned ' || name;
        END IF;
        -- Both parents are locked, so that nobody waits for one and holds the other; and asked for
        -- no longer than nobody minds, and less than it takes PostgreSQL to look for a deadlock.
        PERFORM set_config('lock_timeout', '200ms', true);
        LOCK TABLE ONLY dispatcher.message, dispatcher.outcome IN ACCESS EXCLUSIVE MODE;
        CONTINUE WHEN dispatcher.any_open(old.first, old.past);
        EXECUTE format('DROP TABLE dispatcher.%I, dispatcher.%I', 'message_' || name, 'outcome_' || name);
        DELETE FROM dispatcher.keeping k WHERE k.work = 'drop' AND k.part = old.first;
        DELETE FROM dispatcher.wipe_later w
        WHERE w.message_id >= old.first AND w.message_id < old.past;
        RETURN 'dropped ' || name;
    END LOOP;
    RETURN NULL;
END $$;

-- migrate:down

CREATE OR REPLACE FUNCTION dispatcher.drop_step(retention interval, step integer DEFAULT 50000) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old record;
    begin_at bigint;
    name text;
BEGIN
    PERFORM dispatcher.check_patience(retention, '1 hour');
    IF NOT dispatcher.keep_alone() THEN
        RETURN NULL;
    END IF;
    FOR old IN
        SELECT p.* FROM dispatcher.partitions() p, dispatcher.message_id s
        WHERE p.past <= s.last_value + 1 AND s.is_called ORDER BY p.first
    LOOP
        name := format('%s_to_%s', old.first, old.past);
        SELECT upto INTO begin_at FROM dispatcher.keeping k
        WHERE k.work = 'drop' AND k.part = old.first;
        IF NOT FOUND THEN
            CONTINUE WHEN NOT dispatcher.all_over(old.first, old.past, now() - retention);
            begin_at := old.first;
            INSERT INTO dispatcher.keeping (work, part, upto) VALUES ('drop', old.first, begin_at);
        END IF;
        -- Somebody may have sent one of them again since.
        CONTINUE WHEN dispatcher.any_open(old.first, old.past);
        IF begin_at < old.past THEN
            DELETE FROM dispatcher.idempotency i USING dispatcher.message m
            WHERE m.id >= begin_at AND m.id < begin_at + step AND m.id < old.past
              AND m.idempotency_key IS NOT NULL
              AND i.app = m.app AND i.key = m.idempotency_key AND i.message_id = m.id;
            WITH gone AS (
                DELETE FROM dispatcher.report r USING dispatcher.outcome o
                WHERE o.message_id >= begin_at AND o.message_id < begin_at + step
                  AND o.message_id < old.past AND r.provider_id = o.provider_id
                RETURNING r.provider_id
            )
            DELETE FROM dispatcher.report_sum s WHERE s.provider_id IN (SELECT provider_id FROM gone);
            UPDATE dispatcher.keeping k SET upto = begin_at + step
            WHERE k.work = 'drop' AND k.part = old.first;
            RETURN 'pruned ' || name;
        END IF;
        -- Both parents are locked, so that nobody waits for one and holds the other; and asked for
        -- no longer than nobody minds, and less than it takes PostgreSQL to look for a deadlock.
        PERFORM set_config('lock_timeout', '200ms', true);
        LOCK TABLE ONLY dispatcher.message, dispatcher.outcome IN ACCESS EXCLUSIVE MODE;
        CONTINUE WHEN dispatcher.any_open(old.first, old.past);
        EXECUTE format('DROP TABLE dispatcher.%I, dispatcher.%I', 'message_' || name, 'outcome_' || name);
        DELETE FROM dispatcher.keeping k WHERE k.work = 'drop' AND k.part = old.first;
        DELETE FROM dispatcher.wipe_later w
        WHERE w.message_id >= old.first AND w.message_id < old.past;
        RETURN 'dropped ' || name;
    END LOOP;
    RETURN NULL;
END $$;
