-- What operators did, and how they find one message among many.

-- migrate:up

-- Who did what by the console or the command line, and when. Never updated.
CREATE TABLE dispatcher.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    action text NOT NULL,
    target text NOT NULL DEFAULT '',
    detail text NOT NULL DEFAULT '',
    result text NOT NULL DEFAULT ''
);

-- The statements that are still to be run so that messages are found by number and reference, and
-- outcomes by provider id, without reading partitions whole. Only partitions that are full get
-- such indexes: on the one that is being filled they would cost every insert (measured: COPY at
-- 0.8 of its speed with an index on recipient alone), and one partition is soon read.
-- CONCURRENTLY, so that nobody waits; an index that was begun and not finished is dropped first.
CREATE FUNCTION dispatcher.missing_indexes() RETURNS SETOF text
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

-- migrate:down

DROP FUNCTION dispatcher.missing_indexes;
DROP TABLE dispatcher.audit;
