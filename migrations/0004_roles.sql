-- Roles: whoever inserts, works, reads and owns may do that and nothing else.
--
-- The locks of all tables were waited for, while others were held; what came of it is the same.
-- migrate:formerly c203fdbafd4071a89c928d6da70d5e57aa864b4b801682c3c9b80c158275af9d

-- migrate:up

-- What each role may do: one row a right. Later migrations add rows for what they make, and call
-- make_roles() again.
CREATE TABLE dispatcher.role_right (
    role text NOT NULL,
    may text NOT NULL,     -- as GRANT names it
    on_what text NOT NULL, -- as GRANT names it
    PRIMARY KEY (role, may, on_what)
);

INSERT INTO dispatcher.role_right (role, may, on_what)
-- An application inserts what the README lets it set, and sees what became of it. Neither the id
-- nor the time of a message is its to choose. RETURNING id and the sequence belong to an INSERT.
SELECT 'dispatcher_app', may, on_what FROM (VALUES
    ('INSERT (app, sender, recipient, template_id, params, signature, priority, send_at,'
     ' expires_at, idempotency_key, reference)', 'dispatcher.message'),
    ('SELECT (id)', 'dispatcher.message'),
    ('USAGE', 'SEQUENCE dispatcher.message_id'),
    ('SELECT', 'dispatcher.message_status'),
    ('EXECUTE', 'FUNCTION dispatcher.enqueue'),
    ('EXECUTE', 'FUNCTION dispatcher.message_of_key'),
    ('EXECUTE', 'FUNCTION dispatcher.cancel'),
    ('EXECUTE', 'FUNCTION dispatcher.events')
) AS r (may, on_what)
UNION ALL
-- A worker, a receiver and an operator: they move what the application asked for, and can neither
-- change a message nor any table's shape.
SELECT 'dispatcher_worker', 'SELECT', 'dispatcher.' || name
FROM unnest(ARRAY['schema_migrations', 'message', 'message_status', 'idempotency', 'feed_end',
    'message_id', 'role_right']) AS name
UNION ALL
SELECT 'dispatcher_worker', 'SELECT, INSERT, UPDATE', 'dispatcher.' || name
FROM unnest(ARRAY['batch', 'outcome', 'report', 'report_sum', 'carrier_status', 'app',
    'country_pause', 'worker', 'tally', 'feed', 'unreadable_push']) AS name
UNION ALL
SELECT 'dispatcher_worker', 'SELECT, INSERT, UPDATE, DELETE', 'dispatcher.' || name
FROM unnest(ARRAY['queue', 'report_inbox', 'unmatched']) AS name
UNION ALL
SELECT 'dispatcher_worker', may, on_what FROM (VALUES
    ('UPDATE', 'dispatcher.feed_end'),
    ('SELECT, INSERT', 'dispatcher.audit'),
    ('USAGE', 'SEQUENCE dispatcher.batch_id'),
    ('INSERT (app, sender, recipient, template_id, params, signature, priority, send_at,'
     ' expires_at, idempotency_key, reference)', 'dispatcher.message'),
    ('USAGE', 'SEQUENCE dispatcher.message_id')
) AS r (may, on_what)
UNION ALL
SELECT 'dispatcher_worker', 'EXECUTE', 'FUNCTION dispatcher.' || name
FROM unnest(ARRAY['enqueue', 'message_of_key', 'cancel', 'requeue', 'settle', 'pause', 'resume',
    'events', 'tell', 'count_event', 'make_partitions', 'missing_indexes']) AS name
UNION ALL
-- Dashboards and support: everything but what was written to people, and what carriers sent raw.
SELECT 'dispatcher_reader', 'SELECT', 'dispatcher.' || name
FROM unnest(ARRAY['schema_migrations', 'message_status', 'queue', 'batch', 'outcome',
    'carrier_status', 'app', 'country_pause', 'worker', 'tally', 'report_inbox', 'unmatched',
    'feed', 'feed_end', 'audit']) AS name
UNION ALL
SELECT 'dispatcher_reader', 'EXECUTE', 'FUNCTION dispatcher.events';

-- Make the roles that are missing, and give each its rights: to be called again, by whoever owns
-- the tables, when roles were made by somebody else or rights were added. Roles belong to all
-- databases of a server, so another may have made them, and may make them at this moment.
CREATE FUNCTION dispatcher.make_roles() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text;
    missing text[] := '{}';
    granted record;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['dispatcher_owner', 'dispatcher_worker', 'dispatcher_app',
        'dispatcher_reader']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN missing := missing || wanted;
            END;
        END IF;
    END LOOP;
    IF missing <> '{}' THEN
        RAISE WARNING 'The user % may not make roles, so % missing. Everything works without them. For them, somebody with CREATEROLE runs: %; and the owner of the tables then: SELECT dispatcher.make_roles();',
            current_user,
            array_to_string(missing, ', ') || CASE cardinality(missing) WHEN 1 THEN ' is' ELSE ' are' END,
            (SELECT string_agg(format('CREATE ROLE %I', m), '; ') FROM unnest(missing) AS m);
    END IF;
    FOR granted IN
        SELECT r.role, r.may, r.on_what FROM dispatcher.role_right r
        JOIN pg_roles p ON p.rolname = r.role
        UNION ALL
        SELECT p.rolname, 'USAGE', 'SCHEMA dispatcher' FROM pg_roles p
        WHERE p.rolname IN ('dispatcher_worker', 'dispatcher_app', 'dispatcher_reader')
    LOOP
        EXECUTE format('GRANT %s ON %s TO %I', granted.may, granted.on_what, granted.role);
    END LOOP;
