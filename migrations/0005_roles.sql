-- Roles: each may do what its work takes, and nothing else.

-- migrate:up

-- Later migrations add rows for what they make, and call make_roles() again.
CREATE TABLE dispatcher.role_grant (
    role text NOT NULL,
    privilege text NOT NULL,
    object text NOT NULL,
    PRIMARY KEY (role, privilege, object)
);

COMMENT ON TABLE dispatcher.role_grant IS 'What each role may do: one row a privilege.';
COMMENT ON COLUMN dispatcher.role_grant.role IS 'The role.';
COMMENT ON COLUMN dispatcher.role_grant.privilege IS 'What it may do, as GRANT names it.';
COMMENT ON COLUMN dispatcher.role_grant.object IS 'With what, as GRANT names it.';

-- dispatcher_app: an application inserts what the README lets it set, and reads the results. It
-- chooses neither the id nor the time of a message. RETURNING id and the sequence belong to INSERT.
-- dispatcher_worker: workers, receivers and operators move what applications asked for; they change
-- no message, delete no outcome and no audit, and define no table.
-- dispatcher_reader: dashboards and support see everything but what was written to people, and the
-- raw reports.
INSERT INTO dispatcher.role_grant (role, privilege, object)
SELECT 'dispatcher_' || role, privilege, kind || 'dispatcher.' || unnest(names)
FROM (VALUES
    ('app', 'INSERT (app, sender, recipient, template_id, params, signature, priority, send_at,'
        ' expires_at, idempotency_key, reference, campaign)', '', ARRAY['message']),
    ('app', 'SELECT (id)', '', ARRAY['message']),
    ('app', 'SELECT', '', ARRAY['message_status']),
    ('app', 'USAGE', 'SEQUENCE ', ARRAY['message_id']),
    ('app', 'EXECUTE', 'FUNCTION ', ARRAY['enqueue', 'message_id_for_key', 'cancel', 'events', 'replies']),

    ('worker', 'SELECT', '', ARRAY['schema_migrations', 'message', 'message_status', 'idempotency',
        'installation', 'event_position', 'message_id', 'role_grant', 'maintenance_progress', 'pending_wipe']),
    ('worker', 'INSERT (app, sender, recipient, template_id, params, signature, priority, send_at,'
        ' expires_at, idempotency_key, reference, campaign)', '', ARRAY['message']),
    ('worker', 'SELECT, INSERT', '', ARRAY['audit']),
    ('worker', 'UPDATE', '', ARRAY['event_position']),
    ('worker', 'UPDATE (restored_at)', '', ARRAY['installation']),
    ('worker', 'SELECT, UPDATE (used_at)', '', ARRAY['console_token']),
    ('worker', 'SELECT', '', ARRAY['hour_count']),
    ('reader', 'SELECT', '', ARRAY['hour_count']),
    ('worker', 'SELECT, INSERT, UPDATE', '', ARRAY['batch', 'outcome', 'report', 'report_summary',
        'carrier_status', 'app', 'country_pause', 'worker', 'event_count', 'event',
        'unreadable_push']),
    ('worker', 'SELECT, INSERT', '', ARRAY['reply']),
    ('worker', 'SELECT, INSERT, UPDATE, DELETE', '', ARRAY['queue', 'bulk', 'report_inbox',
        'unmatched_report', 'template', 'suppression', 'app_limit', 'recipient_usage',
        'file_import', 'file_import_rejection', 'price', 'campaign', 'message_action',
        'list_upload', 'list_upload_part']),
    ('worker', 'USAGE', 'SEQUENCE ', ARRAY['batch_id', 'message_id']),
    ('worker', 'EXECUTE', 'FUNCTION ', ARRAY['e164', 'billing_mode', 'segments_of_report',
        'charged_segments', 'open_segments', 'is_charged', 'report_parts', 'count_in_question',
        'enqueue', 'message_id_for_key', 'cancel',
        'bulk_rows_with', 'take_from_bulk',
        'requeue', 'take_back', 'is_refused_by_platform', 'settle', 'settle_lost', 'settle_batches', 'count_unsure',
        'expire', 'next_grant_at', 'pause', 'resume', 'end_country_waits',
        'end_refusal_waits', 'is_probe_due', 'is_load_held', 'end_clock_waits',
        'suppress', 'unsuppress', 'define_template',
        'drop_template', 'set_limits', 'set_price', 'add_console_token', 'revoke_console_token',
        'start_message_action', 'message_action_step',
        'events', 'replies', 'append_event', 'count_event',
        'pause_campaign', 'resume_campaign', 'cancel_campaign', 'cancel_campaign_step',
        'move_campaign', 'move_campaign_step', 'changing_queue', 'brake_spikes',
        'stop_campaigns', 'requeue_campaign', 'requeue_campaign_step', 'append_audit',
        'make_partitions', 'partitions', 'start_partition_early', 'index_step', 'drop_step', 'prune',
        'roll_up_counts', 'drop_uploads',
        'wipe_params', 'foreign_keys_onto_messages', 'sequences_behind', 'repair_sequences']),

    ('reader', 'SELECT', '', ARRAY['schema_migrations', 'message_status', 'queue', 'bulk', 'batch',
        'outcome', 'carrier_status', 'app', 'installation', 'country_pause', 'worker', 'event_count',
        'report_inbox', 'unmatched_report', 'event', 'event_position', 'audit',
        'maintenance_progress', 'template', 'suppression', 'app_limit', 'file_import',
        'file_import_rejection', 'price', 'campaign']),
    ('reader', 'SELECT (received_at, last_at, times, reason, read_at)', '',
        ARRAY['unreadable_push']),
    ('reader', 'SELECT (id, app, channel, unsubscribed, received_at, replied_at)', '',
        ARRAY['reply']),
    ('reader', 'EXECUTE', 'FUNCTION ', ARRAY['e164', 'events', 'count_in_question'])
) AS g (role, privilege, kind, names);

