-- Maintenance: partitions ahead of need, indexes of full partitions, retention, wiping of variables,
-- erasing of persons. Each step is bounded and safe to repeat; one process at a time works.

-- migrate:up

-- Make partitions of message and outcome until *ahead* ids are covered; return how many.
-- ATTACH takes only SHARE UPDATE EXCLUSIVE on the parent, so inserts go on meanwhile. Rows that
-- came before their partition was made are in the default one, and so is what was inserted with an
-- id far ahead: a partition begins behind those that lie in its range. SECURITY DEFINER: a worker makes
-- partitions, and owns none.
CREATE FUNCTION dispatcher.make_partitions(
    ahead bigint DEFAULT 20000000, size bigint DEFAULT 5000000
) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made integer := 0;
    first bigint;
    reached bigint;
    taken bigint;
    wanted bigint;
    part record;
BEGIN
    -- One at a time; the second finds the work done.
    PERFORM pg_advisory_xact_lock(hashtext('dispatcher.make_partitions'));
    SELECT last_value INTO reached FROM dispatcher.message_id;
    -- Below the highest bigint, which no range reaches.
    wanted := least(reached::numeric + ahead, 9223372036854775807 - size);
    LOOP
        SELECT coalesce(max(substring(c.relname FROM '_to_([0-9]+)$')::bigint), 1) INTO first
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'dispatcher.message'::regclass;
        -- After a jump of the sequence, the ids that it left out need no partition.
        IF first < reached - ahead THEN
            first := reached + 1;
        END IF;
        LOOP
            EXIT WHEN first > wanted;
            SELECT greatest(
                (SELECT max(id) FROM dispatcher.message_rest
                 WHERE id >= first AND id < first + size),
                (SELECT max(message_id) FROM dispatcher.outcome_rest
                 WHERE message_id >= first AND message_id < first + size)
            ) INTO taken;
            EXIT WHEN taken IS NULL;
            first := taken + 1;
        END LOOP;
        EXIT WHEN first > wanted;
        FOR part IN
            SELECT * FROM (VALUES ('message', 'id'), ('outcome', 'message_id')) AS p (parent, key)
        LOOP
            EXECUTE format(
                'CREATE TABLE dispatcher.%I (LIKE dispatcher.%I INCLUDING ALL,'
                ' CONSTRAINT id_range CHECK (%I >= %s AND %I < %s))',
                format('%s_%s_to_%s', part.parent, first, first + size), part.parent,
                part.key, first, part.key, first + size);
            EXECUTE format(
                'ALTER TABLE dispatcher.%I ATTACH PARTITION dispatcher.%I'
                ' FOR VALUES FROM (%s) TO (%s)',
                part.parent, format('%s_%s_to_%s', part.parent, first, first + size),
                first, first + size);
        END LOOP;
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- Return the partitions: first id, and the id after the last.
CREATE FUNCTION dispatcher.partitions() RETURNS TABLE (first bigint, past bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p[1]::bigint, p[2]::bigint
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL regexp_match(c.relname, '_([0-9]+)_to_([0-9]+)$') AS p
    WHERE i.inhparent = 'dispatcher.message'::regclass AND p IS NOT NULL
    ORDER BY 1
$$;

-- Return the foreign keys of other tables that refer to messages or outcomes, in words; null if
-- there is none. No partition that one refers to can be dropped.
CREATE FUNCTION dispatcher.foreign_keys_onto_messages() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(DISTINCT format('%I of table %s', c.conname, c.conrelid::regclass), ', ')
    FROM pg_constraint c
    WHERE c.contype = 'f' AND c.conparentid = 0 AND c.confrelid IN (
        SELECT p.oid FROM pg_class p
        WHERE p.relnamespace = 'dispatcher'::regnamespace
          AND (p.relname IN ('message', 'outcome') OR p.relname ~ '^(message|outcome)_'))
$$;

-- Return the sequences that are behind the rows that there are, and what each must reach. That is so
-- after a cut-over to a logical replica, or after data were loaded without their sequences: each
-- insert then fails on its primary key. An id of 10^17 or more was chosen by hand, and does not count.
CREATE FUNCTION dispatcher.sequences_behind()
RETURNS TABLE (name text, last_value bigint, needed bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept record;
BEGIN
    FOR kept IN
        SELECT 'message' AS of_table, 'id' AS of_column, 'dispatcher.message_id' AS by_sequence
        UNION ALL SELECT 'batch', 'id', 'dispatcher.batch_id'
        UNION ALL
        SELECT c.relname, a.attname,
            pg_get_serial_sequence(format('dispatcher.%I', c.relname), a.attname)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'dispatcher'::regnamespace AND a.attidentity <> ''
          AND NOT a.attisdropped
    LOOP
        EXECUTE format('SELECT max(%1$I) FROM dispatcher.%2$I WHERE %1$I < 100000000000000000',
            kept.of_column, kept.of_table) INTO needed;
        name := kept.by_sequence;
        last_value := coalesce(pg_sequence_last_value(name::regclass), 0);
        IF needed > last_value THEN
            RETURN NEXT;
        END IF;
    END LOOP;
    SELECT p.last_position, (SELECT max(e.last_position) FROM dispatcher.event e)
    INTO last_value, needed FROM dispatcher.event_position p;
    IF needed > last_value THEN
        name := 'dispatcher.event_position';
        RETURN NEXT;
    END IF;
END $$;

-- Set the sequences that are behind to what each must reach; return them as they were.
CREATE FUNCTION dispatcher.repair_sequences()
RETURNS TABLE (name text, last_value bigint, needed bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('dispatcher.repair_sequences'));
    FOR name, last_value, needed IN SELECT * FROM dispatcher.sequences_behind() LOOP
        IF name = 'dispatcher.event_position' THEN
            UPDATE dispatcher.event_position SET last_position = needed;
        ELSE
            -- An insert may have passed it since: ids would be given twice.
            PERFORM setval(name::regclass,
                greatest(needed, pg_sequence_last_value(name::regclass)));
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Return whether any of these messages may still be sent.
CREATE FUNCTION dispatcher.has_open_messages(first bigint, past bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM dispatcher.queue WHERE id >= first AND id < past)
        OR EXISTS (
            SELECT FROM dispatcher.bulk
            WHERE first_id > first - 500 AND first_id < past AND ids && int8range(first, past))
        OR EXISTS (
            SELECT FROM dispatcher.batch b
            WHERE (b.state = 'open' OR b.state = 'unsure')
              AND EXISTS (SELECT FROM unnest(b.message_ids) AS u WHERE u >= first AND u < past))
$$;

-- Return whether all of these messages were inserted, and finished, before a time. The cheap tests
-- come first: the last row shows whether a partition is too young.
CREATE FUNCTION dispatcher.all_finished_before(first bigint, past bigint, before timestamptz)
RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (SELECT queued_at >= before FROM dispatcher.message
        WHERE id >= first AND id < past ORDER BY id DESC LIMIT 1)
        OR dispatcher.has_open_messages(first, past)
    THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (SELECT FROM dispatcher.outcome
            WHERE message_id >= first AND message_id < past AND created_at >= before)
        AND NOT EXISTS (SELECT FROM dispatcher.message
            WHERE id >= first AND id < past AND queued_at >= before)
        AND NOT EXISTS (SELECT FROM dispatcher.message m
            WHERE m.id >= first AND m.id < past AND NOT EXISTS (
                SELECT FROM dispatcher.outcome o
                WHERE o.message_id = m.id AND o.message_id >= first AND o.message_id < past));
END $$;

-- Return whether no outcome of these messages is being written, or will be soon: none is on its
-- way, and none is due.
CREATE FUNCTION dispatcher.is_idle(first bigint, past bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT NOT EXISTS (
            SELECT FROM dispatcher.batch b
            WHERE b.state = 'open'
              AND EXISTS (SELECT FROM unnest(b.message_ids) AS u WHERE u >= first AND u < past))
        AND NOT EXISTS (
            SELECT FROM dispatcher.queue
            WHERE id >= first AND id < past AND due_at < clock_timestamp() + interval '5 min')
        AND NOT EXISTS (
            SELECT FROM dispatcher.bulk
            WHERE first_id > first - 500 AND first_id < past AND ids && int8range(first, past)
              AND due_at < clock_timestamp() + interval '5 min')
$$;

-- Raise an exception for an age that is too short: a mistake in a setting must not empty the tables.
CREATE FUNCTION dispatcher.require_min_age(given interval, shortest interval) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF given IS NULL OR given < shortest THEN
        RAISE EXCEPTION 'nothing is dropped or wiped before it is % old', shortest
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- Take the lock of maintenance until the end of the transaction; false if another process has it,
-- which then does the work.
CREATE FUNCTION dispatcher.try_maintenance_lock() RETURNS boolean
LANGUAGE sql AS $$ SELECT pg_try_advisory_xact_lock(hashtext('dispatcher.maintenance')) $$;

-- Let no other transaction take an id from a sequence until the end of this one: an id that is taken
-- between a look at the sequence and a setval() would be given twice. It waits for transactions that
-- have taken ids. ALTER SEQUENCE is the only statement that takes such a lock; it changes nothing here.
CREATE FUNCTION dispatcher.lock_sequence(sequence regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE (SELECT format('ALTER SEQUENCE %s CACHE %s', sequence, s.seqcache)
        FROM pg_sequence s WHERE s.seqrelid = sequence);
END $$;

-- Begin a new partition although the last is not full, if its first message is older than *age*:
-- where few messages are sent, one partition would last for years, and be kept for as long.
-- Skipping the unused ids is harmless. Not while a transaction that inserts messages stays open: the
-- next round finds a better moment.
CREATE FUNCTION dispatcher.start_partition_early(age interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    current record;
BEGIN
    IF NOT dispatcher.try_maintenance_lock() THEN
        RETURN false;
    END IF;
    SELECT p.* INTO current FROM dispatcher.partitions() p, dispatcher.message_id s
    WHERE p.first <= s.last_value AND s.last_value < p.past - 1;
    IF (SELECT queued_at < now() - age FROM dispatcher.message
        WHERE id >= current.first AND id < current.past ORDER BY id LIMIT 1)
    THEN
        -- Inserts wait behind this lock, so it is waited for a moment only.
        PERFORM set_config('lock_timeout', '200ms', true);
        PERFORM dispatcher.lock_sequence('dispatcher.message_id');
        PERFORM setval('dispatcher.message_id', greatest(current.past - 1, s.last_value))
        FROM dispatcher.message_id s;
        RETURN true;
    END IF;
    RETURN false;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;

-- Make one index that a full partition lacks, for finding messages by number and reference, and
-- outcomes by provider id; returns its name, or null if there is none to make now. Raises
-- lock_not_available if the table is in use.
-- Only partitions that are full get such indexes: on the one that is being filled they would cost
-- every insert (COPY at 0.8 of its speed with one on recipient alone; a BRIN index with bloom filters of
-- both costs as much: 0.8 us a row, a fifth of COPY's CPU), and one is soon read whole.
-- Not CONCURRENTLY, which no function may do, and which waits for every old snapshot. It takes
-- seconds, in which readers read and writers wait; but no messages are inserted into a partition
-- that is full, and outcomes get their index when none is to be expected.
CREATE FUNCTION dispatcher.index_step() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET maintenance_work_mem = '128MB' AS $$
DECLARE
    missing record;
BEGIN
    IF NOT dispatcher.try_maintenance_lock() THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR missing IN
        SELECT w.parent || '_' || p.first || '_to_' || p.past AS part,
            w.parent || '_' || p.first || '_to_' || p.past || '_' || w.name AS index,
            w.parent, w.columns, p.first, p.past
        FROM dispatcher.message_id s
        JOIN dispatcher.partitions() p ON p.past - 1 <= s.last_value
        CROSS JOIN (VALUES
            ('message', 'campaign', '(campaign, id) WHERE campaign IS NOT NULL'),
            ('message', 'recipient', '(recipient)'),
            ('message', 'reference', '(reference, id) WHERE reference IS NOT NULL'),
            ('outcome', 'provider_id', '(provider_id) WHERE provider_id IS NOT NULL')
        ) AS w (parent, name, columns)
        LEFT JOIN pg_class c
            ON c.relname = w.parent || '_' || p.first || '_to_' || p.past || '_' || w.name
            AND c.relnamespace = 'dispatcher'::regnamespace
        WHERE c.oid IS NULL
        ORDER BY p.first DESC, w.parent, w.name  -- the newest is searched most
    LOOP
        CONTINUE WHEN missing.parent = 'outcome'
            AND NOT dispatcher.is_idle(missing.first, missing.past);
        EXECUTE format('CREATE INDEX %I ON dispatcher.%I %s',
            missing.index, missing.part, missing.columns);
        RETURN missing.index;
    END LOOP;
    RETURN NULL;
END $$;

-- One step of dropping the oldest partition that is full and finished since *retention*: its reports
-- and idempotency keys are deleted by key, *step* messages at a time, and then it is dropped. Two short
-- steps before that make sure that no requeue is missed.
-- Returns what was done, or null if there is nothing to do. Raises lock_not_available if a table is
-- in use. A partition that something else depends on (a foreign key, a view) stays as it is: see
-- foreign_keys_onto_messages.
CREATE FUNCTION dispatcher.drop_step(retention interval, step integer DEFAULT 50000) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old record;
    begin_at bigint;
    name text;
    ids text[];
BEGIN
    PERFORM dispatcher.require_min_age(retention, '1 hour');
    IF NOT dispatcher.try_maintenance_lock() THEN
        RETURN NULL;
    END IF;
    FOR old IN
        SELECT p.* FROM dispatcher.partitions() p, dispatcher.message_id s
        WHERE p.past <= s.last_value + 1 AND s.is_called ORDER BY p.first
    LOOP
        name := format('%s_to_%s', old.first, old.past);
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_constraint c
            WHERE c.contype = 'f' AND c.confrelid IN (
                format('dispatcher.%I', 'message_' || name)::regclass,
                format('dispatcher.%I', 'outcome_' || name)::regclass));
        SELECT p.position INTO begin_at FROM dispatcher.maintenance_progress p
        WHERE p.task = 'drop' AND p.partition = old.first;
        IF NOT FOUND THEN
            CONTINUE WHEN NOT dispatcher.all_finished_before(old.first, old.past, now() - retention);
            INSERT INTO dispatcher.maintenance_progress (task, partition, position)
            VALUES ('drop', old.first, old.first - 2);
            RETURN 'began ' || name;
        ELSIF begin_at = old.first - 2 THEN
            -- A requeue that is open since before this row was committed does not see it, and so does
            -- not delete it. Requeues wait for this lock, so nothing else is done while it is held. A
            -- younger partition would have to wait for the same requeue.
            EXIT WHEN NOT pg_try_advisory_xact_lock(hashtext('dispatcher.requeue'));
            UPDATE dispatcher.maintenance_progress p SET position = old.first - 1
            WHERE p.task = 'drop' AND p.partition = old.first;
            RETURN 'no older requeue ' || name;
        ELSIF begin_at = old.first - 1 THEN
            -- Those requeues have committed: a new outcome of theirs is seen here, and not dropped young.
            IF NOT dispatcher.all_finished_before(old.first, old.past, now() - retention) THEN
                DELETE FROM dispatcher.maintenance_progress p
                WHERE p.task = 'drop' AND p.partition = old.first;
                CONTINUE;
            END IF;
            begin_at := old.first;
        END IF;
        -- An operator may have requeued one of them since.
        CONTINUE WHEN dispatcher.has_open_messages(old.first, old.past);
        IF begin_at < old.past THEN
            -- Looked up by key, and not joined: a join may read a table of twenty million rows for
            -- the fifty thousand that are deleted, with a plan made when the table was small.
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
            DELETE FROM dispatcher.report_summary WHERE provider_id = ANY (ids);
            -- On to the next message there is: a partition that was ended before it was full
            -- consists mostly of unused ids.
            SELECT min(m.id) INTO begin_at FROM dispatcher.message m
            WHERE m.id >= begin_at + step AND m.id < old.past;
            UPDATE dispatcher.maintenance_progress p SET position = coalesce(begin_at, old.past)
            WHERE p.task = 'drop' AND p.partition = old.first;
            RETURN 'pruned ' || name;
        END IF;
        -- Both parents are locked at once, so that no transaction waits for one while it holds the
        -- other. 200 ms are below deadlock_timeout (1 s), and too short to stall inserts.
        PERFORM set_config('lock_timeout', '200ms', true);
        LOCK TABLE ONLY dispatcher.message, dispatcher.outcome IN ACCESS EXCLUSIVE MODE;
        CONTINUE WHEN dispatcher.has_open_messages(old.first, old.past);
        BEGIN
            EXECUTE format('DROP TABLE dispatcher.%I, dispatcher.%I',
                'message_' || name, 'outcome_' || name);
        EXCEPTION WHEN dependent_objects_still_exist THEN
            CONTINUE;
        END;
        DELETE FROM dispatcher.maintenance_progress p
        WHERE p.task = 'drop' AND p.partition = old.first;
        DELETE FROM dispatcher.pending_wipe w
        WHERE w.message_id >= old.first AND w.message_id < old.past;
        RETURN 'dropped ' || name;
    END LOOP;
    RETURN NULL;
END $$;

-- Add counters by minute that are older than *age* to those by hour, at most *most* rows; return how
-- many. Those by hour are kept for 13 months: they say nothing of a person.
CREATE FUNCTION dispatcher.roll_up_counts(age interval, most integer DEFAULT 5000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moved bigint;
BEGIN
    PERFORM dispatcher.require_min_age(age, '1 hour');
    IF NOT dispatcher.try_maintenance_lock() THEN
        RETURN 0;
    END IF;
    WITH old AS (
        DELETE FROM dispatcher.event_count WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM dispatcher.event_count WHERE minute < now() - age
            ORDER BY minute LIMIT most))
        RETURNING date_trunc('hour', minute, 'UTC') AS hour, app, event, code, count
    ), added AS (
        INSERT INTO dispatcher.hour_count AS h (hour, app, event, code, count)
        SELECT hour, app, event, code, sum(count) FROM old
        GROUP BY hour, app, event, code ORDER BY hour, app, event, code
        ON CONFLICT (hour, app, event, code) DO UPDATE SET count = h.count + excluded.count
    )
    SELECT count(*) INTO moved FROM old;
    DELETE FROM dispatcher.hour_count WHERE hour < now() - interval '13 months';
    RETURN moved;
END $$;

-- Delete uploaded lists of over a day ago, and previews of actions that nobody confirmed for a day;
-- return how many.
CREATE FUNCTION dispatcher.drop_uploads() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH lists AS (
        DELETE FROM dispatcher.list_upload WHERE created_at < now() - interval '1 day' RETURNING 1
    ), previews AS (
        DELETE FROM dispatcher.message_action
        WHERE started_at IS NULL AND created_at < now() - interval '1 day' RETURNING 1
    )
    SELECT (SELECT count(*) FROM lists) + (SELECT count(*) FROM previews)
$$;

-- Delete what is older than *retention* and lies in no partition, at most *most* rows of each
-- table; returns how many. Nothing that is open is deleted.
CREATE FUNCTION dispatcher.prune(retention interval, most integer DEFAULT 5000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before timestamptz := now() - retention;
    gone bigint;
    pruned bigint := 0;
BEGIN
    PERFORM dispatcher.require_min_age(retention, '1 hour');
    IF NOT dispatcher.try_maintenance_lock() THEN
        RETURN 0;
    END IF;
    DELETE FROM dispatcher.event WHERE id = ANY (ARRAY(
        SELECT id FROM (
            SELECT id, created_at FROM dispatcher.event
            WHERE last_position IS NOT NULL ORDER BY last_position LIMIT most
        ) AS oldest WHERE created_at < before));
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    -- Events name batches that were closed at the same time: a batch is kept as long as its event.
    -- An hour more than the longest transaction, because a row is visible only after its commit.
    -- One that was given up is kept as long as a report of it may come (72 hours, provider.md), and as
    -- long as its messages may be sent again: by it a late answer or report takes them back.
    DELETE FROM dispatcher.batch WHERE id = ANY (ARRAY(
        SELECT b.id FROM dispatcher.batch b
        WHERE b.opened_at < before AND b.state = 'closed' AND b.closed_at < least(before,
            (SELECT created_at FROM dispatcher.event
                WHERE last_position IS NOT NULL ORDER BY last_position LIMIT 1) - interval '1 hour',
            (SELECT min(created_at) FROM dispatcher.event WHERE last_position IS NULL)
                - interval '1 hour')
          AND (b.settled_by IN ('policy: resend', 'operator: resend')
            AND (b.closed_at > now() - interval '80 hours' OR EXISTS (
                SELECT FROM unnest(coalesce(b.unsure_ids, b.message_ids)) AS u (id)
                WHERE EXISTS (SELECT FROM dispatcher.queue q WHERE q.id = u.id)
                   OR u.id IN (
                    SELECT unnest(o.message_ids) FROM dispatcher.batch o
                    WHERE o.state = 'open' OR o.state = 'unsure')))) IS NOT TRUE
        ORDER BY b.opened_at LIMIT most));
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    -- Minutes are kept as long as daily limits and charts read them.
    pruned := pruned + dispatcher.roll_up_counts(greatest(retention, '4 days'), most);

    DELETE FROM dispatcher.message_action WHERE id = ANY (ARRAY(
        SELECT id FROM dispatcher.message_action WHERE created_at < before
          AND coalesce(finished_at, started_at, created_at) < before ORDER BY id LIMIT most));
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    -- One that may be of an unsure request stays: the policy resend must not send that again.
    DELETE FROM dispatcher.unreadable_push WHERE digest = ANY (ARRAY(
        SELECT p.digest FROM dispatcher.unreadable_push p
        WHERE p.last_at < before AND NOT EXISTS (
            SELECT FROM dispatcher.batch b WHERE b.token = ANY (p.tokens) AND b.state <> 'closed')
        LIMIT most));
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    DELETE FROM dispatcher.reply WHERE id = ANY (ARRAY(
        SELECT id FROM dispatcher.reply WHERE received_at < before ORDER BY received_at LIMIT most));
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    -- Reports that belong to no message are deleted with no partition. One of an unsure request stays:
    -- it shows that the provider took the request, which the policy resend must not send again.
    WITH orphaned AS (
        DELETE FROM dispatcher.unmatched_report WHERE ctid = ANY (ARRAY(
            SELECT n.ctid FROM dispatcher.unmatched_report n
            WHERE n.first_seen_at < before AND n.due_at IS NULL
              AND n.provider_id NOT IN (
                SELECT r.provider_id FROM dispatcher.batch b
                CROSS JOIN LATERAL (
                    SELECT provider_id FROM dispatcher.report WHERE token = b.token OFFSET 0
                ) AS r
                WHERE b.state = 'unsure')
            ORDER BY n.first_seen_at LIMIT most FOR UPDATE SKIP LOCKED))
        RETURNING provider_id, segment
    ), sums AS (
        DELETE FROM dispatcher.report_summary s USING orphaned n WHERE s.provider_id = n.provider_id
    )
    DELETE FROM dispatcher.report r USING orphaned n
    WHERE r.provider_id = n.provider_id AND r.segment = n.segment;
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    -- After a jump of the clock a worker that lives looks as old as one that died. So one that did not stop
    -- in good order is deleted once another that started after its lease had ended is as old by its start.
    DELETE FROM dispatcher.worker w
    WHERE w.heartbeat_at < before AND (w.stopped_at < before OR w.stopped_at IS NULL AND EXISTS (
            SELECT FROM dispatcher.worker later
            WHERE later.started_at > w.heartbeat_at + w.lease AND later.started_at < before))
        AND NOT EXISTS (SELECT FROM dispatcher.batch b WHERE b.worker = w.id AND b.state = 'open');
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    -- Messages in the default partition are deleted by rows; those of an unsure request stay, as in a
    -- partition. Their rows are locked first: one that is requeued meanwhile has no outcome any more.
    WITH old AS (
        SELECT m.id, m.app, m.idempotency_key, o.provider_id
        FROM dispatcher.message_rest m
        JOIN dispatcher.outcome o ON o.message_id = m.id
        WHERE m.queued_at < before AND o.created_at < before
          AND m.id NOT IN (
            SELECT unnest(b.message_ids) FROM dispatcher.batch b WHERE b.state = 'unsure')
        ORDER BY m.id LIMIT most
        FOR UPDATE OF m, o SKIP LOCKED
    ), keys AS (
        DELETE FROM dispatcher.idempotency i USING old
        WHERE i.app = old.app AND i.key = old.idempotency_key AND i.message_id = old.id
    ), reports AS (
        DELETE FROM dispatcher.report r USING old WHERE r.provider_id = old.provider_id
    ), sums AS (
        DELETE FROM dispatcher.report_summary s USING old WHERE s.provider_id = old.provider_id
    ), wipes AS (
        DELETE FROM dispatcher.pending_wipe w USING old WHERE w.message_id = old.id
    ), outcomes AS (
        DELETE FROM dispatcher.outcome_rest o USING old WHERE o.message_id = old.id
    )
    DELETE FROM dispatcher.message_rest m USING old WHERE m.id = old.id;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN pruned + gone;
END $$;

-- Expire messages that wait although their time is over, 20,000 at most of those that end after
-- *after*, *after_id*; return how many, and of the last its end and id, with which the next call goes
-- on: null if there are no more, and what was given if another call runs. A first call begins two minutes
-- before the last one of those.
-- Claims expire what is due; this finds what no claim sees, in an app that is paused, without
-- a worker or with a later turn. What returns to the queue after its time lies before *after*: each call
-- also looks at the next 5,000 that have returned. A message that was inserted less than two minutes ago, or by a
-- transaction that took so long, is found by the next claim.
CREATE FUNCTION dispatcher.expire(
    after timestamptz DEFAULT NULL,
    after_id bigint DEFAULT 0,
    OUT expired integer,
    OUT last timestamptz,
    OUT last_id bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    until timestamptz := clock_timestamp();
    due bigint[];
    returned bigint[];
    bulk_rows bigint[];
    apps text[];
    ids bigint[];
BEGIN
    expired := 0;
    IF NOT pg_try_advisory_xact_lock(hashtext('dispatcher.expire')) THEN
        last := after;  -- the next call goes on there, and not again from the beginning
        last_id := after_id;
        RETURN;
    END IF;
    after := coalesce(after, (
        SELECT to_timestamp(p.position) - interval '2 minutes'
        FROM dispatcher.maintenance_progress p WHERE p.task = 'expire' AND p.partition = 0
    ), '-infinity');
    SELECT array_agg(m.id ORDER BY m.expires_at, m.id), max(m.expires_at) INTO due, last
    FROM (
        SELECT id, expires_at FROM dispatcher.message
        WHERE expires_at IS NOT NULL AND (expires_at, id) > (after, after_id)
          AND expires_at <= until
        ORDER BY expires_at, id LIMIT 20000
    ) AS m;
    IF cardinality(due) = 20000 THEN
        last_id := due[20000];
    ELSE
        last := NULL;
    END IF;
    returned := ARRAY(
        SELECT q.id FROM dispatcher.queue q
        WHERE q.last_batch IS NOT NULL AND NOT q.requeued AND q.id > coalesce((
            SELECT p.position FROM dispatcher.maintenance_progress p
            WHERE p.task = 'expire-returned' AND p.partition = 0), 0)
        ORDER BY q.id LIMIT 5000);
    due := due || ARRAY(
        SELECT m.id FROM dispatcher.message m
        WHERE m.id = ANY (returned) AND m.id >= returned[1]
          AND m.id <= returned[cardinality(returned)] AND m.expires_at <= until);
    IF due <> '{}' THEN
        SELECT array_agg(b.first_id) INTO bulk_rows FROM (
            SELECT first_id FROM dispatcher.bulk
            WHERE first_id = ANY (dispatcher.bulk_rows_with(due)) FOR UPDATE SKIP LOCKED
        ) AS b;
        WITH waiting AS MATERIALIZED (
            SELECT id FROM dispatcher.queue WHERE id = ANY (due) AND NOT requeued
            FOR UPDATE SKIP LOCKED
        ), taken AS (
            DELETE FROM dispatcher.queue WHERE id = ANY (ARRAY(SELECT id FROM waiting))
            RETURNING id, app, attempt, last_batch
        ), ended AS MATERIALIZED (
            TABLE taken
            UNION ALL
            SELECT id, app, 0, NULL FROM dispatcher.take_from_bulk(bulk_rows, due)
        ), written AS (
            INSERT INTO dispatcher.outcome (message_id, state, attempts, batch_id, code, reason)
            SELECT id, 'expired', attempt, last_batch, 'expired',
                'it expired before it could be sent'
            FROM ended ON CONFLICT (message_id) DO NOTHING
            RETURNING message_id
        )
        SELECT array_agg(t.app), array_agg(t.id) INTO apps, ids
        FROM ended t JOIN written w ON w.message_id = t.id;
        expired := coalesce(cardinality(ids), 0);
        PERFORM dispatcher.count_event('expired', 'expired', apps);
        PERFORM dispatcher.append_event('expired', 'expired', apps, ids);
    END IF;
    INSERT INTO dispatcher.maintenance_progress AS p (task, position)
    VALUES ('expire', floor(extract(epoch FROM coalesce(last, until)))),
        ('expire-returned', CASE WHEN cardinality(returned) = 5000 THEN returned[5000] ELSE 0 END)
    ON CONFLICT (task, partition) DO UPDATE SET position = excluded.position;
END $$;

-- Wipe variables. A requeue locks its message first, so it is seen here once it has committed: by the
-- outcome that it has removed, for a claim may have taken the message from the queue since.
CREATE FUNCTION dispatcher.wipe(ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE dispatcher.message SET params = '{}', wiped_at = now()
    WHERE id = ANY (ids) AND params <> '{}';
    IF (SELECT count(*) FROM dispatcher.outcome WHERE message_id = ANY (ids)) < cardinality(ids) THEN
        RAISE serialization_failure USING MESSAGE = 'a message was sent again meanwhile';
    END IF;
END $$;

-- Wipe the variables of messages that are finished since *after*, examining at most *most*; returns
-- how many were examined: 0 if there is nothing to do now. Each row is written at most once, in the
-- order of ids, long after it was last used. A message that is not finished in its turn is recorded
-- in pending_wipe; one that a long transaction commits behind the position is found by a second pass
-- a day later.
CREATE FUNCTION dispatcher.wipe_params(after interval, most integer DEFAULT 5000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before timestamptz;
    pass record;
    turn bigint[];
    ended bigint[];
    examined bigint := 0;
BEGIN
    PERFORM dispatcher.require_min_age(after, '1 minute');
    IF NOT dispatcher.try_maintenance_lock() THEN
        RETURN 0;
    END IF;
    FOR pass IN SELECT * FROM (VALUES ('wipe', after), ('wipe-again', after + '1 day'))
        AS p (task, after)
    LOOP
        before := now() - pass.after;
        INSERT INTO dispatcher.maintenance_progress (task, position) VALUES (pass.task, 0)
        ON CONFLICT DO NOTHING;
        SELECT array_agg(t.id) INTO turn FROM (
            SELECT id, bool_and(queued_at < before) OVER (ORDER BY id) AS due
            FROM (
                SELECT id, queued_at FROM dispatcher.message
                WHERE id > (
                    SELECT p.position FROM dispatcher.maintenance_progress p
                    WHERE p.task = pass.task AND p.partition = 0)
                ORDER BY id LIMIT most
            ) AS next
        ) AS t WHERE t.due;
        CONTINUE WHEN turn IS NULL;
        SELECT array_agg(message_id) INTO ended FROM dispatcher.outcome
        WHERE message_id = ANY (turn) AND created_at < now() - after;
        PERFORM dispatcher.wipe(ended);
        INSERT INTO dispatcher.pending_wipe (message_id)
        SELECT m.id FROM dispatcher.message m
        WHERE m.id = ANY (turn) AND m.params <> '{}'
        ON CONFLICT DO NOTHING;
        UPDATE dispatcher.maintenance_progress p SET position = turn[cardinality(turn)]
        WHERE p.task = pass.task AND p.partition = 0;
        examined := examined + cardinality(turn);
    END LOOP;

    SELECT array_agg(message_id) INTO ended FROM (
        SELECT w.message_id FROM dispatcher.pending_wipe w
        JOIN dispatcher.outcome o ON o.message_id = w.message_id
        WHERE o.created_at < now() - after
        LIMIT most
    ) AS late;
    IF ended IS NOT NULL THEN
        PERFORM dispatcher.wipe(ended);
        DELETE FROM dispatcher.pending_wipe WHERE message_id = ANY (ended);
        examined := examined + cardinality(ended);
    END IF;
    RETURN examined;
END $$;

-- Erase a person: number, variables and reference of every message to a number in any spelling,
-- the number in its reports and in what limits count, and its replies. What waits is cancelled; what is on its way, or
-- unsure, is left: call it again later. A suppressed number stays suppressed, without the reason.
-- Returns the messages erased, those left, and whether the number is suppressed. The audit lists the
-- messages, and no number.
CREATE FUNCTION dispatcher.forget(numbers text[], actor text DEFAULT session_user)
RETURNS TABLE (erased bigint[], left_alone bigint[], suppressed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wide_digits text := U&'\FF10\FF11\FF12\FF13\FF14\FF15\FF16\FF17\FF18\FF19';
    found_ids bigint[];
    written text[];
    named text;
BEGIN
    numbers := ARRAY(
        SELECT DISTINCT unnest(
            ARRAY[n, dispatcher.e164(n), regexp_replace(dispatcher.e164(n), '^[+]86', '')])
        FROM unnest(numbers) AS n);
    -- Rows may have numbers that suppress() refuses. Less than 5 digits are part of any text.
    IF EXISTS (SELECT FROM unnest(numbers) AS n WHERE (n ~ '^[+]?[0-9]{5,}$') IS NOT TRUE) THEN
        RAISE check_violation USING MESSAGE = 'a number is not 5 digits or more after an optional plus';
    END IF;
    SELECT coalesce(array_agg(id ORDER BY id), '{}') INTO found_ids
    FROM dispatcher.message WHERE recipient = ANY (numbers);
    PERFORM dispatcher.cancel_queued(found_ids);
    SELECT coalesce(array_agg(message_id ORDER BY message_id), '{}') INTO erased
    FROM dispatcher.outcome WHERE message_id = ANY (found_ids);
    SELECT coalesce(array_agg(id), '{}') INTO left_alone
    FROM unnest(found_ids) AS id WHERE id <> ALL (erased);
    UPDATE dispatcher.message SET recipient = '0', params = '{}', reference = NULL, wiped_at = now()
    WHERE id = ANY (erased);
    IF (SELECT count(*) FROM dispatcher.outcome WHERE message_id = ANY (erased))
        < (SELECT count(*) FROM dispatcher.message WHERE id = ANY (erased))
    THEN
        RAISE serialization_failure USING MESSAGE = 'a message was sent again meanwhile';
    END IF;
    -- What the provider writes keeps its form: these are its digits, after a plus where it has one. Eleven
    -- digits of a mobile phone are of mainland China where no plus is written.
    written := ARRAY(
        SELECT unnest(ARRAY['+' || d, '+00' || d, '00' || d]
            || CASE WHEN d ~ '^1[3-9][0-9]{9}$' THEN '{}' ELSE ARRAY[d] END
            || CASE WHEN d LIKE '86%' THEN
                ARRAY[substr(d, 3), '0' || substr(d, 3), '860' || substr(d, 3), '+860' || substr(d, 3)] END)
        FROM (SELECT DISTINCT ltrim(dispatcher.e164(n), '+') FROM unnest(numbers) AS n) AS e (d));
    -- By the message where there is one; by the number, which takes a scan, where there is none.
    UPDATE dispatcher.report r SET recipient = NULL, raw = NULL, earlier = NULL
    WHERE r.recipient = ANY (written)
       OR (r.recipient ~ '[^+0-9]'
            AND CASE WHEN r.recipient ~ U&'[+\FF0B]' THEN '+' ELSE '' END || regexp_replace(
                translate(replace(r.recipient, '(0)', ''), wide_digits, '0123456789'),
                '[^0-9]', '', 'g') = ANY (written))
       OR r.provider_id IN (
            SELECT o.provider_id FROM dispatcher.outcome o
            WHERE o.message_id = ANY (erased) AND o.provider_id IS NOT NULL);
    -- An unreadable push may name the person anywhere; the shortest spelling is part of each, perhaps with
    -- blanks and marks in it, in any encoding. One that may be of an unsure request leaves its tokens: the
    -- policy resend must not send that again.
    SELECT array_to_string(string_to_array(ltrim(n, '+'), NULL),
        '(?:[-+ ().]|%[0-9A-Fa-f]{2}|\\[0-7]{3}){0,3}')
    INTO named FROM unnest(numbers) AS n ORDER BY length(ltrim(n, '+')) LIMIT 1;
    UPDATE dispatcher.unreadable_push p SET body = '', read_at = clock_timestamp()
    WHERE encode(p.body, 'escape') ~ named AND EXISTS (
        SELECT FROM dispatcher.batch b WHERE b.token = ANY (p.tokens) AND b.state <> 'closed');
    DELETE FROM dispatcher.unreadable_push WHERE encode(body, 'escape') ~ named;
    DELETE FROM dispatcher.recipient_usage u
    WHERE u.recipient = ANY (ARRAY(SELECT dispatcher.e164(n) FROM unnest(numbers) AS n));
    DELETE FROM dispatcher.reply r
    WHERE r.number = ANY (ARRAY(SELECT dispatcher.e164(w) FROM unnest(written) AS w));
    UPDATE dispatcher.suppression s SET reason = ''
    WHERE s.recipient = ANY (ARRAY(SELECT dispatcher.e164(n) FROM unnest(numbers) AS n));
    suppressed := FOUND;
    PERFORM dispatcher.append_audit(actor, 'forget',
        cardinality(erased) || CASE cardinality(erased) WHEN 1 THEN ' message' ELSE ' messages' END,
        array_to_string(erased, ' '),
        CASE cardinality(left_alone) WHEN 0 THEN 'erased'
            ELSE cardinality(left_alone) || ' left: on their way, or unsure' END);
    RETURN NEXT;
END $$;

SELECT dispatcher.make_partitions();

-- migrate:down

DROP FUNCTION dispatcher.drop_uploads, dispatcher.roll_up_counts, dispatcher.forget, dispatcher.expire, dispatcher.wipe_params, dispatcher.wipe, dispatcher.prune,
    dispatcher.drop_step, dispatcher.index_step, dispatcher.start_partition_early,
    dispatcher.try_maintenance_lock, dispatcher.lock_sequence, dispatcher.require_min_age, dispatcher.is_idle,
    dispatcher.all_finished_before, dispatcher.has_open_messages, dispatcher.repair_sequences,
    dispatcher.sequences_behind, dispatcher.foreign_keys_onto_messages, dispatcher.partitions,
    dispatcher.make_partitions;
