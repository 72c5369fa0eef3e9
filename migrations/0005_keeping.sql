-- Keeping: what is old and over leaves, whole partitions at a time; variables leave earlier.

-- migrate:up

-- Less than the second after which PostgreSQL looks for a deadlock, and might end an INSERT.
SET LOCAL lock_timeout = '200ms';

-- How far each of the keeper's works has come; see the functions below.
CREATE TABLE dispatcher.keeping (
    work text NOT NULL,
    part bigint NOT NULL DEFAULT 0,
    upto bigint NOT NULL,
    PRIMARY KEY (work, part)
);

-- Messages whose variables could not be wiped in their turn, because they were not over yet.
CREATE TABLE dispatcher.wipe_later (message_id bigint NOT NULL PRIMARY KEY);

-- When the variables (and of a forgotten person all else) of a message were wiped. Such a message
-- cannot be sent again.
ALTER TABLE dispatcher.message ADD COLUMN wiped_at timestamptz;

CREATE FUNCTION dispatcher.partitions() RETURNS TABLE (first bigint, past bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p[1]::bigint, p[2]::bigint
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL regexp_match(c.relname, '_([0-9]+)_to_([0-9]+)$') AS p
    WHERE i.inhparent = 'dispatcher.message'::regclass AND p IS NOT NULL
    ORDER BY 1
$$;

-- Whether anything of these messages may still go out.
CREATE FUNCTION dispatcher.any_open(first bigint, past bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM dispatcher.queue WHERE id >= first AND id < past)
        OR EXISTS (
            SELECT FROM dispatcher.batch b
            WHERE (b.state = 'open' OR b.state = 'unsure')
              AND EXISTS (SELECT FROM unnest(b.message_ids) AS u WHERE u >= first AND u < past))
$$;

-- Whether these messages all came, and all had their end, before a time. The cheap questions come
-- first: a partition that is too young is told by its last row.
CREATE FUNCTION dispatcher.all_over(first bigint, past bigint, before timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (SELECT queued_at >= before FROM dispatcher.message
        WHERE id >= first AND id < past ORDER BY id DESC LIMIT 1)
        OR dispatcher.any_open(first, past)
    THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (SELECT FROM dispatcher.outcome
            WHERE message_id >= first AND message_id < past AND at >= before)
        AND NOT EXISTS (SELECT FROM dispatcher.message
            WHERE id >= first AND id < past AND queued_at >= before)
        AND NOT EXISTS (SELECT FROM dispatcher.message m
            WHERE m.id >= first AND m.id < past AND NOT EXISTS (
                SELECT FROM dispatcher.outcome o
                WHERE o.message_id = m.id AND o.message_id >= first AND o.message_id < past));
END $$;

-- A mistake in a setting must not empty the tables.
CREATE FUNCTION dispatcher.check_patience(given interval, shortest interval) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF given IS NULL OR given < shortest THEN
        RAISE EXCEPTION 'nothing is dropped or wiped before it is % old', shortest
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- One keeps at a time; who comes second has nothing to do.
CREATE FUNCTION dispatcher.keep_alone() RETURNS boolean
LANGUAGE sql AS $$ SELECT pg_try_advisory_xact_lock(hashtext('dispatcher.keeping')) $$;

-- Begin a new partition although the last is not full, if its first message is older than *age*:
-- where few messages are sent, one partition would last for years, and be kept for as long. The
-- ids that are left out are missed by nobody.
CREATE FUNCTION dispatcher.turn_page(age interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part record;
BEGIN
    IF NOT dispatcher.keep_alone() THEN
        RETURN false;
    END IF;
    SELECT p.* INTO part FROM dispatcher.partitions() p, dispatcher.message_id s
    WHERE p.first <= s.last_value AND s.last_value < p.past - 1;
    IF (SELECT queued_at < now() - age FROM dispatcher.message
        WHERE id >= part.first AND id < part.past ORDER BY id LIMIT 1)
    THEN
        PERFORM setval('dispatcher.message_id', part.past - 1);
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- One step of dropping the oldest partition that is full and over since *retention*: its reports
-- and idempotency keys leave by their keys, *step* messages at a time, and then it is dropped.
-- Returns what was done, or null if there is nothing to do. Raises lock_not_available if there is
-- no moment to drop it in.
CREATE FUNCTION dispatcher.drop_step(retention interval, step integer DEFAULT 50000) RETURNS text
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

-- Delete what is older than *retention* and lies in no partition, at most *most* rows of each
-- table; returns how many. Nothing that is open leaves.
CREATE FUNCTION dispatcher.prune(retention interval, most integer DEFAULT 5000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before timestamptz := now() - retention;
    gone bigint;
    pruned bigint := 0;
BEGIN
    PERFORM dispatcher.check_patience(retention, '1 hour');
    IF NOT dispatcher.keep_alone() THEN
        RETURN 0;
    END IF;
    DELETE FROM dispatcher.feed WHERE id = ANY (ARRAY(
        SELECT id FROM (
            SELECT id, at FROM dispatcher.feed WHERE last IS NOT NULL ORDER BY last LIMIT most
        ) AS oldest WHERE at < before));
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    -- The feed names batches, at the time when they are closed: none leaves before it. An hour more
    -- than the longest transaction, because rows have their place when they are committed.
    DELETE FROM dispatcher.batch WHERE id = ANY (ARRAY(
        SELECT id FROM dispatcher.batch
        WHERE opened_at < before AND state = 'closed' AND closed_at < least(before,
            (SELECT at FROM dispatcher.feed WHERE last IS NOT NULL ORDER BY last LIMIT 1)
                - interval '1 hour',
            (SELECT min(at) FROM dispatcher.feed WHERE last IS NULL) - interval '1 hour')
        ORDER BY opened_at LIMIT most));
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    DELETE FROM dispatcher.unreadable_push WHERE digest = ANY (ARRAY(
        SELECT digest FROM dispatcher.unreadable_push WHERE last_at < before LIMIT most));
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    DELETE FROM dispatcher.tally WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM dispatcher.tally WHERE minute < before ORDER BY minute LIMIT most));
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    -- Reports that belong to no message have nothing that takes them along.
    WITH nobodys AS (
        DELETE FROM dispatcher.unmatched WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM dispatcher.unmatched WHERE since < before AND due_at IS NULL
            ORDER BY since LIMIT most))
        RETURNING provider_id, segment
    ), sums AS (
        DELETE FROM dispatcher.report_sum s USING nobodys n WHERE s.provider_id = n.provider_id
    )
    DELETE FROM dispatcher.report r USING nobodys n
    WHERE r.provider_id = n.provider_id AND r.segment = n.segment;
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    DELETE FROM dispatcher.worker w WHERE coalesce(w.stopped_at, w.heartbeat_at) < before
        AND w.heartbeat_at < before
        AND NOT EXISTS (SELECT FROM dispatcher.batch b WHERE b.worker = w.id AND b.state = 'open');
    GET DIAGNOSTICS gone = ROW_COUNT;
    pruned := pruned + gone;

    -- What came before its partition was made lies among no others, and leaves by rows.
    WITH old AS (
        SELECT m.id, m.app, m.idempotency_key, o.provider_id
        FROM dispatcher.message_rest m
        JOIN dispatcher.outcome o ON o.message_id = m.id
        WHERE m.queued_at < before AND o.at < before
        ORDER BY m.id LIMIT most
    ), keys AS (
        DELETE FROM dispatcher.idempotency i USING old
        WHERE i.app = old.app AND i.key = old.idempotency_key AND i.message_id = old.id
    ), reports AS (
        DELETE FROM dispatcher.report r USING old WHERE r.provider_id = old.provider_id
    ), outcomes AS (
        DELETE FROM dispatcher.outcome_rest o USING old WHERE o.message_id = old.id
    )
    DELETE FROM dispatcher.message_rest m USING old WHERE m.id = old.id;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN pruned + gone;