-- Make the roles that are missing, and grant each its privileges. The owner of the tables calls it
-- again when another user has made the roles, or after a migration has added privileges. Roles
-- belong to all databases of a server, so another may have made them, or make them at this moment.
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
        RAISE WARNING 'The user % may not make roles, so % missing. Everything works without them. For them, a user with CREATEROLE runs: %; and the owner of the tables then: SELECT dispatcher.make_roles();',
            current_user,
            array_to_string(missing, ', ') || CASE cardinality(missing) WHEN 1 THEN ' is' ELSE ' are' END,
            (SELECT string_agg(format('CREATE ROLE %I', m), '; ') FROM unnest(missing) AS m);
    END IF;
    FOR granted IN
        SELECT g.role, g.privilege, g.object FROM dispatcher.role_grant g
        JOIN pg_roles p ON p.rolname = g.role
        UNION ALL
        SELECT p.rolname, 'USAGE', 'SCHEMA dispatcher' FROM pg_roles p
        WHERE p.rolname IN ('dispatcher_worker', 'dispatcher_app', 'dispatcher_reader')
    LOOP
        EXECUTE format('GRANT %s ON %s TO %I', granted.privilege, granted.object, granted.role);
    END LOOP;
END $$;

-- Make dispatcher_owner, which cannot log in, the owner of everything: functions with SECURITY
-- DEFINER then have few rights, also where a superuser has migrated.
CREATE FUNCTION dispatcher.transfer_ownership() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    statement text;
BEGIN
    IF to_regrole('dispatcher_owner') IS NULL THEN
        RETURN;
    END IF;
    -- Since 16 a role that may make roles is a member of those it made, and may not act as them
    -- before it has granted itself that.
    IF NOT pg_has_role(current_user, 'dispatcher_owner',
        CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
    THEN
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
    -- Rolled back as a whole: the present owner keeps the tables, and migrates as before.
    RAISE WARNING 'The tables stay with their owner, %: %. Everything works; functions then run with the rights of that user. To change it, a superuser runs SELECT dispatcher.transfer_ownership();',
        current_user, SQLERRM;
END $$;

-- PostgreSQL lets every role execute new functions.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA dispatcher FROM PUBLIC;
SELECT dispatcher.make_roles();
SELECT dispatcher.transfer_ownership();

-- migrate:down

-- The roles stay: other databases of this server may have them. So does the owner.
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
DROP FUNCTION dispatcher.make_roles, dispatcher.transfer_ownership;
DROP TABLE dispatcher.role_grant;
