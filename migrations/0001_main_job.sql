-- Tables, trigger, functions and view of the main job: what waits, what was sent, what became of it.

-- migrate:up

CREATE SCHEMA IF NOT EXISTS dispatcher;

-- What the application asked for. Written once by the application, never updated.
-- Partitioned by id, so that retention drops whole tables; see make_partitions below.
CREATE SEQUENCE dispatcher.message_id AS bigint;

CREATE TABLE dispatcher.message (
    id bigint NOT NULL DEFAULT nextval('dispatcher.message_id'),
    app text NOT NULL DEFAULT 'default',
    sender text,
    recipient text NOT NULL,
    template_id text NOT NULL,
    params text[] NOT NULL DEFAULT '{}',
    signature text,
    priority smallint NOT NULL DEFAULT 5,
    send_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    idempotency_key text,
    reference text,
    queued_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id),
    -- Every row pays for every check: octet_length takes a third of the time of length, and LIKE
    -- of a pattern's.
    CONSTRAINT app_is_a_lower_case_name CHECK (app ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    CONSTRAINT sender_has_1_to_21_characters
        CHECK (octet_length(sender) BETWEEN 1 AND 21 OR length(sender) BETWEEN 1 AND 21),
    CONSTRAINT sender_has_no_blanks CHECK (
        sender NOT LIKE '% %' AND sender NOT LIKE E'%\n%' AND sender NOT LIKE E'%\t%'
        AND sender NOT LIKE E'%\r%'),
    CONSTRAINT recipient_is_digits_after_an_optional_plus CHECK (recipient ~ '^[+]?[0-9]+$'),
    CONSTRAINT recipient_has_at_most_21_characters CHECK (octet_length(recipient) <= 21),
    -- What would reach another person, or hide that two spellings are one number; see core.number.
    -- The recipient of an erased message is 0.
    CONSTRAINT recipient_needs_at_least_7_digits CHECK (octet_length(recipient) >=
        CASE WHEN recipient LIKE '+%' THEN 8 WHEN recipient = '0' THEN 1 ELSE 7 END),
    CONSTRAINT recipient_begins_with_0_write_plus_and_the_country_code
        CHECK (recipient NOT LIKE '0_%' AND recipient NOT LIKE '+0%'),
    CONSTRAINT recipient_is_86_and_11_digits_the_plus_is_missing
        CHECK (recipient NOT LIKE '86___________'),
    CONSTRAINT recipient_is_no_number_of_mainland_china_after_plus_86 CHECK (
        recipient NOT LIKE '+86%' OR CASE octet_length(recipient)
            WHEN 14 THEN substr(recipient, 4, 2) BETWEEN '13' AND '19'
                OR substr(recipient, 4, 2) >= '30' AND substr(recipient, 4, 2) <> '86'
            WHEN 13 THEN substr(recipient, 4, 2) = '10'
                OR substr(recipient, 4, 2) >= '20' AND substr(recipient, 4, 2) <> '86'
            WHEN 16 THEN substr(recipient, 4, 2) IN ('10', '14')
            ELSE false
        END),
    CONSTRAINT template_id_has_1_to_32_characters CHECK (
        octet_length(template_id) BETWEEN 1 AND 32 OR length(template_id) BETWEEN 1 AND 32),
    CONSTRAINT template_id_has_no_blanks CHECK (
        template_id NOT LIKE '% %' AND template_id NOT LIKE E'%\n%'
        AND template_id NOT LIKE E'%\t%' AND template_id NOT LIKE E'%\r%'),
    CONSTRAINT params_is_a_flat_list_without_nulls
        CHECK (coalesce(array_ndims(params), 1) = 1 AND array_position(params, NULL) IS NULL),
    CONSTRAINT params_has_at_most_20_variables CHECK (cardinality(params) <= 20),
    CONSTRAINT signature_has_at_most_32_characters CHECK (length(signature) <= 32),
    CONSTRAINT signature_has_no_blank_at_its_ends_and_no_line_break
        CHECK (
            signature !~ '^[[:space:]\u00a0\u3000]|[[:space:]\u00a0\u3000]$|[\n\r]'),
    CONSTRAINT priority_is_0_first_to_9_last CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT expires_at_is_after_send_at CHECK (expires_at > send_at),
    CONSTRAINT idempotency_key_has_1_to_200_characters
        CHECK (length(idempotency_key) BETWEEN 1 AND 200),
    CONSTRAINT reference_has_at_most_200_characters CHECK (length(reference) <= 200)
) PARTITION BY RANGE (id);

