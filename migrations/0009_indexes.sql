-- Indexes for searching are made by any worker, and not only by the owner of the tables.

-- migrate:up

-- Whether no outcome of these messages is written just now, nor soon: none is on its way, none due.
CREATE FUNCTION dispatcher.at_rest(first bigint, past bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT NOT EXISTS (
            SELECT FROM dispatcher.batch b
            WHERE b.state = 'open'
              AND EXISTS (SELECT FROM unnest(b.message_ids) AS u WHERE u >= first AND u < past))
        AND NOT EXISTS (
            SELECT FROM dispatcher.queue
            WHERE id >= first AND id < past AND due_at < clock_timestamp() + interval '5 min')
$$;

-- Make one index that a full partition lacks, for finding messages by number and reference, and
-- outcomes by provider id; returns its name, or null if there is none to make now. Raises
-- lock_not_available if there is no moment for it.
-- Only partitions that are full get such indexes: on the one that is being filled they would cost
-- every insert (COPY at 0.8 of its speed with one on recipient alone), and one is soon read whole.
-- Not CONCURRENTLY, which no function may do, and which waits for every old snapshot. It takes
-- seconds, in which readers read and writers wait; but no messages are inserted into a partition
-- that is full, and outcomes get their index when none is to be expected.
CREATE FUNCTION dispatcher.index_step() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET maintenance_work_mem = '128MB' AS $$
DECLARE
    missing record;
BEGIN
    IF NOT dispatcher.keep_alone() THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR missing IN
        SELECT w.parent || '_' || p.first || '_to_' || p.past AS part,
            w.parent || '_' || p.first || '_to_' || p.past || '_' || w.name AS index,
            w.parent, w.columns, p.first, p.past, x.indexrelid IS NOT NULL AS half_made
        FROM dispatcher.message_id s
        JOIN dispatcher.partitions() p ON p.past - 1 <= s.last_value
        CROSS JOIN (VALUES
            ('message', 'recipient', '(recipient)'),
            ('message', 'reference', '(reference) WHERE reference IS NOT NULL'),
            ('outcome', 'provider_id', '(provider_id) WHERE provider_id IS NOT NULL')
        ) AS w (parent, name, columns)
        LEFT JOIN pg_class c
            ON c.relname = w.parent || '_' || p.first || '_to_' || p.past || '_' || w.name
            AND c.relnamespace = 'dispatcher'::regnamespace
        LEFT JOIN pg_index x ON x.indexrelid = c.oid
        WHERE x.indexrelid IS NULL OR NOT x.indisvalid
        ORDER BY p.first DESC, w.parent, w.name  -- the newest is searched most
    LOOP
        CONTINUE WHEN missing.parent = 'outcome'
            AND NOT dispatcher.at_rest(missing.first, missing.past);
        IF missing.half_made THEN  -- by an older release, which was killed meanwhile
            EXECUTE format('DROP INDEX dispatcher.%I', missing.index);
        END IF;
        EXECUTE format('CREATE INDEX %I ON dispatcher.%I %s',
            missing.index, missing.part, missing.columns);
        RETURN missing.index;
    END LOOP;
    RETURN NULL;
END $$;

-- Workers of an older release ask this one, which leaves nothing to them: two at the same index
-- would stumble over each other.
CREATE OR REPLACE FUNCTION dispatcher.missing_indexes() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT ''::text WHERE false $$;

REVOKE EXECUTE ON FUNCTION dispatcher.at_rest, dispatcher.index_step FROM PUBLIC;
INSERT INTO dispatcher.role_right (role, may, on_what)
VALUES ('dispatcher_worker', 'EXECUTE', 'FUNCTION dispatcher.index_step');
SELECT dispatcher.make_roles();

-- migrate:down

DROP FUNCTION dispatcher.index_step, dispatcher.at_rest;
DELETE FROM dispatcher.role_right WHERE on_what = 'FUNCTION dispatcher.index_step';
CREATE OR REPLACE FUNCTION dispatcher.missing_indexes() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH wanted (parent, name, columns) AS (
        VALUES ('dispatcher.message'::regclass, 'recipient', '(recipient)'),
            ('dispatcher.message'::regclass, 'reference', '(reference) WHERE reference IS NOT NULL'),
            ('dispatcher.outcome'::regclass, 'provider_id',
                '(provider_id) WHERE provider_id IS NOT NULL')
    ), full_ones AS (
        SELECT c.oid, c.relname, i.inhparent
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN (SELECT parent FROM wanted)
          AND substring(c.relname FROM '_to_([0-9]+)$')::bigint
            <= (SELECT last_value FROM dispatcher.message_id)
    )
    SELECT CASE WHEN x.indexrelid IS NULL
        THEN format('CREATE INDEX CONCURRENTLY %I ON dispatcher.%I %s',
            f.relname || '_' || w.name, f.relname, w.columns)
        ELSE format('DROP INDEX CONCURRENTLY dispatcher.%I', f.relname || '_' || w.name) END
    FROM full_ones f
    JOIN wanted w ON w.parent = f.inhparent
    LEFT JOIN pg_class c
        ON c.relname = f.relname || '_' || w.name AND c.relnamespace = 'dispatcher'::regnamespace
    LEFT JOIN pg_index x ON x.indexrelid = c.oid
    WHERE x.indexrelid IS NULL OR NOT x.indisvalid
    ORDER BY f.relname, w.name
$$;