END $$;

-- Hand everything to dispatcher_owner, who may not even log in: functions that act with their
-- owner's rights then act with few, also where a superuser has migrated.
CREATE FUNCTION dispatcher.hand_to_owner() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    statement text;
BEGIN
    IF to_regrole('dispatcher_owner') IS NULL THEN
        RETURN;
    END IF;
    IF NOT pg_has_role(current_user, 'dispatcher_owner', 'MEMBER') THEN
        EXECUTE format('GRANT dispatcher_owner TO %I', current_user);
    END IF;
    IF NOT has_database_privilege('dispatcher_owner', current_database(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO dispatcher_owner', current_database());
        IF NOT has_database_privilege('dispatcher_owner', current_database(), 'CREATE') THEN
            RAISE insufficient_privilege USING MESSAGE = 'not the owner of the database';
        END IF;
    END IF;
    ALTER SCHEMA dispatcher OWNER TO dispatcher_owner;
    FOR statement IN
        SELECT format('ALTER %s %s OWNER TO dispatcher_owner',
            CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
            c.oid::regclass)
        FROM pg_class c
        WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
          AND c.relowner <> 'dispatcher_owner'::regrole
          -- The sequence of an identity column goes with its table.
          AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d
              WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i'))
        UNION ALL
        SELECT format('ALTER FUNCTION %s OWNER TO dispatcher_owner', p.oid::regprocedure)
        FROM pg_proc p
        WHERE p.pronamespace = 'dispatcher'::regnamespace
          AND p.proowner <> 'dispatcher_owner'::regrole
    LOOP
        EXECUTE statement;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    -- Undone as a whole: whoever owns the tables now goes on owning them, and migrates as before.
    RAISE NOTICE 'The tables stay with their owner: %', SQLERRM;
END $$;

-- A worker makes partitions, and owns none.
ALTER FUNCTION dispatcher.make_partitions SECURITY DEFINER;

-- Functions are everybody's until told otherwise. Who could insert before goes on inserting.
DO $$
DECLARE
    who record;
BEGIN
    REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA dispatcher FROM PUBLIC;
    FOR who IN
        SELECT DISTINCT p.rolname
        FROM pg_class c, aclexplode(c.relacl) AS a JOIN pg_roles p ON p.oid = a.grantee
        WHERE c.oid = 'dispatcher.message'::regclass AND a.privilege_type = 'INSERT'
          AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION dispatcher.enqueue, dispatcher.message_of_key,'
            ' dispatcher.cancel, dispatcher.events TO %I', who.rolname);
    END LOOP;
END $$;

SELECT dispatcher.make_roles();
-- An owner is changed under the strongest lock, of each table. Whoever waits for one holds others
-- up, and whoever waits for a second while holding a first meets those who hold them the other way
-- round. So the first is waited for, a moment, and the others are taken if they are free, or the
-- first is let go and all of it begins again.
DO $$
DECLARE
    others text;
BEGIN
    SELECT string_agg(c.oid::regclass::text, ', ') INTO others
    FROM pg_class c
    WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p')
      AND NOT c.relispartition AND c.oid <> 'dispatcher.message'::regclass;
    FOR turn IN 1..30 LOOP
        BEGIN
            SET LOCAL lock_timeout = '200ms';
            LOCK TABLE dispatcher.message IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', others);
            PERFORM dispatcher.hand_to_owner();
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF turn = 30 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.01 + random() * 0.05);
        END;
    END LOOP;
END $$;

-- migrate:down

-- The roles stay: other databases of this server may have them. So does their owner.
DO $$
DECLARE
    found text;
BEGIN
    FOR found IN
        SELECT rolname FROM pg_roles
        WHERE rolname IN ('dispatcher_worker', 'dispatcher_app', 'dispatcher_reader')
    LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA dispatcher FROM %I', found);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA dispatcher FROM %I', found);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA dispatcher FROM %I', found);
        EXECUTE format('REVOKE ALL ON SCHEMA dispatcher FROM %I', found);
    END LOOP;
END $$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dispatcher TO PUBLIC;
ALTER FUNCTION dispatcher.make_partitions SECURITY INVOKER;
DROP FUNCTION dispatcher.make_roles, dispatcher.hand_to_owner;
DROP TABLE dispatcher.role_right;