-- A message that waits. attempt counts the claims so far. A requeued message no longer expires:
-- somebody asked for it after its time. last_batch and code say why a deferred one came back.
CREATE TABLE dispatcher.queue (
    id bigint NOT NULL PRIMARY KEY,
    app text NOT NULL,
    priority smallint NOT NULL,
    due_at timestamptz NOT NULL,
    attempt smallint NOT NULL DEFAULT 0,
    requeued boolean NOT NULL DEFAULT false,
    last_batch bigint,
    code text
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 1000000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX queue_due ON dispatcher.queue (app, priority, due_at);

-- One request, written before it leaves. open: may be on its way; unsure: may have been sent,
-- nobody knows yet; closed: every message of it is answered, put back or settled.
CREATE SEQUENCE dispatcher.batch_id AS bigint;

CREATE TABLE dispatcher.batch (
    id bigint NOT NULL PRIMARY KEY DEFAULT nextval('dispatcher.batch_id'),
    token text NOT NULL UNIQUE,
    app text NOT NULL,
    worker bigint NOT NULL,
    message_ids bigint[] NOT NULL,
    attempts smallint[] NOT NULL,
    state text NOT NULL DEFAULT 'open',
    bytes integer NOT NULL,
    parent bigint,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    unsure_at timestamptz,
    unsure_ids bigint[],  -- of an unsure batch: what its answer left open (null: all of it)
    closed_at timestamptz,
    tries smallint,
    http_status smallint,
    code text,
    description text,
    settled_by text,
    CONSTRAINT batch_state_is_known CHECK (state IN ('open', 'unsure', 'closed')),
    CONSTRAINT batch_has_an_attempt_per_message
        CHECK (cardinality(message_ids) = cardinality(attempts))
) WITH (fillfactor = 70);

CREATE INDEX batch_open ON dispatcher.batch (worker) WHERE state = 'open';
CREATE INDEX batch_unsure ON dispatcher.batch (app, unsure_at) WHERE state = 'unsure';
CREATE INDEX batch_opened_at ON dispatcher.batch (opened_at);

-- What became of a message: at most one row each, and the primary key is what enforces it.
CREATE TABLE dispatcher.outcome (
    message_id bigint NOT NULL,
    state text NOT NULL,
    attempts smallint NOT NULL,
    segments smallint,
    batch_id bigint,
    at timestamptz NOT NULL DEFAULT now(),
    provider_id text,
    code text,
    reason text,
    PRIMARY KEY (message_id),
    CONSTRAINT outcome_state_is_known
        CHECK (state IN ('accepted', 'rejected', 'expired', 'cancelled'))
) PARTITION BY RANGE (message_id);

-- One key per app, across all partitions.
CREATE TABLE dispatcher.idempotency (
    app text NOT NULL,
    key text NOT NULL,
    message_id bigint NOT NULL,
    CONSTRAINT idempotency_key_was_used_before PRIMARY KEY (app, key)
);

-- One status report of the provider: one segment of one message.
CREATE TABLE dispatcher.report (
    provider_id text NOT NULL,
    segment smallint NOT NULL DEFAULT 1,
    total smallint NOT NULL DEFAULT 1,
    status text NOT NULL,
    state text NOT NULL,
    token text,
    recipient text,
    received_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz,
    source smallint,
    description text,
    org_code text,
    raw jsonb,
    earlier jsonb,  -- the interim report that this final one took the place of
    PRIMARY KEY (provider_id, segment),
    CONSTRAINT report_state_is_known CHECK (state IN ('interim', 'delivered', 'undelivered'))
);

CREATE INDEX report_token ON dispatcher.report (token);

-- What the statuses of reports mean; written from core.carrier at every start.
CREATE TABLE dispatcher.carrier_status (
    status text NOT NULL PRIMARY KEY,
    state text NOT NULL,
    meaning text NOT NULL
);

-- Run-time state of a configured app, shared by all workers. The pace is one time, next_at: what
-- is claimed next goes out then (rate null: no limit; the mechanism is not touched). After the
-- provider asked for less, ceiling is the rate at which it did.
CREATE TABLE dispatcher.app (
    name text NOT NULL PRIMARY KEY,
    paused_at timestamptz,
    pause_code text,
    pause_reason text,
    paused_by text,
    probe_at timestamptz,
    probe_wait interval,
    probe_max interval,
    numbers_per_second double precision,
    rate double precision,
    ceiling double precision,
    next_at timestamptz NOT NULL DEFAULT now(),
    slowed_at timestamptz,
    on_unsure text NOT NULL DEFAULT 'hold',
    resend_after interval,
    seen_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT on_unsure_is_hold_or_resend CHECK (on_unsure IN ('hold', 'resend'))
) WITH (fillfactor = 20);

-- A country whose quota is spent: its messages of this app wait, the others go out.
CREATE TABLE dispatcher.country_pause (
    app text NOT NULL,
    country text NOT NULL,
    until timestamptz NOT NULL,
    code text NOT NULL,
    PRIMARY KEY (app, country)
);

-- One running worker; a new id each boot.
CREATE TABLE dispatcher.worker (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    apps text[] NOT NULL,
    lease interval NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    stopped_at timestamptz
) WITH (fillfactor = 50);

-- Counters per minute. The worker is part of the key, so that workers never wait for each other.
CREATE TABLE dispatcher.tally (
    minute timestamptz NOT NULL,
    app text NOT NULL,
    event text NOT NULL,
    code text NOT NULL DEFAULT '',
    worker bigint NOT NULL DEFAULT 0,
    count bigint NOT NULL,
    PRIMARY KEY (minute, app, event, code, worker)
) WITH (fillfactor = 50);

-- Statement level: one call for a COPY of a million rows as for a single INSERT.
-- Only urgent messages notify; a NOTIFY on every insert halves the rate of single inserts.
CREATE FUNCTION dispatcher.fill_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO dispatcher.queue (id, app, priority, due_at)
    SELECT id, app, priority, greatest(send_at, clock_timestamp()) FROM added;

    INSERT INTO dispatcher.idempotency (app, key, message_id)
    SELECT app, idempotency_key, id FROM added WHERE idempotency_key IS NOT NULL;

    PERFORM pg_notify('dispatcher_urgent', urgent.app)
    FROM (SELECT DISTINCT app FROM added WHERE priority <= 1 AND send_at <= now()) AS urgent;
    RETURN NULL;
END $$;

CREATE TRIGGER fill_queue AFTER INSERT ON dispatcher.message
REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION dispatcher.fill_queue();

-- Make partitions of message and outcome until *ahead* ids are covered; return how many.
-- ATTACH takes only SHARE UPDATE EXCLUSIVE on the parent, so inserts go on meanwhile. Rows that
-- came before their partition lie in the default one, which is the safety net, not the plan.
CREATE FUNCTION dispatcher.make_partitions(ahead bigint DEFAULT 20000000, size bigint DEFAULT 5000000)
RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made integer := 0;
    first bigint;
    wanted bigint;
    part record;
BEGIN
    -- One maker at a time; whoever comes second finds the work done.
    PERFORM pg_advisory_xact_lock(hashtext('dispatcher.make_partitions'));
    SELECT last_value + ahead INTO wanted FROM dispatcher.message_id;
    LOOP
        SELECT greatest(
            (SELECT coalesce(max(substring(c.relname FROM '_to_([0-9]+)$')::bigint), 1)
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'dispatcher.message'::regclass),
            (SELECT coalesce(max(id), 0) + 1 FROM dispatcher.message_rest),
            (SELECT coalesce(max(message_id), 0) + 1 FROM dispatcher.outcome_rest)
        ) INTO first;
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
                'ALTER TABLE dispatcher.%I ATTACH PARTITION dispatcher.%I FOR VALUES FROM (%s) TO (%s)',
                part.parent, format('%s_%s_to_%s', part.parent, first, first + size),
                first, first + size);
        END LOOP;
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

