-- Functions: what applications call, what workers share, and what operators do.
--
-- Operators' functions take *actor*, who does it, and write the audit themselves; by default the
-- actor is the user of the session.

-- migrate:up

-- Numbers -------------------------------------------------------------------------------------------

-- Return the one form of a number: a mainland number without + gets +86 (as core.message.to_e164).
-- Two spellings that no message has, 00... and 86 with 11 digits, are what an operator may write.
CREATE FUNCTION dispatcher.e164(number text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN number LIKE '+%' THEN number
    WHEN number LIKE '00%' THEN '+' || substr(number, 3)
    WHEN number LIKE '86___________' THEN '+' || number
    ELSE '+86' || number
END;

-- Cost ----------------------------------------------------------------------------------------------

-- Return what an account pays for: segments that are 'delivered', or all that are 'sent'.
CREATE FUNCTION dispatcher.billing_mode(billing text, recipient text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(billing, CASE WHEN recipient LIKE '+%' AND recipient NOT LIKE '+86%'
    THEN 'sent' ELSE 'delivered' END);

-- Return for how many segments of its message a report stands: one that names no segments, for all.
CREATE FUNCTION dispatcher.segments_of_report(segments integer, total integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN coalesce(total, 1) <= 1 THEN coalesce(segments, 1) ELSE 1 END;

-- Return how many segments of an accepted message are charged by now. *segments* are those of the
-- answer; *total*, *delivered* and *uncharged* come from report_parts.
CREATE FUNCTION dispatcher.charged_segments(
    mode text, segments integer, total integer, delivered integer, uncharged integer
) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE mode
    WHEN 'sent' THEN greatest(0, coalesce(segments, total, 1)
        - coalesce(uncharged, 0) * dispatcher.segments_of_report(segments, total))
    ELSE coalesce(delivered, 0) * dispatcher.segments_of_report(segments, total)
END;

-- Return how many of its segments may still be charged: those without a final report.
CREATE FUNCTION dispatcher.open_segments(
    mode text, segments integer, total integer, final integer
) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE mode WHEN 'sent' THEN 0 ELSE greatest(0, coalesce(segments, total, 1)
    - coalesce(final, 0) * dispatcher.segments_of_report(segments, total)) END;

-- Return whether a segment with this status is charged where what is sent is charged: a platform code
-- is not. *known* is carrier_status.charged, null for a status that is not in that table.
CREATE FUNCTION dispatcher.is_charged(status text, known boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(known, upper(status) !~ '^(E2000|E0006|SC:)');

-- Return of the reports of a message how many segments it has, and how many of the reports are
-- delivered, not charged, and final.
CREATE FUNCTION dispatcher.report_parts(provider_id text)
RETURNS TABLE (total integer, delivered integer, uncharged integer, final integer)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT max(p.total)::integer,
        (count(*) FILTER (WHERE p.state = 'delivered'))::integer,
        (count(*) FILTER (WHERE p.state <> 'interim'
            AND NOT dispatcher.is_charged(p.status, (
                SELECT c.charged FROM dispatcher.carrier_status c WHERE c.status = upper(p.status)
            ))))::integer,
        (count(*) FILTER (WHERE p.state <> 'interim'))::integer
    FROM dispatcher.report p
    WHERE p.provider_id = report_parts.provider_id
$$;

-- Return how many of the messages of an unsure request are in question: reports or a part of its answer
-- may have settled the others. The lowest and the highest id leave out the other partitions.
CREATE FUNCTION dispatcher.count_in_question(ids bigint[]) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT cardinality(ids) - count(*)::integer
    FROM dispatcher.outcome o
    WHERE o.message_id = ANY (ids)
      AND o.message_id >= (SELECT min(id) FROM unnest(ids) AS id)
      AND o.message_id <= (SELECT max(id) FROM unnest(ids) AS id)
$$;

-- Return whether a recipient is one of the usual if only digits follow its first character. It is
-- short, for every INSERT builds it anew, and compares bytes, for a longer pattern costs each row of a
-- list a third more.
CREATE FUNCTION dispatcher.has_usual_prefix_and_length(recipient text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN octet_length(recipient) = 14
        AND recipient >= '+8613' COLLATE "C" AND recipient < '+862' COLLATE "C" THEN true
    WHEN recipient >= '0' COLLATE "C" THEN octet_length(recipient) = 11
        AND recipient >= '13' COLLATE "C" AND recipient < '2' COLLATE "C"
    WHEN recipient >= '+86' COLLATE "C" AND recipient < '+87' COLLATE "C" THEN false
    ELSE recipient >= '+1' COLLATE "C" AND recipient < ',' COLLATE "C"
        AND octet_length(recipient) BETWEEN 8 AND 21
END;

-- Return whether a recipient is one of the usual, which keep every rule of misread_recipient: a mobile
-- number of mainland China, or a number with + of another country.
CREATE FUNCTION dispatcher.is_usual_recipient(recipient text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN recipient ~ '^[+]?[0-9]+$' AND dispatcher.has_usual_prefix_and_length(recipient);

-- Return which rule a recipient breaks, if it is no number, would reach another person, or hides that
-- two spellings are one number (see core.number); null for a sound one. Named like constraints, which
-- say what is wrong.
CREATE FUNCTION dispatcher.misread_recipient(recipient text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN dispatcher.is_usual_recipient(recipient) THEN NULL
    WHEN recipient !~ '^[+]?[0-9]+$' THEN 'recipient_is_digits_after_an_optional_plus'
    WHEN octet_length(recipient) > 21 THEN 'recipient_has_at_most_21_characters'
    WHEN recipient LIKE '0%' OR recipient LIKE '+0%'
        THEN 'recipient_begins_with_0_write_plus_and_the_country_code'
    WHEN recipient LIKE '86___________' THEN 'recipient_is_86_and_11_digits_the_plus_is_missing'
    WHEN octet_length(recipient) < CASE WHEN recipient LIKE '+%' THEN 8 ELSE 7 END
        THEN 'recipient_needs_at_least_7_digits'
    -- Fixed lines and things; no area code begins with 0 or 86.
    WHEN recipient LIKE '+86%' AND recipient !~
        '^[+]86(10[0-9]{8}|2[0-9]{9}|(?!86)[3-9][0-9]{9,10}|1[04][0-9]{11})$'
        THEN 'recipient_is_no_number_of_mainland_china_after_plus_86'
END;

-- Return the canonical form of a number that an operator gave; raises check_violation for one that no
-- new message can have: to suppress it would have no effect.
CREATE FUNCTION dispatcher.given_number(number text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    canonical text := dispatcher.e164(number);
    rule text := dispatcher.misread_recipient(canonical);
BEGIN
    IF rule IS NOT NULL THEN
        RAISE check_violation USING MESSAGE = format('a number breaks the rule "%s"', rule),
            CONSTRAINT = rule;
    END IF;
    RETURN canonical;
END $$;

-- Enqueueing ----------------------------------------------------------------------------------------

-- Statement level: one call for a COPY of a million rows as for a single INSERT.
-- Only urgent messages notify; a NOTIFY on every insert halves the rate of single inserts.
-- 20 messages or more that agree in all that a claim asks for wait in one bulk row, the others each
-- in a row of the queue. A block of 500 ids is a request, and lies in one partition.
-- A statement whose rows bring an older queued_at loads data that were here before, as from a dump: only
-- what has no other place waits, or it would be sent twice.
CREATE FUNCTION dispatcher.fill_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inserted_at timestamptz := clock_timestamp();
    has record;  -- which of the steps below are needed
    wrong record;
BEGIN
    SELECT count(*) >= 20 AS many, count(campaign) > 0 AS campaigns,
        count(idempotency_key) > 0 AS keys, min(priority) <= 1 AS urgent,
        -- is_usual_recipient: its own name would cost one INSERT 3,000 instructions more.
        bool_and(recipient ~ '^[+]?[0-9]+$' AND dispatcher.has_usual_prefix_and_length(recipient))
            AS usual,
        min(queued_at) < now() AS loaded
    INTO has
    FROM (SELECT campaign, idempotency_key, priority, recipient, queued_at FROM added LIMIT 20)
        AS first;

    IF has.loaded THEN
        INSERT INTO dispatcher.queue (id, app, priority, due_at, campaign)
        SELECT a.id, a.app, a.priority, greatest(a.send_at, inserted_at), a.campaign
        FROM added a
        WHERE NOT EXISTS (
            SELECT FROM dispatcher.placed_messages(ARRAY(SELECT id FROM added)) AS p (id)
            WHERE p.id = a.id)
        ON CONFLICT (id) DO NOTHING;
        SELECT count(campaign) > 0 AS campaigns, count(idempotency_key) > 0 AS keys,
            min(priority) <= 1 AS urgent, bool_and(dispatcher.is_usual_recipient(recipient)) AS usual
        INTO has
        FROM added;
    ELSIF NOT has.many THEN
        INSERT INTO dispatcher.queue (id, app, priority, due_at, campaign)
        SELECT id, app, priority, greatest(send_at, inserted_at), campaign FROM added;
    ELSE
        WITH together AS MATERIALIZED (
            SELECT array_agg(id) AS ids, min(id) AS first_id, max(id) AS last_id,
                count(*) AS size, app, priority, greatest(send_at, inserted_at) AS due_at,
                campaign, count(idempotency_key) > 0 AS keys,
                -- is_usual_recipient of each: one pattern for all costs a fourth of one for each.
                bool_and(dispatcher.has_usual_prefix_and_length(recipient))
                    AND string_agg(right(recipient, -1), '') !~ '[^0-9]' AS usual
            FROM added
            GROUP BY (id - 1) / 500, app, priority, greatest(send_at, inserted_at), campaign
        ), few AS (
            INSERT INTO dispatcher.queue (id, app, priority, due_at, campaign)
            SELECT unnest(ids), app, priority, due_at, campaign FROM together WHERE size < 20
        ), many AS (
            INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at, campaign)
            SELECT first_id,
                CASE WHEN last_id - first_id + 1 = size
                    THEN int8multirange(int8range(first_id, last_id + 1))
                    ELSE (SELECT range_agg(int8range(id, id + 1)) FROM unnest(ids) AS id) END,
                size, app, priority, due_at, campaign
            FROM together WHERE size >= 20
        )
        SELECT count(campaign) > 0 AS campaigns, bool_or(keys) AS keys,
            min(priority) <= 1 AS urgent, bool_and(usual) AS usual
        INTO has
        FROM together;
    END IF;
    -- Here and not by a constraint: see the table.
    IF NOT has.usual THEN
        SELECT broken.rule, broken.place INTO wrong
        FROM (
            SELECT row_number() OVER () AS place,
                -- The recipient of an erased message is 0: a dump may have one.
                CASE WHEN recipient <> '0' OR wiped_at IS NULL
                    THEN dispatcher.misread_recipient(recipient) END AS rule
            FROM added
        ) AS broken
        WHERE broken.rule IS NOT NULL LIMIT 1;
        IF FOUND THEN
            RAISE check_violation USING
                MESSAGE = format('new row for relation "message" violates check constraint "%s"',
                    wrong.rule),
                DETAIL = format('It is row %s of the statement.', wrong.place),
                SCHEMA = 'dispatcher', TABLE = 'message', COLUMN = 'recipient',
                CONSTRAINT = wrong.rule;
        END IF;
    END IF;

    -- A campaign that is known is not locked: an import must not keep a pause waiting.
    IF has.campaigns THEN
        INSERT INTO dispatcher.campaign (name, first_id)
        SELECT campaign, min(id) FROM added WHERE campaign IS NOT NULL GROUP BY campaign
        ORDER BY campaign  -- or two inserts wait for each other crosswise
        ON CONFLICT (name) DO NOTHING;
        UPDATE dispatcher.campaign c SET first_id = lower.first_id
        FROM (
            SELECT known.name, a.first_id
            FROM (SELECT campaign, min(id) AS first_id FROM added GROUP BY campaign) AS a
            JOIN dispatcher.campaign known ON known.name = a.campaign
            WHERE a.first_id < known.first_id
            ORDER BY known.name FOR NO KEY UPDATE OF known
        ) AS lower
        WHERE c.name = lower.name AND lower.first_id < c.first_id;
    END IF;

    IF has.keys THEN
        INSERT INTO dispatcher.idempotency (app, key, message_id)
        SELECT app, idempotency_key, id FROM added WHERE idempotency_key IS NOT NULL
        ORDER BY app, idempotency_key;  -- or two inserts wait for each other crosswise
    END IF;

    -- A transaction that has notified cannot be prepared (two-phase commit, XA). Where a session has
    -- set this, polling finds its urgent messages.
    IF NOT has.urgent OR current_setting('dispatcher.notify', true) = 'off' THEN
        RETURN NULL;
    END IF;
    PERFORM pg_notify('dispatcher_urgent', urgent.app)
    FROM (SELECT DISTINCT app FROM added WHERE priority <= 1 AND send_at <= now()) AS urgent;
    RETURN NULL;
END $$;

CREATE TRIGGER fill_queue AFTER INSERT ON dispatcher.message
REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION dispatcher.fill_queue();

-- Return the message that has an idempotency key.
CREATE FUNCTION dispatcher.message_id_for_key(app text, key text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT message_id FROM dispatcher.idempotency i
    WHERE i.app = message_id_for_key.app AND i.key = message_id_for_key.key
$$;

-- Insert one message; return its id, or that of the first message with the same idempotency key.
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
    reference text DEFAULT NULL,
    campaign text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_id bigint;
    violated text;
BEGIN
    -- The insert is tried only where the key is not there yet; a rival that commits in between is
    -- caught as an exception.
    IF enqueue.idempotency_key IS NOT NULL THEN
        found_id := dispatcher.message_id_for_key(enqueue.app, enqueue.idempotency_key);
        IF found_id IS NOT NULL THEN
            RETURN found_id;
        END IF;
    END IF;
    INSERT INTO dispatcher.message (app, sender, recipient, template_id, params, signature,
        priority, send_at, expires_at, idempotency_key, reference, campaign)
    VALUES (enqueue.app, enqueue.sender, enqueue.recipient, enqueue.template_id, enqueue.params,
        enqueue.signature, enqueue.priority::smallint, enqueue.send_at, enqueue.expires_at,
        enqueue.idempotency_key, enqueue.reference, enqueue.campaign)
    RETURNING id INTO found_id;
    RETURN found_id;
EXCEPTION WHEN unique_violation THEN
    GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
    IF violated <> 'idempotency_key_was_used_before' THEN
        RAISE;
    END IF;
    found_id := dispatcher.message_id_for_key(enqueue.app, enqueue.idempotency_key);
    IF found_id IS NULL THEN  -- under REPEATABLE READ the rival's row is not seen: begin again
        RAISE;
    END IF;
    RETURN found_id;
END $$;

-- Events --------------------------------------------------------------------------------------------

-- Count one event for each of *apps*, in the caller's transaction.
CREATE FUNCTION dispatcher.count_event(event text, code text, apps text[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO dispatcher.event_count AS t (minute, app, event, code, worker, count)
    SELECT date_trunc('minute', now()), a, count_event.event, count_event.code, 0, count(*)
    FROM unnest(apps) AS a GROUP BY a ORDER BY a
    ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
$$;

-- Append one event of the messages *ids*, whose apps are *apps*, in the caller's transaction.
CREATE FUNCTION dispatcher.append_event(event text, code text, apps text[], ids bigint[])
RETURNS void
LANGUAGE sql AS $$
    INSERT INTO dispatcher.event (app, event, code, message_ids, message_count)
    SELECT u.app, append_event.event, append_event.code, array_agg(u.id), count(*)
    FROM unnest(apps, ids) AS u (app, id) GROUP BY u.app ORDER BY u.app
$$;

-- Return what happened after position *after*, oldest first, at most "limit" entries: each is of a
-- message, or of a reply (event 'replied').
-- A reader keeps the position of the last entry it has processed, and asks again: it misses nothing
-- and sees nothing twice. Reads only, and blocks nothing, however long its transaction is.
-- Positions begin at 1 and have no gaps. Where the oldest entries have been deleted, it begins with
-- the first that is kept.
CREATE FUNCTION dispatcher.events(after bigint DEFAULT 0, "limit" integer DEFAULT 1000)
RETURNS TABLE (
    "position" bigint,
    message_id bigint,
    app text,
    event text,
    code text,
    created_at timestamptz,
    reference text,
    reply_id bigint
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH begin AS (
        SELECT greatest(events.after, e.last_position - e.message_count) AS after
        FROM dispatcher.event e
        WHERE e.last_position > events.after
        ORDER BY e.last_position LIMIT 1
    ), near AS (
        SELECT e.*, b.after, e.last_position - e.message_count AS before
        FROM begin b
        CROSS JOIN LATERAL (
            -- Every row has at least one message, so as many rows as entries are enough.
            SELECT * FROM dispatcher.event r
            WHERE r.last_position > b.after
            ORDER BY r.last_position LIMIT events."limit"
        ) AS e
        WHERE e.last_position - e.message_count < b.after + events."limit"
    )
    SELECT greatest(n.before, n.after) + entry.place,
        CASE WHEN n.reply_ids IS NULL THEN entry.id END, n.app, n.event, n.code, n.created_at,
        m.reference, CASE WHEN n.reply_ids IS NOT NULL THEN entry.id END
    FROM near n
    LEFT JOIN dispatcher.batch b ON b.id = n.batch_id
    CROSS JOIN LATERAL unnest((coalesce(n.message_ids, n.reply_ids, b.message_ids))[
        greatest(n.after - n.before, 0) + 1
        : least(n.last_position, n.after + events."limit") - n.before
    ]) WITH ORDINALITY AS entry (id, place)
    LEFT JOIN dispatcher.message m ON m.id = entry.id AND n.reply_ids IS NULL
    ORDER BY 1
$$;

-- Return the replies that events() names.
CREATE FUNCTION dispatcher.replies(ids bigint[])
RETURNS TABLE (
    id bigint,
    app text,
    number text,
    channel text,
    text text,
    unsubscribed boolean,
    received_at timestamptz,
    replied_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.id, r.app, r.number, r.channel, r.text, r.unsubscribed, r.received_at, r.replied_at
    FROM dispatcher.reply r WHERE r.id = ANY (ids) ORDER BY r.id
$$;

-- Audit ---------------------------------------------------------------------------------------------

-- Write one row, in the transaction that does it.
CREATE FUNCTION dispatcher.append_audit(
    actor text, action text, target text, detail text, result text
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO dispatcher.audit (actor, action, target, detail, result)
    VALUES (actor, action, target, coalesce(detail, ''), result)
$$;

-- The same for an action on messages: one is the target, and of several the ids are listed, the
-- first 10,000.
CREATE FUNCTION dispatcher.append_message_audit(
    actor text, action text, ids bigint[], result text
) RETURNS void
LANGUAGE sql AS $$
    SELECT dispatcher.append_audit(
        actor,
        action,
        CASE cardinality(ids) WHEN 1 THEN 'message ' || ids[1]
            ELSE coalesce(cardinality(ids), 0) || ' messages' END,
        CASE WHEN cardinality(ids) > 1 THEN array_to_string(ids[:10000], ' ')
            || CASE WHEN cardinality(ids) > 10000 THEN ' ...' ELSE '' END END,
        result)
$$;

-- Return 1 number, 2,000 numbers.
CREATE FUNCTION dispatcher.numbers_in_words(count bigint) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE count WHEN 1 THEN '1 number'
        ELSE to_char(count, 'FM999,999,999,990') || ' numbers' END
$$;

-- Messages ------------------------------------------------------------------------------------------

-- Return which bulk rows hold any of *ids*, by their first ids.
CREATE FUNCTION dispatcher.bulk_rows_with(ids bigint[]) RETURNS bigint[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT array_agg(b.first_id ORDER BY b.first_id)
    FROM (
        SELECT (id - 1) / 500 * 500 AS before, max(id) AS last_id, array_agg(id) AS ids
        FROM unnest(bulk_rows_with.ids) AS id WHERE id > 0 GROUP BY 1
    ) AS block
    JOIN dispatcher.bulk b ON b.first_id > block.before AND b.first_id <= block.last_id
    WHERE EXISTS (SELECT FROM unnest(block.ids) AS id WHERE b.ids @> id)
$$;

-- Return which of *ids* have an outcome, wait in a bulk row, or are in a request that is not closed.
CREATE FUNCTION dispatcher.placed_messages(ids bigint[]) RETURNS SETOF bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT o.message_id FROM dispatcher.outcome o WHERE o.message_id = ANY (placed_messages.ids)
    UNION ALL
    SELECT u.id FROM dispatcher.batch b
    CROSS JOIN LATERAL unnest(coalesce(b.unsure_ids, b.message_ids)) AS u (id)
    WHERE b.state <> 'closed'
    UNION ALL
    SELECT u.id FROM dispatcher.bulk b
    CROSS JOIN LATERAL unnest(b.ids) AS range
    CROSS JOIN LATERAL generate_series(lower(range), upper(range) - 1) AS u (id)
    WHERE b.first_id = ANY (dispatcher.bulk_rows_with(placed_messages.ids))
$$;

-- Take those of *ids* out of bulk rows that are in these rows, and return them; the others of a row
-- wait on in a new row. A claim that has locked a row is waited for: it may leave a new row.
CREATE FUNCTION dispatcher.take_from_bulk(bulk_rows bigint[], ids bigint[])
RETURNS TABLE (id bigint, app text)
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH gone AS (
        DELETE FROM dispatcher.bulk b WHERE b.first_id = ANY (bulk_rows) RETURNING *
    ), message AS MATERIALIZED (
        SELECT g.first_id, g.app, u.id, w.id IS NOT NULL AS wanted
        FROM gone g
        CROSS JOIN LATERAL unnest(g.ids) AS range
        CROSS JOIN LATERAL generate_series(lower(range), upper(range) - 1) AS u (id)
        LEFT JOIN (SELECT DISTINCT unnest(take_from_bulk.ids) AS id) AS w ON w.id = u.id
    ), rest AS (
        INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at, campaign)
        SELECT left_over.first_id, left_over.ids, left_over.size, g.app, g.priority, g.due_at,
            g.campaign
        FROM (
            SELECT m.first_id AS old, min(m.id) AS first_id, count(*) AS size,
                range_agg(int8range(m.id, m.id + 1)) AS ids
            FROM message m WHERE NOT m.wanted GROUP BY m.first_id
        ) AS left_over
        JOIN gone g ON g.first_id = left_over.old
    )
    SELECT m.id, m.app FROM message m WHERE m.wanted
$$;

-- Raise an exception because rows of a table stay although they were deleted.
CREATE FUNCTION dispatcher.raise_kept_rows(of_table text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of dispatcher.% cannot be deleted: a trigger returns NULL for them. Let it'
        ' return OLD for a DELETE', of_table;
END $$;

-- Cancel what still waits; return how many. A message that is being claimed at this moment is
-- waited for, and is then too late: whatever this counts is never sent. If that claim left it in a
-- new bulk row, or returned it to the queue, the next turn finds it. One that holds its rows and still
-- takes none ends it: a trigger keeps them. No audit: for cancel() and forget().
CREATE FUNCTION dispatcher.cancel_queued(ids bigint[]) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    apps text[] := '{}';
    cancelled bigint[] := '{}';
    bulk_rows bigint[];
    turn record;
    held boolean := false;  -- rows that the next turn must take
BEGIN
    LOOP
        bulk_rows := dispatcher.bulk_rows_with(ids);
        -- In each app one after the other, before any row is locked: rows that come anew while others
        -- are waited for follow no order, and the counter below is locked last, though the caller
        -- may cancel more in the same transaction.
        PERFORM pg_advisory_xact_lock(hashtext('dispatcher.cancel'), a.app)
        FROM (
            SELECT hashtext(b.app) AS app FROM dispatcher.bulk b
            WHERE b.first_id = ANY (bulk_rows)
            UNION SELECT hashtext(q.app) FROM dispatcher.queue q WHERE q.id = ANY (ids)
            ORDER BY 1
        ) AS a;
        EXIT WHEN bulk_rows IS NULL;
        WITH taken AS MATERIALIZED (
            SELECT t.id, t.app FROM dispatcher.take_from_bulk(bulk_rows, ids) AS t
        ), written AS (
            INSERT INTO dispatcher.outcome (message_id, state, attempts)
            SELECT id, 'cancelled', 0 FROM taken
            ON CONFLICT (message_id) DO NOTHING  -- loaded again after it was finished
            RETURNING message_id
        )
        SELECT array_agg(t.app) FILTER (WHERE w.message_id IS NOT NULL) AS apps,
            array_agg(t.id) FILTER (WHERE w.message_id IS NOT NULL) AS ids, count(*) AS taken
        INTO turn
        FROM taken t LEFT JOIN written w ON w.message_id = t.id;
        apps := apps || turn.apps;
        cancelled := cancelled || turn.ids;
        IF turn.taken > 0 THEN
            held := false;
        ELSIF held THEN
            PERFORM dispatcher.raise_kept_rows('bulk');
        ELSE
            PERFORM FROM dispatcher.bulk
            WHERE first_id = ANY (dispatcher.bulk_rows_with(cancel_queued.ids)) FOR UPDATE;
            held := FOUND;
        END IF;
    END LOOP;
    held := false;
    LOOP
        WITH taken AS (
            DELETE FROM dispatcher.queue WHERE id = ANY (ids) RETURNING id, app, attempt, last_batch
        ), written AS (
            INSERT INTO dispatcher.outcome (message_id, state, attempts, batch_id)
            SELECT id, 'cancelled', attempt, last_batch FROM taken
            ON CONFLICT (message_id) DO NOTHING  -- loaded again after it was finished
            RETURNING message_id
        )
        SELECT array_agg(t.app) FILTER (WHERE w.message_id IS NOT NULL) AS apps,
            array_agg(t.id) FILTER (WHERE w.message_id IS NOT NULL) AS ids, count(*) AS taken
        INTO turn
        FROM taken t LEFT JOIN written w ON w.message_id = t.id;
        apps := apps || turn.apps;
        cancelled := cancelled || turn.ids;
        EXIT WHEN NOT EXISTS (SELECT FROM dispatcher.queue WHERE id = ANY (ids));
        IF turn.taken > 0 THEN
            held := false;
        ELSIF held THEN
            PERFORM dispatcher.raise_kept_rows('queue');
        ELSE
            PERFORM FROM dispatcher.queue WHERE id = ANY (ids) FOR UPDATE;
            held := FOUND;
        END IF;
    END LOOP;
    PERFORM dispatcher.count_event('cancelled', '', apps);
    PERFORM dispatcher.append_event('cancelled', '', apps, cancelled);
    RETURN coalesce(cardinality(cancelled), 0);
END $$;

-- Cancel what still waits of *ids*; return how many. For applications and operators.
CREATE FUNCTION dispatcher.cancel(ids bigint[], actor text DEFAULT session_user) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    cancelled integer := dispatcher.cancel_queued(ids);
BEGIN
    PERFORM dispatcher.append_message_audit(actor, 'cancel', ids,
        format('%s of %s cancelled', cancelled, coalesce(cardinality(ids), 0)));
    RETURN cancelled;
END $$;

-- Take back messages of requests that were given up for lost: a late answer or a report shows that they
-- were sent. Those that wait to be sent again leave the queue. Of one that has ended otherwise since,
-- refused, expired or cancelled, that outcome is removed: the caller writes what is true. Of one that is
-- unsure again, the later request is locked and returned. One that is on its way stays, and so does what
-- another transaction holds: this must not wait for a person's. Whatever has touched them since: they are
-- known by their ids, and that they were given up, by the request. Not what was requeued: a report had
-- shown that the platform refused it.
CREATE FUNCTION dispatcher.take_back(ids bigint[], batches bigint[], tokens text[])
RETURNS TABLE (id bigint, again bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH given_up AS MATERIALIZED (
        SELECT u.id
        FROM unnest(ids, batches, tokens) AS u (id, batch, token)
        JOIN dispatcher.batch b ON b.id = u.batch AND b.token = u.token
        WHERE b.settled_by IN ('policy: resend', 'operator: resend')
          AND u.id = ANY (coalesce(b.unsure_ids, b.message_ids))
    ), waiting AS (
        DELETE FROM dispatcher.queue q
        WHERE q.id = ANY (ARRAY(
            SELECT f.id FROM dispatcher.queue f
            WHERE f.id = ANY (ARRAY(SELECT g.id FROM given_up g)) FOR UPDATE SKIP LOCKED))
        RETURNING q.id
    ), ended AS (
        DELETE FROM dispatcher.outcome o
        WHERE o.message_id = ANY (ARRAY(
            SELECT f.message_id FROM dispatcher.outcome f
            WHERE f.message_id = ANY (ARRAY(SELECT g.id FROM given_up g)) AND f.state <> 'accepted'
            FOR UPDATE SKIP LOCKED))
        RETURNING o.message_id
    ), unsure AS MATERIALIZED (
        SELECT b.id, coalesce(b.unsure_ids, b.message_ids) AS ids
        FROM dispatcher.batch b
        WHERE b.state = 'unsure' AND (SELECT count(*) FROM given_up) > 0
          -- IS TRUE: they are hashed once, and not compared with each of them.
          AND EXISTS (
              SELECT FROM unnest(coalesce(b.unsure_ids, b.message_ids)) AS q (id)
              WHERE (q.id IN (SELECT g.id FROM given_up g)) IS TRUE)
        ORDER BY b.id FOR UPDATE SKIP LOCKED
    ), answered AS (
        -- Or the message would be in question there once more after a requeue.
        UPDATE dispatcher.batch b
        SET unsure_ids = ARRAY(
            SELECT i FROM unnest(u.ids) AS i WHERE i <> ALL (ARRAY(SELECT g.id FROM given_up g)))
        FROM unsure u WHERE b.id = u.id
    )
    SELECT w.id, NULL::bigint FROM waiting w
    UNION SELECT e.message_id, NULL FROM ended e
    UNION
    SELECT g.id, u.id FROM given_up g JOIN unsure u ON g.id = ANY (u.ids)
    WHERE NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = g.id)
$$;

-- Return which of *ids* are in no place: neither waiting, nor in a request, nor finished. Only a
-- database that went back in time has such.
CREATE FUNCTION dispatcher.lost_messages(ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        SELECT coalesce(array_agg(s.id), '{}')
        FROM dispatcher.message_status s JOIN dispatcher.message m ON m.id = s.id
        WHERE s.id = ANY (ids) AND s.state = 'lost' AND m.wiped_at IS NULL);
END $$;

-- Return whether the reports say of every segment that the platform refused it before anything was
-- sent, so that the message may be sent again.
CREATE FUNCTION dispatcher.is_refused_by_platform(provider_id text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(count(*) >= max(r.total) AND bool_and(coalesce(c.resendable, false)), false)
    FROM dispatcher.report r
    LEFT JOIN dispatcher.carrier_status c ON c.status = upper(r.status)
    WHERE r.provider_id = is_refused_by_platform.provider_id
$$;

-- Return rejected or expired messages to the queue, as new, those that a fail-over has lost, and
-- those that the platform refused after it had accepted them; return how many. A message whose
-- variables were wiped stays as it is: it would be sent without them. So does one of a cancelled
-- campaign: it would be cancelled at once, and its code and reason lost. No audit: for requeue() and
-- message_action_step().
CREATE FUNCTION dispatcher.requeue_finished(ids bigint[]) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    apps text[];
    requeued bigint[];
    lost bigint[];
BEGIN
    -- Looked at again under a lock: two requeues at once would send it twice.
    lost := dispatcher.lost_messages(ids);
    IF lost <> '{}' THEN
        PERFORM FROM dispatcher.message WHERE id = ANY (lost) ORDER BY id FOR NO KEY UPDATE;
        lost := dispatcher.lost_messages(lost);
    END IF;
    -- Requests before outcomes, as all that settle them; one of several messages may still be unsure.
    PERFORM FROM dispatcher.batch b
    WHERE (b.state = 'unsure' OR b.settled_by IN ('policy: resend', 'operator: resend'))
      AND b.id = ANY (ARRAY(
        SELECT o.batch_id FROM dispatcher.outcome o
        WHERE o.message_id = ANY (ids) AND o.state = 'accepted'))
    ORDER BY b.id FOR NO KEY UPDATE;
    WITH taken AS (
        DELETE FROM dispatcher.outcome o
        WHERE o.message_id = ANY (ids) AND (o.state IN ('rejected', 'expired')
            OR o.state = 'accepted' AND dispatcher.is_refused_by_platform(o.provider_id))
          AND EXISTS (SELECT FROM dispatcher.message m
              WHERE m.id = o.message_id AND m.wiped_at IS NULL
                AND NOT EXISTS (SELECT FROM dispatcher.campaign c
                    WHERE c.name = m.campaign AND c.state = 'cancelled')
              FOR SHARE OF m)
        RETURNING o.message_id, o.batch_id, o.state, o.provider_id
    ), told AS (
        -- No outcome names these reports any more: retention finds them here.
        INSERT INTO dispatcher.unmatched_report (provider_id, segment, reason, fresh)
        SELECT r.provider_id, r.segment, 'requeued', false
        FROM dispatcher.report r
        WHERE r.provider_id = ANY (ARRAY(
            SELECT t.provider_id FROM taken t WHERE t.state = 'accepted'))
        ORDER BY r.provider_id, r.segment  -- as the matching, or both wait for each other
        ON CONFLICT (provider_id, segment) DO NOTHING
    ), no_question AS (
        -- Whatever settles this request must not send them once more; nor may its late answer or report
        -- take them back, if it was given up. It may take back what was rejected or expired since: of
        -- that nothing says that the platform refused it.
        UPDATE dispatcher.batch b
        SET unsure_ids = ARRAY(
            SELECT id FROM unnest(coalesce(b.unsure_ids, b.message_ids)) AS id
            WHERE id <> ALL (ARRAY(
                SELECT t.message_id FROM taken t WHERE t.batch_id = b.id AND t.state = 'accepted')))
        WHERE (b.state = 'unsure' OR b.settled_by IN ('policy: resend', 'operator: resend'))
          AND b.id = ANY (ARRAY(SELECT batch_id FROM taken WHERE state = 'accepted'))
    ), waiting AS (
        INSERT INTO dispatcher.queue
            (id, app, priority, due_at, requeued, last_batch, campaign, waits_since)
        SELECT m.id, m.app, m.priority, clock_timestamp(), true, t.batch_id, m.campaign,
            clock_timestamp()
        FROM (SELECT message_id, batch_id FROM taken UNION ALL SELECT unnest(lost), NULL) AS t
        JOIN dispatcher.message m ON m.id = t.message_id
        ON CONFLICT (id) DO NOTHING  -- loaded with the trigger on: it waits
        RETURNING app, id
    )
    SELECT array_agg(app), array_agg(id) INTO apps, requeued FROM waiting;
    -- Loaded with the trigger on, it may be in a bulk row as well.
    PERFORM dispatcher.take_from_bulk(dispatcher.bulk_rows_with(requeued), requeued);
    -- A partition that was being dropped is to be kept as long as its new outcomes. A drop that begins
    -- now deletes nothing until this has committed, and then looks at the partition again.
    PERFORM pg_advisory_xact_lock_shared(hashtext('dispatcher.requeue'));
    DELETE FROM dispatcher.maintenance_progress p
    USING dispatcher.partitions() old
    WHERE p.task = 'drop' AND p.partition = old.first
      AND EXISTS (SELECT FROM unnest(requeued) AS id WHERE id >= old.first AND id < old.past);
    PERFORM dispatcher.count_event('requeued', '', apps);
    PERFORM dispatcher.append_event('requeued', '', apps, requeued);
    RETURN coalesce(cardinality(requeued), 0);
END $$;

-- Return rejected or expired messages to the queue; return how many.
CREATE FUNCTION dispatcher.requeue(ids bigint[], actor text DEFAULT session_user) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    requeued integer := dispatcher.requeue_finished(ids);
BEGIN
    PERFORM dispatcher.append_message_audit(actor, 'requeue', ids,
        format('%s of %s wait again', requeued, coalesce(cardinality(ids), 0)));
    RETURN requeued;
END $$;

-- Settle messages that a fail-over has lost; return how many. 'sent': they were sent; 'resend': they were
-- not, and return to the queue.
CREATE FUNCTION dispatcher.settle_lost(ids bigint[], how text, actor text DEFAULT session_user)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    lost bigint[];
    apps text[];
BEGIN
    IF how IS NULL OR how NOT IN ('sent', 'resend') THEN
        RAISE EXCEPTION 'settle_lost takes ''sent'' or ''resend'', not %', quote_nullable(how)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Looked at under a lock: two calls at once would count it twice.
    PERFORM FROM dispatcher.message WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    lost := dispatcher.lost_messages(ids);
    IF how = 'resend' THEN
        RETURN dispatcher.requeue(lost, actor);
    END IF;
    WITH written AS (
        INSERT INTO dispatcher.outcome (message_id, state, attempts, code, reason)
        SELECT id, 'accepted', 1, 'settled-by-operator', 'settled by an operator as sent'
        FROM unnest(lost) AS u (id)
        RETURNING message_id
    )
    SELECT array_agg(m.app), array_agg(m.id) INTO apps, lost
    FROM written w JOIN dispatcher.message m ON m.id = w.message_id;
    PERFORM dispatcher.count_event('settled', how, apps);
    PERFORM dispatcher.append_event('accepted', 'settled-by-operator', apps, lost);
    PERFORM dispatcher.append_message_audit(actor, 'settle', ids,
        format('%s of %s settled as sent', coalesce(cardinality(lost), 0),
            coalesce(cardinality(ids), 0)));
    RETURN coalesce(cardinality(lost), 0);
END $$;

-- Settle an unsure batch; return how many messages it settled, and null if no unsure batch has the
-- token. No audit: for settle() and message_action_step().
CREATE FUNCTION dispatcher.settle_unsure(token text, how text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    settled dispatcher.batch;
    ids bigint[];
    messages integer;
BEGIN
    IF how IS NULL OR how NOT IN ('sent', 'resend') THEN
        RAISE EXCEPTION 'settle takes ''sent'' or ''resend'', not %', quote_nullable(how)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE dispatcher.batch b
    SET state = 'closed', closed_at = clock_timestamp(), settled_by = 'operator: ' || how
    WHERE b.token = settle_unsure.token AND b.state = 'unsure'
    RETURNING b.* INTO settled;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF how = 'sent' THEN
        WITH written AS (
            INSERT INTO dispatcher.outcome (message_id, state, attempts, batch_id, code, reason)
            SELECT u.id, 'accepted', u.attempt, settled.id, 'settled-by-operator',
                'settled by an operator as sent'
            FROM unnest(settled.message_ids, settled.attempts) AS u (id, attempt)
            WHERE u.id = ANY (coalesce(settled.unsure_ids, settled.message_ids))
            ON CONFLICT (message_id) DO NOTHING
            RETURNING message_id
        )
        SELECT array_agg(message_id) INTO ids FROM written;
    ELSE
        WITH waiting AS (
            INSERT INTO dispatcher.queue
                (id, app, priority, due_at, attempt, requeued, last_batch, code, campaign,
                waits_since)
            SELECT m.id, m.app, m.priority, clock_timestamp(), u.attempt,
                m.id = ANY (settled.requeued_ids), settled.id, 'settled-by-operator', m.campaign,
                clock_timestamp()
            FROM unnest(settled.message_ids, settled.attempts) AS u (id, attempt)
            JOIN dispatcher.message m ON m.id = u.id
            WHERE u.id = ANY (coalesce(settled.unsure_ids, settled.message_ids))
              AND NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id)
            ON CONFLICT (id) DO NOTHING  -- loaded with the trigger on: it waits
            RETURNING id
        )
        SELECT array_agg(id) INTO ids FROM waiting;
    END IF;
    messages := coalesce(cardinality(ids), 0);
    PERFORM dispatcher.count_event('settled', how, array_fill(settled.app, ARRAY[messages]));
    PERFORM dispatcher.append_event(CASE how WHEN 'sent' THEN 'accepted' ELSE 'requeued' END,
        'settled-by-operator', array_fill(settled.app, ARRAY[messages]), ids);
    RETURN messages;
END $$;

-- Settle an unsure batch by hand; return how many messages it settled. 'sent': they were sent;
-- 'resend': they were not, and return to the queue. Raises no_data_found if no unsure batch has
-- the token.
CREATE FUNCTION dispatcher.settle(token text, how text, actor text DEFAULT session_user)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    messages integer := dispatcher.settle_unsure(token, how);
BEGIN
    IF messages IS NULL THEN
        RAISE EXCEPTION 'no unsure batch has the token %', quote_nullable(token)
            USING ERRCODE = 'no_data_found',
                  HINT = 'It may be settled already: see dispatcher.message_status.batch_token.';
    END IF;
    PERFORM dispatcher.append_audit(actor, 'settle', 'batch ' || token, how,
        messages || CASE how WHEN 'sent' THEN ' taken as sent' ELSE ' wait again' END);
    RETURN messages;
END $$;

-- Start an action on many messages that was previewed, and write its one entry of the audit; return
-- whether this call started it.
CREATE FUNCTION dispatcher.start_message_action(id bigint, actor text DEFAULT session_user)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    started dispatcher.message_action;
BEGIN
    UPDATE dispatcher.message_action a SET started_at = clock_timestamp(), started_by = actor,
        finished_at = CASE WHEN a.targets = '{}' THEN clock_timestamp() END
    WHERE a.id = start_message_action.id AND a.started_at IS NULL
    RETURNING a.* INTO started;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM dispatcher.append_audit(actor, started.action,
        CASE started.messages WHEN 1 THEN '1 message'
            ELSE to_char(started.messages, 'FM999,999,999,990') || ' messages' END,
        started.filter, 'started as action ' || started.id);
    RETURN true;
END $$;

-- Do the next part of a started action, at most 2,000 messages; return whether more is left. One
-- transaction: what is done is counted. Each message is checked anew, as for one.
CREATE FUNCTION dispatcher.message_action_step(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    work dispatcher.message_action;
    piece bigint[];
    changed_now integer := 0;
    settled text;
BEGIN
    SELECT * INTO work FROM dispatcher.message_action a
    WHERE a.id = message_action_step.id AND a.started_at IS NOT NULL AND a.finished_at IS NULL
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- A request has at most 500 messages.
    piece := work.targets[work.position + 1 : work.position
        + CASE WHEN work.action LIKE 'settle-%' THEN 4 ELSE 2000 END];
    CASE work.action
        WHEN 'cancel' THEN
            changed_now := dispatcher.cancel_queued(piece);
        WHEN 'requeue' THEN
            changed_now := dispatcher.requeue_finished(piece);
        WHEN 'suppress' THEN
            INSERT INTO dispatcher.suppression (recipient, reason)
            SELECT DISTINCT dispatcher.e164(m.recipient) AS recipient,
                'action ' || work.id || ' (' || work.started_by || ')'
            FROM dispatcher.message m
            WHERE m.id = ANY (piece) AND dispatcher.e164(m.recipient) ~ '^[+][0-9]{5,20}$'
              AND m.recipient <> '0'
            ORDER BY recipient
            ON CONFLICT (recipient, app, promotional) DO NOTHING;
            GET DIAGNOSTICS changed_now = ROW_COUNT;
        ELSE
            FOR settled IN
                SELECT b.token FROM dispatcher.batch b WHERE b.id = ANY (piece) ORDER BY b.id
            LOOP
                changed_now := changed_now + coalesce(
                    dispatcher.settle_unsure(settled, substring(work.action FROM 8)), 0);
            END LOOP;
    END CASE;
    UPDATE dispatcher.message_action a
    SET position = work.position + cardinality(piece),
        changed = work.changed + changed_now,
        finished_at = CASE WHEN work.position + cardinality(piece) >= cardinality(work.targets)
            THEN clock_timestamp() END
    WHERE a.id = work.id;
    RETURN work.position + cardinality(piece) < cardinality(work.targets);
END $$;

-- Campaigns -----------------------------------------------------------------------------------------

-- Set the state of a campaign; *detail* is what the audit has instead of the reason. What waits is not
-- touched: each claim reads which
-- campaigns are stopped, so it has effect at once for any number of them. One that was paused while it
-- was moved is moved to the end before it runs.
CREATE FUNCTION dispatcher.set_campaign_state(
    name text, state text, reason text, action text, actor text, detail text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before text;
    after text;
BEGIN
    SELECT c.state,
        CASE WHEN set_campaign_state.state = 'running' AND c.moved_id IS NOT NULL THEN 'moving'
            ELSE set_campaign_state.state END
    INTO before, after
    FROM dispatcher.campaign c
    WHERE c.name = set_campaign_state.name FOR UPDATE;
    IF before IS NULL THEN
        RAISE EXCEPTION 'there is no campaign %', name USING ERRCODE = 'no_data_found';
    ELSIF before = 'cancelled' AND set_campaign_state.state <> 'cancelled' THEN
        RAISE EXCEPTION 'campaign % is cancelled for good', name
            USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF before = 'moving' AND set_campaign_state.state = 'running' THEN
        RAISE EXCEPTION 'campaign % is being moved: it goes on when that is done', name
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    UPDATE dispatcher.campaign c
    SET state = after, reason = nullif(set_campaign_state.reason, ''),
        changed_by = actor, changed_at = clock_timestamp(),
        resumed_at = CASE WHEN action = 'resume' THEN clock_timestamp() ELSE c.resumed_at END
    WHERE c.name = set_campaign_state.name;
    PERFORM dispatcher.append_audit(
        actor, action, 'campaign ' || name, coalesce(detail, reason), after);
END $$;

-- Stop claiming messages of a campaign until resume_campaign().
CREATE FUNCTION dispatcher.pause_campaign(
    name text, reason text DEFAULT '', actor text DEFAULT session_user
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT dispatcher.set_campaign_state(name, 'paused', reason, 'pause', actor)
$$;

-- Claim messages of a campaign again.
CREATE FUNCTION dispatcher.resume_campaign(name text, actor text DEFAULT session_user)
RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT dispatcher.set_campaign_state(name, 'running', '', 'resume', actor)
$$;

-- Cancel a campaign: nothing of it is claimed any more, from now on. Its messages get their outcomes
-- in steps, by cancel_campaign_step(), which maintenance calls too.
CREATE FUNCTION dispatcher.cancel_campaign(
    name text, reason text DEFAULT '', actor text DEFAULT session_user
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT dispatcher.set_campaign_state(name, 'cancelled', reason, 'cancel', actor)
$$;

-- Write the outcomes of up to *step* messages that wait in cancelled campaigns; return how many. Rows
-- that another session works on are left for the next call, and so are all of an app in which
-- another one cancels: with rows locked, this must not wait for it. Whole bulk rows first.
CREATE FUNCTION dispatcher.cancel_campaign_step(step integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stopped text[] := ARRAY(SELECT c.name FROM dispatcher.campaign c WHERE c.state = 'cancelled');
    free integer[] := ARRAY(
        WITH RECURSIVE waiting AS (
            (SELECT q.app FROM dispatcher.queue q ORDER BY q.app LIMIT 1)
            UNION ALL
            SELECT (SELECT q.app FROM dispatcher.queue q WHERE q.app > w.app ORDER BY q.app LIMIT 1)
            FROM waiting w WHERE w.app IS NOT NULL
        )
        SELECT a.app FROM (
            SELECT hashtext(b.app) AS app FROM dispatcher.bulk b
            WHERE b.campaign = ANY (stopped)
            UNION SELECT hashtext(w.app) FROM waiting w
            WHERE EXISTS (
                SELECT FROM dispatcher.queue q WHERE q.campaign = ANY (stopped) AND q.app = w.app)
        ) AS a
        WHERE pg_try_advisory_xact_lock(hashtext('dispatcher.cancel'), a.app));
BEGIN
    RETURN (
        WITH together AS (
            SELECT b.ids FROM dispatcher.bulk b
            WHERE b.campaign = ANY (stopped) AND hashtext(b.app) = ANY (free)
            LIMIT (step + 499) / 500
            FOR UPDATE SKIP LOCKED
        ), alone AS (
            SELECT q.id FROM dispatcher.queue q
            WHERE q.campaign = ANY (stopped) AND hashtext(q.app) = ANY (free)
            LIMIT step
            FOR UPDATE SKIP LOCKED
        )
        SELECT dispatcher.cancel_queued(ARRAY(
            SELECT u.id FROM together t
            CROSS JOIN LATERAL unnest(t.ids) AS range
            CROSS JOIN LATERAL generate_series(lower(range), upper(range) - 1) AS u (id)
            UNION ALL
            SELECT a.id FROM alone a
            LIMIT step
        )));
END $$;

-- Return the transactions that change the queue at this moment. One that has begun to claim before a
-- campaign was stopped is among them: a statement locks its tables before it sees which campaigns are
-- stopped.
CREATE FUNCTION dispatcher.changing_queue() RETURNS text[]
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{}') FROM pg_locks l
    WHERE l.relation IN ('dispatcher.queue'::regclass, 'dispatcher.bulk'::regclass)
      AND l.mode = 'RowExclusiveLock'
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.pid <> pg_backend_pid()
$$;

-- Move what waits of a campaign to another time, each message *wait* seconds after the one before, or
-- to another priority. From now on nothing of it is claimed, until move_campaign_step(), which
-- maintenance calls too, has moved all.
CREATE FUNCTION dispatcher.move_campaign(
    name text, send_at timestamptz DEFAULT NULL, wait double precision DEFAULT 0,
    priority integer DEFAULT NULL, actor text DEFAULT session_user
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before dispatcher.campaign;
BEGIN
    IF send_at IS NULL AND priority IS NULL OR wait < 0 OR priority NOT BETWEEN 0 AND 9 THEN
        RAISE EXCEPTION 'a move needs a time, or a priority of 0 to 9'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF send_at >= '3000-01-01 00:00+00' OR wait > 366 * 86400 THEN
        RAISE EXCEPTION 'a move is to a time before the year 3000, with waits of at most 366 days'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO before FROM dispatcher.campaign c WHERE c.name = move_campaign.name FOR UPDATE;
    PERFORM dispatcher.set_campaign_state(name,
        CASE before.state WHEN 'paused' THEN 'paused' ELSE 'moving' END, before.reason, 'move', actor,
        concat_ws(', ',
            'to ' || to_char(send_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC',
            CASE WHEN wait > 0 THEN trim_scale(round(wait::numeric, 3)) || ' s apart' END,
            'priority ' || priority));
    UPDATE dispatcher.campaign c
    SET move_to = greatest(send_at, CASE WHEN send_at IS NOT NULL THEN clock_timestamp() END),
        move_wait = wait, move_priority = priority, move_waits = NULL, moved_id = c.first_id - 1,
        moved = 0
    WHERE c.name = move_campaign.name;
END $$;

-- Move bulk rows of a campaign to its time and priority, as a whole; return how many messages.
CREATE FUNCTION dispatcher.move_bulk(c dispatcher.campaign, step integer) RETURNS integer
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH gone AS (
        DELETE FROM dispatcher.bulk WHERE first_id = ANY (ARRAY(
            SELECT b.first_id FROM dispatcher.bulk b
            WHERE b.campaign = c.name AND (b.due_at <> c.move_to OR b.priority <> c.move_priority)
            ORDER BY b.first_id LIMIT step FOR UPDATE
        ))
        RETURNING *
    ), moved AS (
        INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at, campaign)
        SELECT first_id, ids, size, app, coalesce(c.move_priority, priority),
            coalesce(c.move_to, due_at), campaign
        FROM gone
        RETURNING size
    )
    SELECT coalesce(sum(size), 0)::integer FROM moved
$$;

-- Let the messages of the first bulk rows of a campaign, some *step*, wait alone.
CREATE FUNCTION dispatcher.open_bulk(campaign text, step integer) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH opened AS (
        DELETE FROM dispatcher.bulk WHERE first_id = ANY (ARRAY(
            SELECT b.first_id FROM dispatcher.bulk b WHERE b.campaign = open_bulk.campaign
            ORDER BY b.first_id LIMIT (step + 499) / 500 FOR UPDATE
        ))
        RETURNING *
    )
    INSERT INTO dispatcher.queue (id, app, priority, due_at, campaign)
    SELECT u.id, o.app, o.priority, o.due_at, o.campaign
    FROM opened o
    CROSS JOIN LATERAL unnest(o.ids) AS range
    CROSS JOIN LATERAL generate_series(lower(range), upper(range) - 1) AS u (id)
    ON CONFLICT (id) DO NOTHING  -- loaded with the trigger on: it waits
$$;

-- Move up to *step* messages of one campaign that is to be moved; return how many. A claim that began
-- before may return some of what it took, and an insert may commit lower ids: nothing moves until such
-- transactions are over, and 0 is returned. One of more than a minute is no claim, and is not waited for.
-- Its messages are read in the order of their ids, by the primary key, so that each step begins where
-- the last ended. Bulk rows move as a whole, up to *step* of them, if their messages are all due at one
-- time. If each is due at a time of its own, they wait alone first, as far as a step comes.
CREATE FUNCTION dispatcher.move_campaign_step(step integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off AS $$
DECLARE
    c dispatcher.campaign;
    waits text[];  -- for these transactions
    together integer := 0;
    before bigint;  -- the first message that still waits in a bulk row
    ids bigint[];
    found integer;
    more boolean;
BEGIN
    SELECT * INTO c FROM dispatcher.campaign m
    WHERE m.moved_id IS NOT NULL AND m.state <> 'cancelled'
    ORDER BY coalesce(m.move_waits <> '{}', false), m.name LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF c.name IS NULL THEN
        RETURN 0;
    END IF;
    IF c.move_waits IS DISTINCT FROM '{}' THEN
        waits := dispatcher.changing_queue();
        IF c.move_waits IS NOT NULL THEN
            waits := ARRAY(SELECT unnest(c.move_waits) INTERSECT SELECT unnest(waits) ORDER BY 1);
        END IF;
        IF c.changed_at < clock_timestamp() - interval '1 minute' THEN
            waits := '{}';
        END IF;
        IF waits IS DISTINCT FROM c.move_waits THEN
            UPDATE dispatcher.campaign m SET move_waits = waits WHERE m.name = c.name;
        END IF;
        IF waits <> '{}' THEN
            RETURN 0;
        END IF;
    END IF;
    IF c.move_wait = 0 THEN
        together := dispatcher.move_bulk(c, step);
    ELSE
        PERFORM dispatcher.open_bulk(c.name, step);
        before := (SELECT min(b.first_id) FROM dispatcher.bulk b WHERE b.campaign = c.name);
    END IF;
    ids := ARRAY(
        SELECT q.id FROM dispatcher.queue q
        WHERE q.id > c.moved_id AND q.campaign = c.name AND q.id < coalesce(before, q.id + 1)
        ORDER BY q.id LIMIT step FOR UPDATE
    );
    found := cardinality(ids);
    -- A claim that was waited for may have left a bulk row.
    more := found = step OR EXISTS (
        SELECT FROM dispatcher.bulk b WHERE b.campaign = c.name AND (
            c.move_wait > 0 OR b.due_at <> c.move_to OR b.priority <> c.move_priority));
    UPDATE dispatcher.queue q
    -- No wait is longer than 4,000 years: after the year 9999 no time can be read.
    SET due_at = coalesce(c.move_to + make_interval(
            secs => least(c.move_wait * (c.moved + u.place - 1), 4000 * 365.0 * 86400)), q.due_at),
        priority = coalesce(c.move_priority, q.priority),
        -- What was moved to a later time is no wait by a clock ahead: end_clock_waits() leaves it.
        waits_since = CASE WHEN c.move_to IS NULL THEN q.waits_since
            WHEN c.move_to <= clock_timestamp() THEN c.move_to ELSE '-infinity' END,
        -- It waits for that time, and for nothing that the end of a pause ends.
        code = CASE WHEN c.move_to IS NULL THEN q.code END
    FROM unnest(ids) WITH ORDINALITY AS u (id, place)
    WHERE q.id = u.id AND q.id = ANY (ids);
    UPDATE dispatcher.campaign m
    SET moved = c.moved + found + together,
        moved_id = CASE WHEN more THEN coalesce(ids[found], c.moved_id) END,
        state = CASE WHEN NOT more AND m.state = 'moving' THEN 'running' ELSE m.state END
    WHERE m.name = c.name;
    RETURN found + together;
END $$;

-- Pause each of *apps* that has had more messages accepted within an hour than *factors* times the
-- busiest hour of its last 30 days, and more than *enough*; return how many. Not an app whose history
-- is shorter than a day, and none again within a day: who resumes it has looked.
CREATE FUNCTION dispatcher.brake_spikes(
    apps text[], factors double precision[], enough integer DEFAULT 1000
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    spike record;
    braked integer := 0;
BEGIN
    FOR spike IN
        SELECT a.name, recent.accepted, usual.accepted AS most
        FROM unnest(apps, factors) AS u (name, factor)
        JOIN dispatcher.app a ON a.name = u.name
        CROSS JOIN LATERAL (
            SELECT sum(c.count) AS accepted FROM dispatcher.event_count c
            WHERE c.app = u.name AND c.event = 'accepted'
              AND c.minute BETWEEN now() - interval '1 hour' AND now()
        ) AS recent
        CROSS JOIN LATERAL (
            SELECT max(h.accepted) AS accepted, min(h.hour) AS since FROM (
                SELECT date_trunc('hour', c.at) AS hour, sum(c.count) AS accepted
                FROM (
                    SELECT e.app, e.event, e.minute AS at, e.count FROM dispatcher.event_count e
                    UNION ALL
                    SELECT o.app, o.event, o.hour, o.count FROM dispatcher.hour_count o
                ) AS c
                WHERE c.app = u.name AND c.event = 'accepted'
                  AND c.at BETWEEN now() - interval '30 days' AND now() - interval '1 hour'
                GROUP BY 1
            ) AS h
        ) AS usual
        WHERE recent.accepted > greatest(enough, usual.accepted * u.factor)
          AND usual.since < now() - interval '1 day'
          AND a.paused_at IS NULL
          -- A time that lies ahead was written by a clock that was ahead.
          AND (a.braked_at BETWEEN now() - interval '1 day' AND now()) IS NOT TRUE
        FOR UPDATE OF a
    LOOP
        PERFORM dispatcher.pause(spike.name, format(
            '%s messages accepted in an hour, and at most %s in any hour of the last 30 days',
            spike.accepted, spike.most), 'spike brake');
        UPDATE dispatcher.app a SET braked_at = clock_timestamp(), pause_code = 'spike'
        WHERE a.name = spike.name;
        braked := braked + 1;
    END LOOP;
    RETURN braked;
END $$;

-- Pause each running campaign of which so many messages failed as its stop_at says; return how many.
-- Of fewer than *enough* finished messages no share is taken. Of a campaign that a person has resumed,
-- what has its result since then counts: the cause may be mended. Reads the messages of campaigns that
-- have a stop_at and that still wait. It joins whole tables, as the count of a campaign does: a look-up of
-- each in message_status took a minute or two for a million.
CREATE FUNCTION dispatcher.stop_campaigns(enough integer DEFAULT 100) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan SET jit = off AS $$
DECLARE
    watched record;
    counted record;
    stopped integer := 0;
BEGIN
    FOR watched IN
        SELECT c.name, c.stop_at, c.first_id,
            -- A time that lies ahead was written by a clock that was ahead.
            CASE WHEN c.resumed_at <= clock_timestamp() THEN c.resumed_at ELSE '-infinity' END AS since
        FROM dispatcher.campaign c
        WHERE c.state = 'running' AND c.stop_at IS NOT NULL
          AND (EXISTS (SELECT FROM dispatcher.queue q WHERE q.campaign = c.name)
            OR EXISTS (SELECT FROM dispatcher.bulk b WHERE b.campaign = c.name))
    LOOP
        WITH finished AS MATERIALIZED (
            SELECT o.state, o.provider_id
            FROM dispatcher.message m JOIN dispatcher.outcome o ON o.message_id = m.id
            WHERE m.id >= watched.first_id AND m.campaign = watched.name
              AND o.message_id >= watched.first_id AND o.state IN ('accepted', 'rejected')
              AND o.created_at >= watched.since
        )
        SELECT (SELECT count(*) FROM finished f WHERE f.state = 'rejected')
            + (SELECT count(*) FROM finished f WHERE f.state = 'accepted' AND EXISTS (
                SELECT FROM dispatcher.report r
                WHERE r.provider_id = f.provider_id AND r.state = 'undelivered')) AS failed,
            (SELECT count(*) FROM finished) AS finished
        INTO counted;
        CONTINUE WHEN counted.finished < enough
            OR counted.failed < watched.stop_at * counted.finished;
        PERFORM dispatcher.set_campaign_state(watched.name, 'paused',
            format('%s of %s finished messages were rejected or undelivered: over its limit of %s%%',
                counted.failed, counted.finished, round((watched.stop_at * 100)::numeric, 1)),
            'pause', 'stop-at');
        stopped := stopped + 1;
    END LOOP;
    RETURN stopped;
END $$;

-- Requeue up to *step* rejected or expired messages of a campaign with ids over *after*; return the
-- last id that was looked at (null: there are no more), and how many wait again. Raises
-- object_not_in_prerequisite_state if the campaign is cancelled.
CREATE FUNCTION dispatcher.requeue_campaign_step(
    name text, after bigint, step integer, actor text DEFAULT session_user,
    OUT last_id bigint, OUT requeued integer
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids bigint[];
BEGIN
    IF EXISTS (SELECT FROM dispatcher.campaign c
        WHERE c.name = requeue_campaign_step.name AND c.state = 'cancelled')
    THEN
        RAISE EXCEPTION 'campaign % is cancelled for good', name
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT array_agg(id ORDER BY id) INTO ids FROM (
        SELECT m.id
        FROM dispatcher.campaign c
        JOIN dispatcher.message m ON m.id >= greatest(c.first_id, after + 1) AND m.campaign = c.name
        JOIN dispatcher.outcome o ON o.message_id = m.id AND o.state IN ('rejected', 'expired')
        WHERE c.name = requeue_campaign_step.name
        ORDER BY m.id LIMIT step
    ) AS found;
    last_id := ids[cardinality(ids)];
    requeued := CASE WHEN ids IS NULL THEN 0 ELSE dispatcher.requeue(ids, actor) END;
END $$;

-- Requeue all rejected or expired messages of a campaign; return how many.
CREATE FUNCTION dispatcher.requeue_campaign(name text, actor text DEFAULT session_user)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    total bigint := 0;
    after bigint := 0;
    done record;
BEGIN
    LOOP
        SELECT * INTO done FROM dispatcher.requeue_campaign_step(name, after, 10000, actor);
        total := total + done.requeued;
        EXIT WHEN done.last_id IS NULL;
        after := done.last_id;
    END LOOP;
    RETURN total;
END $$;

-- Return how many unsure batches, with how many messages without an outcome, these conditions choose;
-- null leaves a condition out.
CREATE FUNCTION dispatcher.count_unsure(
    app text, code text, since timestamptz, until timestamptz,
    OUT batches integer, OUT messages integer
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*),
        coalesce(sum(dispatcher.count_in_question(coalesce(b.unsure_ids, b.message_ids))), 0)
    FROM dispatcher.batch b
    WHERE b.state = 'unsure'
      AND (count_unsure.app IS NULL OR b.app = count_unsure.app)
      AND (count_unsure.code IS NULL OR b.code = count_unsure.code)
      AND (since IS NULL OR b.unsure_at >= since)
      AND (until IS NULL OR b.unsure_at < until)
$$;

-- Settle unsure batches that these conditions choose, at most 1,000, each as settle() does; return
-- how many. Call it until it settles no batch, each time in a transaction of its own.
CREATE FUNCTION dispatcher.settle_batches(
    app text, code text, since timestamptz, until timestamptz, how text,
    actor text DEFAULT session_user, OUT batches integer, OUT messages integer
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    token text;
BEGIN
    batches := 0;
    messages := 0;
    FOR token IN
        SELECT b.token FROM dispatcher.batch b
        WHERE b.state = 'unsure'
          AND (settle_batches.app IS NULL OR b.app = settle_batches.app)
          AND (settle_batches.code IS NULL OR b.code = settle_batches.code)
          AND (since IS NULL OR b.unsure_at >= since)
          AND (until IS NULL OR b.unsure_at < until)
        ORDER BY b.id LIMIT 1000
        FOR UPDATE SKIP LOCKED
    LOOP
        messages := messages + dispatcher.settle(token, how, actor);
        batches := batches + 1;
    END LOOP;
END $$;

-- Apps ----------------------------------------------------------------------------------------------

-- Stop claiming for an app until resume(); no probe ends an operator's pause.
CREATE FUNCTION dispatcher.pause(app text, reason text, actor text DEFAULT session_user)
RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO dispatcher.app AS a (name, paused_at, pause_reason, paused_by)
    VALUES (pause.app, clock_timestamp(),
        coalesce(nullif(pause.reason, ''), 'no reason given') || ' (' || pause.actor || ')',
        'operator')
    ON CONFLICT (name) DO UPDATE SET paused_at = coalesce(a.paused_at, excluded.paused_at),
        pause_reason = excluded.pause_reason, pause_code = NULL, paused_by = 'operator',
        probe_at = NULL, probe_wait = NULL, probe_max = NULL;
    SELECT dispatcher.append_audit(pause.actor, 'pause', pause.app, pause.reason, 'paused')
$$;

-- Make due now what waits for a country's quota, at most *most* messages; return how many. A country
-- waits for an hour at most. Nothing, if a country is paused.
CREATE FUNCTION dispatcher.end_country_waits(app text, most integer DEFAULT 20000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at timestamptz := clock_timestamp();
    ended bigint;
BEGIN
    UPDATE dispatcher.queue SET due_at = at, waits_since = at
    WHERE ctid = ANY (ARRAY(
        SELECT q.ctid FROM dispatcher.queue q
        WHERE q.app = end_country_waits.app AND q.priority IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
          AND q.due_at > at AND q.due_at < at + interval '61 minutes' AND q.code = 'E000630'
          AND NOT EXISTS (
            SELECT FROM dispatcher.country_pause c WHERE c.app = end_country_waits.app)
        LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

-- Make due now, at most 5,000 of them, what waits because it was refused, and give the attempt back
-- where it was counted, or a message could be sent more often than its attempts allow; return how many.
-- A pause of the app has ended: the refusals may have been of the app, and not of the message. Not what
-- waits for a time that was told: flow control, a template, a quota.
-- *by_message*: the answer to another message has ended the pause. Then attempts stay counted, and only
-- first refusals are due: or a message that is refused for itself, and so pauses the app, would be sent
-- again after each pause, without end.
-- *before*: only what waits since before that time. A call for the others after the first 5,000 leaves
-- what was refused meanwhile.
CREATE FUNCTION dispatcher.end_refusal_waits(
    app text, by_message boolean DEFAULT false, before timestamptz DEFAULT 'infinity'
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at timestamptz := clock_timestamp();
    ended bigint;
BEGIN
    UPDATE dispatcher.queue w
    SET due_at = at, waits_since = at, attempt = w.attempt - CASE WHEN by_message THEN 0 ELSE coalesce((
        SELECT (b.attempts[array_position(b.message_ids, w.id)] = w.attempt)::integer
        FROM dispatcher.batch b WHERE b.id = w.last_batch), 0) END
    WHERE ctid = ANY (ARRAY(
        SELECT q.ctid FROM dispatcher.queue q
        WHERE q.app = end_refusal_waits.app AND q.code IS NOT NULL AND q.due_at > at
          AND q.code ~ '^[[:upper:]]'
          AND q.code NOT IN ('E200015', 'E200030', 'E000623', 'E000630')
          AND (q.attempt <= 1 OR NOT by_message)
          AND (q.waits_since >= before) IS NOT TRUE
        LIMIT 5000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

-- End what waits by a clock which was ahead of this one. Messages and bulk rows that it inserted to be due
-- at once are due now; what it returned to the queue waits from now on as long as it was to wait then, which
-- is not at all for most, but at least until its own time, or that to which its campaign was moved. It looks
-- at the next *most* rows *after* an id; returns how many it changed, and the last id, null at the end. The
-- first step also counts the silence of unsure requests from now on, if they became so by that clock.
CREATE FUNCTION dispatcher.end_clock_waits(
    after bigint DEFAULT 0, most integer DEFAULT 20000, OUT ended bigint, OUT last bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at timestamptz := clock_timestamp();
    later bigint[];
    together bigint;
BEGIN
    IF after = 0 THEN
        UPDATE dispatcher.batch SET unsure_at = at
        WHERE id = ANY (ARRAY(
            SELECT b.id FROM dispatcher.batch b
            WHERE b.state = 'unsure' AND b.unsure_at > at FOR UPDATE SKIP LOCKED));
    END IF;
    SELECT array_agg(w.id) FILTER (WHERE w.due_at > at AND (w.waits_since > at) IS NOT FALSE),
        CASE WHEN count(*) = most THEN max(w.id) END
    INTO later, last
    FROM (
        (SELECT q.id, q.due_at, q.waits_since FROM dispatcher.queue q
        WHERE q.id > after ORDER BY q.id LIMIT most)
        UNION ALL
        (SELECT b.first_id, b.due_at, NULL FROM dispatcher.bulk b
        WHERE b.first_id > after ORDER BY b.first_id LIMIT most)
        ORDER BY id LIMIT most
    ) AS w;
    UPDATE dispatcher.queue w
    SET waits_since = at, (due_at, code) = (
        SELECT greatest(t.waited, t.told), CASE WHEN t.told > t.waited THEN NULL ELSE w.code END
        FROM (
            SELECT at + greatest(w.due_at - w.waits_since, '0') AS waited, greatest((
                SELECT m.send_at FROM dispatcher.message m
                WHERE m.id = w.id AND m.send_at > m.queued_at
            ), (
                SELECT c.move_to FROM dispatcher.campaign c
                WHERE c.name = w.campaign AND c.changed_at <= at
            )) AS told
        ) AS t)
    WHERE ctid = ANY (ARRAY(
        SELECT q.ctid FROM dispatcher.queue q
        LEFT JOIN dispatcher.message m ON m.id = q.id AND m.id = ANY (later)
        WHERE q.id = ANY (later) AND q.due_at > at
          AND CASE WHEN q.waits_since IS NULL
            THEN m.queued_at > at AND m.send_at <= m.queued_at AND q.due_at >= m.queued_at
              AND q.due_at < m.queued_at + interval '10 minutes'  -- the longest insert, about
            ELSE q.waits_since > at END
        FOR UPDATE OF q SKIP LOCKED));
    GET DIAGNOSTICS ended = ROW_COUNT;
    WITH gone AS (
        DELETE FROM dispatcher.bulk
        WHERE first_id = ANY (ARRAY(
            SELECT b.first_id FROM dispatcher.bulk b JOIN dispatcher.message m ON m.id = b.first_id
            WHERE b.first_id = ANY (later) AND m.id = ANY (later)
              AND b.due_at > at AND m.queued_at > at AND m.send_at <= m.queued_at
              AND b.due_at < m.queued_at + interval '10 minutes'
              AND b.due_at IS DISTINCT FROM (
                SELECT c.move_to FROM dispatcher.campaign c
                WHERE c.name = b.campaign AND c.changed_at <= at)
            FOR UPDATE OF b SKIP LOCKED))
        RETURNING *
    )
    INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at, campaign)
    SELECT first_id, ids, size, app, priority, at, campaign FROM gone;
    GET DIAGNOSTICS together = ROW_COUNT;
    ended := ended + together;
END $$;

-- Claim for an app again, and for all its countries. Of a million messages that wait for a country, or
-- because they were refused, the first are due at once: end_country_waits() and end_refusal_waits(),
-- each called until it returns 0, make the others due.
CREATE FUNCTION dispatcher.resume(app text, actor text DEFAULT session_user) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- It waits for claims that have read pauses of countries, and for results that bring one: the
    -- statements below see what those postponed.
    UPDATE dispatcher.app SET paused_at = NULL, pause_reason = NULL, pause_code = NULL,
        paused_by = NULL, probe_at = NULL, probe_wait = NULL, probe_max = NULL,
        next_at = least(next_at, clock_timestamp()),
        resumed_at = clock_timestamp(), pause_ended_at = clock_timestamp(), report_refusals = 0,
        unknown_streak = 0, refused_texts = '{}',
        slow_start = CASE WHEN paused_by = 'worker' THEN 1 ELSE slow_start END,
        slow_start_left = CASE WHEN paused_by = 'worker' THEN 1 ELSE slow_start_left END,
        slow_start_answered = CASE WHEN paused_by = 'worker' THEN 0 ELSE slow_start_answered END
    WHERE name = resume.app;
    PERFORM dispatcher.end_refusal_waits(resume.app);
    DELETE FROM dispatcher.country_pause c WHERE c.app = resume.app;
    IF FOUND THEN
        PERFORM dispatcher.end_country_waits(resume.app);
    END IF;
    PERFORM dispatcher.append_audit(resume.actor, 'resume', resume.app, '', 'resumed');
END $$;

-- Return when an app's next grant may be sent, from what is stored. A time further ahead than grants
-- reach was written by a clock that was ahead of this one: it counts for nothing, or nothing would be
-- sent until then.
CREATE FUNCTION dispatcher.next_grant_at(stored timestamptz, rate double precision)
RETURNS timestamptz
LANGUAGE sql VOLATILE
RETURN CASE WHEN stored > clock_timestamp() + make_interval(secs => 15 + 15 / rate)
    THEN clock_timestamp() ELSE stored END;

-- Return whether a paused app is to be probed. A time further ahead than probes wait was written by a
-- clock that was ahead of this one, as of a server that is no primary any more. A spent quota waits for midnight.
CREATE FUNCTION dispatcher.is_probe_due(
    probe_at timestamptz, probe_wait interval, probe_max interval, pause_code text
) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN probe_at <= clock_timestamp() OR probe_at > clock_timestamp() + CASE
    WHEN pause_code IN ('E000623', 'daily-limit') THEN interval '25 hours'
    ELSE interval '5 minutes' + greatest(probe_wait, probe_max, interval '0') END;

-- Return whether the load of a list waits for a worker, because it was not asked for just now and no worker
-- that lives has been here since, or since it went on. In a restored database it may have been loaded after
-- the backup; a worker that sees the restore ends it before its first heartbeat there.
CREATE FUNCTION dispatcher.is_load_held(asked_at timestamptz, worked_at timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN asked_at < clock_timestamp() - interval '10 seconds' AND NOT EXISTS (
    SELECT FROM dispatcher.worker w
    WHERE w.heartbeat_at BETWEEN greatest(worked_at, asked_at, clock_timestamp() - w.lease)
        AND clock_timestamp());

-- Rules ---------------------------------------------------------------------------------------------

-- Return what a suppression stops, in words: the empty text if it stops everything. In the words of
-- core.rules.describe_scope.
CREATE FUNCTION dispatcher.suppression_scope(app text, promotional boolean) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN promotional THEN 'promotion' WHEN app <> '' THEN 'everything' ELSE '' END
        || CASE WHEN app <> '' THEN ' of ' || app WHEN promotional THEN ' of every app' ELSE '' END
$$;

-- Never send to *numbers* any more; return how many are new. *app* and *promotional* narrow it: to
-- messages of one app, to promotional ones. The audit has no number. Warns of an app that no worker and
-- no operator has named so far: if its name is misspelt, nothing is stopped.
CREATE FUNCTION dispatcher.suppress(
    numbers text[], reason text DEFAULT '', app text DEFAULT '', promotional boolean DEFAULT false,
    actor text DEFAULT session_user
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    added integer;
BEGIN
    IF app <> '' AND NOT EXISTS (SELECT FROM dispatcher.app a WHERE a.name = suppress.app) THEN
        RAISE WARNING 'There is no app % so far: only messages of an app with this name are stopped.', app;
    END IF;
    INSERT INTO dispatcher.suppression (recipient, app, promotional, reason)
    SELECT DISTINCT dispatcher.given_number(n) AS recipient, suppress.app, suppress.promotional,
        suppress.reason
    FROM unnest(numbers) AS n ORDER BY recipient
    ON CONFLICT ON CONSTRAINT suppression_pkey DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    PERFORM dispatcher.append_audit(actor, 'suppress',
        concat_ws(': ', nullif(dispatcher.suppression_scope(app, promotional), ''),
            dispatcher.numbers_in_words(cardinality(numbers))), reason,
        dispatcher.numbers_in_words(added) || ' new');
    RETURN added;
END $$;

-- Send to *numbers* again; return how many were suppressed. With *app* or *promotional* only what was
-- suppressed so.
CREATE FUNCTION dispatcher.unsuppress(
    numbers text[], app text DEFAULT '', promotional boolean DEFAULT false,
    actor text DEFAULT session_user
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    freed integer;
BEGIN
    WITH gone AS (
        DELETE FROM dispatcher.suppression s
        WHERE s.recipient = ANY (ARRAY(SELECT dispatcher.e164(n) FROM unnest(numbers) AS n))
          AND (unsuppress.app = '' AND NOT unsuppress.promotional
            OR s.app = unsuppress.app AND s.promotional = unsuppress.promotional)
        RETURNING s.recipient
    )
    SELECT count(DISTINCT recipient) INTO freed FROM gone;
    PERFORM dispatcher.append_audit(actor, 'unsuppress',
        concat_ws(': ', nullif(dispatcher.suppression_scope(app, promotional), ''),
            dispatcher.numbers_in_words(cardinality(numbers))), '',
        dispatcher.numbers_in_words(freed) || ' freed');
    RETURN freed;
END $$;

-- Define what variables a template takes, or define it anew; its text serves to count segments.
-- *promotional*: whether its messages are; null: as it was, at first as the app says.
CREATE FUNCTION dispatcher.define_template(
    template_id text, kinds text[], note text DEFAULT '', text text DEFAULT NULL,
    promotional boolean DEFAULT NULL, actor text DEFAULT session_user
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO dispatcher.template (template_id, kinds, note, text, promotional)
    VALUES (template_id, kinds, note, text, promotional)
    ON CONFLICT (template_id) DO UPDATE
    SET kinds = excluded.kinds, note = excluded.note, text = excluded.text,
        promotional = coalesce(excluded.promotional, template.promotional);
    SELECT dispatcher.append_audit(actor, 'template', template_id,
        coalesce(nullif(array_to_string(kinds, ', '), ''), 'no variables')
            || CASE WHEN promotional THEN '; promotional' WHEN NOT promotional
                THEN '; not promotional' ELSE '' END, 'defined')
$$;

-- Check the variables of a template no more; return whether there was one.
CREATE FUNCTION dispatcher.drop_template(template_id text, actor text DEFAULT session_user)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    removed boolean;
BEGIN
    DELETE FROM dispatcher.template t WHERE t.template_id = drop_template.template_id;
    removed := FOUND;
    PERFORM dispatcher.append_audit(actor, 'template', drop_template.template_id, '',
        CASE WHEN removed THEN 'removed' ELSE 'there is no such template' END);
    RETURN removed;
END $$;

-- Set the limits of an app, all at once; null: not limited.
CREATE FUNCTION dispatcher.set_limits(
    app text,
    per_minute integer DEFAULT NULL,
    per_day integer DEFAULT NULL,
    same_per_minute integer DEFAULT NULL,
    same_per_hour integer DEFAULT NULL,
    daily_limit bigint DEFAULT NULL,
    quiet_from time DEFAULT NULL,
    quiet_until time DEFAULT NULL,
    actor text DEFAULT session_user
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF num_nonnulls(per_minute, per_day, same_per_minute, same_per_hour, daily_limit, quiet_from,
        quiet_until) = 0
    THEN
        DELETE FROM dispatcher.app_limit l WHERE l.app = set_limits.app;
    ELSE
        INSERT INTO dispatcher.app_limit VALUES (app, per_minute, per_day, same_per_minute,
            same_per_hour, daily_limit, quiet_from, quiet_until)
        ON CONFLICT ON CONSTRAINT app_limit_pkey DO UPDATE SET per_minute = excluded.per_minute,
            per_day = excluded.per_day, same_per_minute = excluded.same_per_minute,
            same_per_hour = excluded.same_per_hour, daily_limit = excluded.daily_limit,
            quiet_from = excluded.quiet_from, quiet_until = excluded.quiet_until;
    END IF;
    -- In the words of core.rules.describe_limits.
    PERFORM dispatcher.append_audit(actor, 'limit', app,
        coalesce(nullif(concat_ws(', ',
            to_char(per_minute, 'FM999,999,999,990') || ' a minute to a number',
            to_char(per_day, 'FM999,999,999,990') || ' a day to a number',
            to_char(same_per_minute, 'FM999,999,999,990') || ' a minute of the same text to a number',
            to_char(same_per_hour, 'FM999,999,999,990') || ' an hour of the same text to a number',
            to_char(daily_limit, 'FM999,999,999,990') || ' a day in all',
            'quiet from ' || to_char(quiet_from, 'HH24:MI')
                || ' to ' || to_char(quiet_until, 'HH24:MI')), ''), 'no limits'),
        'set');
END $$;

-- Set what a segment to a country costs.
CREATE FUNCTION dispatcher.set_price(
    country text, price numeric, currency text DEFAULT '', actor text DEFAULT session_user
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO dispatcher.price (country, price, currency) VALUES (country, price, currency)
    ON CONFLICT (country) DO UPDATE SET price = excluded.price, currency = excluded.currency;
    SELECT dispatcher.append_audit(actor, 'price', country, trim(price || ' ' || currency), 'set')
$$;

-- Add a token of the console, of which only the digest is known here.
CREATE FUNCTION dispatcher.add_console_token(
    name text, role text, digest bytea, actor text DEFAULT session_user
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO dispatcher.console_token (name, role, digest, created_by)
    VALUES (name, role, digest, actor);
    SELECT dispatcher.append_audit(actor, 'token', name, role, 'added')
$$;

-- Revoke a token of the console; return whether there was one of this name.
CREATE FUNCTION dispatcher.revoke_console_token(name text, actor text DEFAULT session_user)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    revoked boolean;
BEGIN
    UPDATE dispatcher.console_token t SET revoked_at = clock_timestamp(), revoked_by = actor
    WHERE t.name = revoke_console_token.name AND t.revoked_at IS NULL;
    revoked := FOUND;
    PERFORM dispatcher.append_audit(actor, 'token', name, '',
        CASE WHEN revoked THEN 'revoked' ELSE 'there is no such token' END);
    RETURN revoked;
END $$;

-- migrate:down

DROP TRIGGER fill_queue ON dispatcher.message;
DROP FUNCTION dispatcher.placed_messages, dispatcher.revoke_console_token, dispatcher.add_console_token,
    dispatcher.requeue_campaign, dispatcher.requeue_campaign_step, dispatcher.stop_campaigns,
    dispatcher.brake_spikes,
    dispatcher.move_campaign_step, dispatcher.move_campaign, dispatcher.changing_queue,
    dispatcher.cancel_campaign_step,
    dispatcher.cancel_campaign, dispatcher.resume_campaign, dispatcher.pause_campaign,
    dispatcher.set_campaign_state,
    dispatcher.is_load_held, dispatcher.is_probe_due, dispatcher.next_grant_at, dispatcher.set_price, dispatcher.set_limits,
    dispatcher.drop_template,
    dispatcher.define_template, dispatcher.unsuppress, dispatcher.suppress,
    dispatcher.suppression_scope, dispatcher.resume, dispatcher.end_clock_waits,
    dispatcher.end_refusal_waits, dispatcher.end_country_waits,
    dispatcher.pause, dispatcher.message_action_step, dispatcher.start_message_action,
    dispatcher.settle_batches, dispatcher.count_unsure, dispatcher.settle, dispatcher.settle_unsure,
    dispatcher.settle_lost,
    dispatcher.requeue, dispatcher.requeue_finished, dispatcher.is_refused_by_platform,
    dispatcher.lost_messages, dispatcher.take_back, dispatcher.cancel,
    dispatcher.cancel_queued, dispatcher.raise_kept_rows, dispatcher.take_from_bulk, dispatcher.bulk_rows_with,
    dispatcher.open_bulk, dispatcher.move_bulk, dispatcher.numbers_in_words, dispatcher.append_message_audit,
    dispatcher.append_audit, dispatcher.replies, dispatcher.events, dispatcher.append_event, dispatcher.count_event,
    dispatcher.enqueue, dispatcher.message_id_for_key, dispatcher.fill_queue,
    dispatcher.given_number, dispatcher.misread_recipient, dispatcher.is_usual_recipient,
    dispatcher.has_usual_prefix_and_length,
    dispatcher.count_in_question, dispatcher.report_parts, dispatcher.is_charged,
    dispatcher.open_segments,
    dispatcher.charged_segments, dispatcher.segments_of_report, dispatcher.billing_mode,
    dispatcher.e164;