END $$;

-- Wipe variables. Who sends a message again locks it first, and is seen here when he has done it.
CREATE FUNCTION dispatcher.wipe(ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE dispatcher.message SET params = '{}', wiped_at = now()
    WHERE id = ANY (ids) AND params <> '{}';
    IF EXISTS (SELECT FROM dispatcher.queue WHERE id = ANY (ids)) THEN
        RAISE serialization_failure USING MESSAGE = 'a message was sent again meanwhile';
    END IF;
END $$;

-- Wipe the variables of messages that are over since *after*, at most *most* looked at; returns how
-- many were looked at: 0 if there is nothing to do now. Each row is written at most once, in the
-- order of ids, long after it was last used. What is not over in its turn is remembered; what a
-- long transaction brings behind our back is found by a second look a day later.
CREATE FUNCTION dispatcher.wipe_params(after interval, most integer DEFAULT 5000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before timestamptz;
    look record;
    turn bigint[];
    ended bigint[];
    looked bigint := 0;
BEGIN
    PERFORM dispatcher.check_patience(after, '1 minute');
    IF NOT dispatcher.keep_alone() THEN
        RETURN 0;
    END IF;
    FOR look IN SELECT * FROM (VALUES ('wipe', after), ('wipe, second look', after + '1 day'))
        AS l (work, after)
    LOOP
        before := now() - look.after;
        INSERT INTO dispatcher.keeping (work, upto) VALUES (look.work, 0) ON CONFLICT DO NOTHING;
        SELECT array_agg(t.id) INTO turn FROM (
            SELECT id, bool_and(queued_at < before) OVER (ORDER BY id) AS due
            FROM (
                SELECT id, queued_at FROM dispatcher.message
                WHERE id > (SELECT upto FROM dispatcher.keeping k WHERE k.work = look.work AND k.part = 0)
                ORDER BY id LIMIT most
            ) AS next
        ) AS t WHERE t.due;
        CONTINUE WHEN turn IS NULL;
        SELECT array_agg(message_id) INTO ended FROM dispatcher.outcome
        WHERE message_id = ANY (turn) AND at < now() - after;
        PERFORM dispatcher.wipe(ended);
        INSERT INTO dispatcher.wipe_later (message_id)
        SELECT m.id FROM dispatcher.message m
        WHERE m.id = ANY (turn) AND m.params <> '{}'
        ON CONFLICT DO NOTHING;
        UPDATE dispatcher.keeping k SET upto = turn[cardinality(turn)]
        WHERE k.work = look.work AND k.part = 0;
        looked := looked + cardinality(turn);
    END LOOP;

    SELECT array_agg(message_id) INTO ended FROM (
        SELECT w.message_id FROM dispatcher.wipe_later w
        JOIN dispatcher.outcome o ON o.message_id = w.message_id
        WHERE o.at < now() - after
        LIMIT most
    ) AS late;
    IF ended IS NOT NULL THEN
        PERFORM dispatcher.wipe(ended);
        DELETE FROM dispatcher.wipe_later WHERE message_id = ANY (ended);
        looked := looked + cardinality(ended);
    END IF;
    RETURN looked;
END $$;

-- Erase a person: number, variables and reference of every message to these spellings of a number,
-- and the number in its reports. What waits is cancelled; what may be on its way, or went out and
-- is unsure, is left, and is to be asked for again. Returns the messages erased and those left.
CREATE FUNCTION dispatcher.forget(numbers text[]) RETURNS TABLE (erased bigint[], left_alone bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_ids bigint[];
BEGIN
    SELECT coalesce(array_agg(id ORDER BY id), '{}') INTO found_ids
    FROM dispatcher.message WHERE recipient = ANY (numbers);
    PERFORM dispatcher.cancel(found_ids);
    SELECT coalesce(array_agg(message_id ORDER BY message_id), '{}') INTO erased
    FROM dispatcher.outcome WHERE message_id = ANY (found_ids);
    SELECT coalesce(array_agg(id), '{}') INTO left_alone
    FROM unnest(found_ids) AS id WHERE id <> ALL (erased);
    UPDATE dispatcher.message SET recipient = '0', params = '{}', reference = NULL, wiped_at = now()
    WHERE id = ANY (erased);
    IF EXISTS (SELECT FROM dispatcher.queue WHERE id = ANY (erased)) THEN
        RAISE serialization_failure USING MESSAGE = 'a message was sent again meanwhile';
    END IF;
    -- By the message where there is one; by the number, which takes a scan, where there is none.
    UPDATE dispatcher.report r SET recipient = NULL, raw = NULL, earlier = NULL
    WHERE r.recipient = ANY (numbers)
       OR r.provider_id IN (
            SELECT o.provider_id FROM dispatcher.outcome o
            WHERE o.message_id = ANY (erased) AND o.provider_id IS NOT NULL);
    -- What could not be read may name the person anywhere; the shortest spelling stands in all.
    DELETE FROM dispatcher.unreadable_push
    WHERE position(convert_to((SELECT min(ltrim(n, '+')) FROM unnest(numbers) AS n
        WHERE length(ltrim(n, '+')) = (SELECT min(length(ltrim(s, '+'))) FROM unnest(numbers) AS s)),
        'UTF8') IN body) > 0;
    RETURN NEXT;
END $$;

-- As in 0001, and what was wiped stays where it is: it would go out without its variables.
CREATE OR REPLACE FUNCTION dispatcher.requeue(ids bigint[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    requeued text[];
    told bigint[];
BEGIN
    WITH taken AS (
        DELETE FROM dispatcher.outcome o
        WHERE o.message_id = ANY (ids) AND o.state IN ('rejected', 'expired')
          AND EXISTS (SELECT FROM dispatcher.message m
              WHERE m.id = o.message_id AND m.wiped_at IS NULL FOR SHARE)
        RETURNING o.message_id, o.batch_id
    ), waiting AS (
        INSERT INTO dispatcher.queue (id, app, priority, due_at, requeued, last_batch)
        SELECT m.id, m.app, m.priority, clock_timestamp(), true, t.batch_id
        FROM taken t JOIN dispatcher.message m ON m.id = t.message_id
        RETURNING app, id
    )
    SELECT array_agg(app), array_agg(id) INTO requeued, told FROM waiting;
    PERFORM dispatcher.count_event('requeued', '', requeued);
    PERFORM dispatcher.tell('requeued', '', requeued, told);
    RETURN coalesce(cardinality(requeued), 0);
END $$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA dispatcher FROM PUBLIC;
INSERT INTO dispatcher.role_right (role, may, on_what)
SELECT 'dispatcher_worker', 'EXECUTE', 'FUNCTION dispatcher.' || name
FROM unnest(ARRAY['turn_page', 'drop_step', 'prune', 'wipe_params']) AS name;
INSERT INTO dispatcher.role_right (role, may, on_what)
VALUES ('dispatcher_reader', 'SELECT', 'dispatcher.keeping'),
    ('dispatcher_worker', 'SELECT', 'dispatcher.keeping'),
    ('dispatcher_worker', 'SELECT', 'dispatcher.wipe_later');
SELECT dispatcher.make_roles();

-- migrate:down

-- What was wiped must not be sent again by an older release.
UPDATE dispatcher.outcome o SET state = 'cancelled'
FROM dispatcher.message m
WHERE m.id = o.message_id AND m.wiped_at IS NOT NULL AND o.state IN ('rejected', 'expired');

CREATE OR REPLACE FUNCTION dispatcher.requeue(ids bigint[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    requeued text[];
    told bigint[];
BEGIN
    WITH taken AS (
        DELETE FROM dispatcher.outcome
        WHERE message_id = ANY (ids) AND state IN ('rejected', 'expired')
        RETURNING message_id, batch_id
    ), waiting AS (
        INSERT INTO dispatcher.queue (id, app, priority, due_at, requeued, last_batch)
        SELECT m.id, m.app, m.priority, clock_timestamp(), true, t.batch_id
        FROM taken t JOIN dispatcher.message m ON m.id = t.message_id
        RETURNING app, id
    )
    SELECT array_agg(app), array_agg(id) INTO requeued, told FROM waiting;
    PERFORM dispatcher.count_event('requeued', '', requeued);
    PERFORM dispatcher.tell('requeued', '', requeued, told);
    RETURN coalesce(cardinality(requeued), 0);
END $$;
DROP FUNCTION dispatcher.forget, dispatcher.wipe_params, dispatcher.wipe, dispatcher.prune, dispatcher.drop_step,
    dispatcher.turn_page, dispatcher.keep_alone, dispatcher.check_patience, dispatcher.all_over,
    dispatcher.any_open, dispatcher.partitions;
ALTER TABLE dispatcher.message DROP COLUMN wiped_at;
DROP TABLE dispatcher.wipe_later, dispatcher.keeping;
DELETE FROM dispatcher.role_right
WHERE split_part(on_what, '.', 2) IN ('turn_page', 'drop_step', 'prune', 'wipe_params', 'keeping',
    'wipe_later');