CREATE TABLE dispatcher.message_rest PARTITION OF dispatcher.message DEFAULT;
CREATE TABLE dispatcher.outcome_rest PARTITION OF dispatcher.outcome DEFAULT;
SELECT dispatcher.make_partitions();

CREATE FUNCTION dispatcher.enqueue(
    recipient text,
    template_id text,
    params text[] DEFAULT '{}',
    app text DEFAULT 'default',
    sender text DEFAULT NULL,
    signature text DEFAULT NULL,
    priority integer DEFAULT 5,
    send_at timestamptz DEFAULT now(),
    expires_at timestamptz DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    reference text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_id bigint;
    taken text;
BEGIN
    -- A repeat returns the first id. The insert is tried first only where nobody was before, and
    -- a rival that commits in between is met by the exception.
    IF enqueue.idempotency_key IS NOT NULL THEN
        found_id := dispatcher.message_of_key(enqueue.app, enqueue.idempotency_key);
        IF found_id IS NOT NULL THEN
            RETURN found_id;
        END IF;
    END IF;
    INSERT INTO dispatcher.message (app, sender, recipient, template_id, params, signature,
        priority, send_at, expires_at, idempotency_key, reference)
    VALUES (enqueue.app, enqueue.sender, enqueue.recipient, enqueue.template_id, enqueue.params,
        enqueue.signature, enqueue.priority::smallint, enqueue.send_at, enqueue.expires_at,
        enqueue.idempotency_key, enqueue.reference)
    RETURNING id INTO found_id;
    RETURN found_id;
EXCEPTION WHEN unique_violation THEN
    GET STACKED DIAGNOSTICS taken = CONSTRAINT_NAME;
    IF taken <> 'idempotency_key_was_used_before' THEN
        RAISE;
    END IF;
    found_id := dispatcher.message_of_key(enqueue.app, enqueue.idempotency_key);
    IF found_id IS NULL THEN  -- under REPEATABLE READ the rival's row is not seen: begin again
        RAISE;
    END IF;
    RETURN found_id;
END $$;

CREATE FUNCTION dispatcher.message_of_key(app text, key text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT message_id FROM dispatcher.idempotency i
    WHERE i.app = message_of_key.app AND i.key = message_of_key.key
$$;

-- Count *counts* of one event for each app, as part of the caller's transaction.
CREATE FUNCTION dispatcher.count_event(event text, code text, apps text[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO dispatcher.tally AS t (minute, app, event, code, worker, count)
    SELECT date_trunc('minute', now()), a, count_event.event, count_event.code, 0, count(*)
    FROM unnest(apps) AS a GROUP BY a ORDER BY a
    ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
$$;

-- Cancel what still waits; return how many. A message that is being claimed at this moment is
-- waited for, and is then too late: whatever this counts is never sent.
CREATE FUNCTION dispatcher.cancel(ids bigint[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    cancelled text[];
    told bigint[];
BEGIN
    WITH taken AS (
        DELETE FROM dispatcher.queue WHERE id = ANY (ids) RETURNING id, app, attempt, last_batch
    ), written AS (
        INSERT INTO dispatcher.outcome (message_id, state, attempts, batch_id)
        SELECT id, 'cancelled', attempt, last_batch FROM taken
        RETURNING message_id
    )
    SELECT array_agg(t.app), array_agg(t.id) INTO cancelled, told
    FROM taken t JOIN written w ON w.message_id = t.id;
    PERFORM dispatcher.count_event('cancelled', '', cancelled);
    PERFORM dispatcher.tell('cancelled', '', cancelled, told);
    RETURN coalesce(cardinality(cancelled), 0);
END $$;

-- Take rejected or expired messages back into the queue, as new; return how many.
CREATE FUNCTION dispatcher.requeue(ids bigint[]) RETURNS integer
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

-- Settle an unsure batch by hand; return how many messages it settled. 'sent': they went out;
-- 'resend': they did not, and go back to the queue.
CREATE FUNCTION dispatcher.settle(token text, how text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    settled dispatcher.batch;
    told bigint[];
    messages integer;
BEGIN
    IF how IS NULL OR how NOT IN ('sent', 'resend') THEN
        RAISE EXCEPTION 'settle takes ''sent'' or ''resend'', not %', quote_nullable(how)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE dispatcher.batch b
    SET state = 'closed', closed_at = clock_timestamp(), settled_by = 'operator: ' || how
    WHERE b.token = settle.token AND b.state = 'unsure'
    RETURNING b.* INTO settled;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no unsure batch has the token %', quote_nullable(token)
            USING ERRCODE = 'no_data_found',
                  HINT = 'It may be settled already: see dispatcher.message_status.batch_token.';
    END IF;
    IF how = 'sent' THEN
        WITH written AS (
            INSERT INTO dispatcher.outcome (message_id, state, attempts, batch_id, code, reason)
            SELECT u.id, 'accepted', u.attempt, settled.id, 'settled',
                'settled by an operator as sent'
            FROM unnest(settled.message_ids, settled.attempts) AS u (id, attempt)
            WHERE u.id = ANY (coalesce(settled.unsure_ids, settled.message_ids))
            ON CONFLICT (message_id) DO NOTHING
            RETURNING message_id
        )
        SELECT array_agg(message_id) INTO told FROM written;
    ELSE
        WITH waiting AS (
            INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, last_batch, code)
            SELECT m.id, m.app, m.priority, clock_timestamp(), u.attempt, settled.id, 'settled'
            FROM unnest(settled.message_ids, settled.attempts) AS u (id, attempt)
            JOIN dispatcher.message m ON m.id = u.id
            WHERE u.id = ANY (coalesce(settled.unsure_ids, settled.message_ids))
              AND NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id)
            RETURNING id
        )
        SELECT array_agg(id) INTO told FROM waiting;
    END IF;
    messages := coalesce(cardinality(told), 0);
    PERFORM dispatcher.count_event('settled', how, array_fill(settled.app, ARRAY[messages]));
    PERFORM dispatcher.tell(CASE how WHEN 'sent' THEN 'accepted' ELSE 'requeued' END, 'settled',
        array_fill(settled.app, ARRAY[messages]), told);
    RETURN messages;
END $$;

-- Stop claiming for an app until somebody resumes it; no probe ends an operator's pause.
CREATE FUNCTION dispatcher.pause(app text, reason text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO dispatcher.app AS a (name, paused_at, pause_reason, paused_by)
    VALUES (pause.app, clock_timestamp(), pause.reason, 'operator')
    ON CONFLICT (name) DO UPDATE SET paused_at = coalesce(a.paused_at, excluded.paused_at),
        pause_reason = excluded.pause_reason, pause_code = NULL, paused_by = 'operator',
        probe_at = NULL, probe_wait = NULL, probe_max = NULL
$$;

CREATE FUNCTION dispatcher.resume(app text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE dispatcher.app SET paused_at = NULL, pause_reason = NULL, pause_code = NULL,
        paused_by = NULL, probe_at = NULL, probe_wait = NULL, probe_max = NULL
    WHERE name = resume.app;
    DELETE FROM dispatcher.country_pause c WHERE c.app = resume.app;
$$;

-- One message, whole: what was asked, where it is, what became of it, what the carrier said.
CREATE VIEW dispatcher.message_status AS
SELECT
    m.id,
    m.app,
    m.sender,
    m.recipient,
    m.template_id,
    m.reference,
    m.priority,
    CASE
        WHEN o.state = 'accepted' THEN coalesce(r.state, 'accepted')
        WHEN o.state IS NOT NULL THEN o.state
        WHEN q.id IS NOT NULL THEN 'queued'
        WHEN live.state = 'open' THEN 'sending'
        WHEN live.state = 'unsure' THEN 'unsure'
        ELSE 'lost'
    END AS state,
    coalesce(o.attempts, q.attempt, live.attempt)::integer AS attempts,
    o.provider_id,
    -- Of a message that is delivered or not, the carrier's own word, and what it means.
    CASE WHEN r.state IS NOT NULL THEN r.status ELSE coalesce(o.code, q.code, live.code) END
        AS code,
    CASE WHEN r.state IS NOT NULL THEN coalesce(w.meaning, r.description)
        ELSE coalesce(o.reason, live.description, CASE WHEN q.id IS NOT NULL THEN last.description END)
    END AS reason,
    coalesce(o.segments, r.total)::integer AS segments,
    m.queued_at,
    q.due_at,
    CASE WHEN o.state = 'accepted' THEN o.at END AS accepted_at,
    CASE WHEN o.state <> 'accepted' THEN o.at WHEN r.state IS NOT NULL THEN r.finished_at END
        AS finished_at,
    r.status AS report_status,
    coalesce(live.token, last.token) AS batch_token
FROM dispatcher.message m
LEFT JOIN dispatcher.outcome o ON o.message_id = m.id
LEFT JOIN dispatcher.queue q ON q.id = m.id
LEFT JOIN LATERAL (
    SELECT b.token, b.state, b.code, b.description,
        b.attempts[array_position(b.message_ids, m.id)] AS attempt
    FROM dispatcher.batch b
    WHERE o.message_id IS NULL AND q.id IS NULL
      -- Two conditions and not one IN: so both partial indexes serve, and the closed are not read.
      AND (b.state = 'open' OR b.state = 'unsure') AND coalesce(b.unsure_ids, b.message_ids) @> ARRAY[m.id]
    LIMIT 1
) AS live ON true
LEFT JOIN dispatcher.batch last ON last.id = coalesce(o.batch_id, q.last_batch)
LEFT JOIN LATERAL (
    -- A long message is delivered when every segment is, and undelivered when one is not.
    SELECT
        CASE
            WHEN bool_or(p.state = 'undelivered') THEN 'undelivered'
            WHEN count(*) FILTER (WHERE p.state = 'delivered') >= max(p.total) THEN 'delivered'
        END AS state,
        coalesce(
            min(p.status) FILTER (WHERE p.state = 'undelivered'),
            min(p.status) FILTER (WHERE p.state = 'delivered'),
            min(p.status)
        ) AS status,
        max(p.total) AS total,
        min(p.description) FILTER (WHERE p.state <> 'interim') AS description,
        max(p.received_at) FILTER (WHERE p.state <> 'interim') AS finished_at
    FROM dispatcher.report p
    WHERE p.provider_id = o.provider_id
) AS r ON true
LEFT JOIN dispatcher.carrier_status w ON w.status = r.status;

-- migrate:down

DROP VIEW dispatcher.message_status;
DROP TABLE dispatcher.message, dispatcher.queue, dispatcher.batch, dispatcher.outcome,
    dispatcher.idempotency, dispatcher.report, dispatcher.carrier_status, dispatcher.app, dispatcher.country_pause,
    dispatcher.worker, dispatcher.tally;
DROP FUNCTION dispatcher.fill_queue, dispatcher.make_partitions, dispatcher.enqueue,
    dispatcher.message_of_key, dispatcher.count_event, dispatcher.cancel, dispatcher.requeue,
    dispatcher.settle, dispatcher.pause, dispatcher.resume;
DROP SEQUENCE dispatcher.message_id, dispatcher.batch_id;
