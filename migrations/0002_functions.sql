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

-- Enqueueing ----------------------------------------------------------------------------------------

-- Statement level: one call for a COPY of a million rows as for a single INSERT.
-- Only urgent messages notify; a NOTIFY on every insert halves the rate of single inserts.
-- 20 messages or more that agree in all that a claim asks for wait in one bulk row, the others each
-- in a row of the queue. A block of 500 ids is a request, and lies in one partition.
CREATE FUNCTION dispatcher.fill_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inserted_at timestamptz := clock_timestamp();
BEGIN
    INSERT INTO dispatcher.queue (id, app, priority, due_at)
    SELECT id, app, priority, greatest(send_at, inserted_at) FROM added
    WHERE NOT EXISTS (SELECT FROM added OFFSET 19);

    IF NOT FOUND THEN
        WITH together AS MATERIALIZED (
            SELECT array_agg(id) AS ids, min(id) AS first_id, max(id) AS last_id,
                count(*) AS size, app, priority, greatest(send_at, inserted_at) AS due_at
            FROM added
            GROUP BY (id - 1) / 500, app, priority, greatest(send_at, inserted_at)
        ), few AS (
            INSERT INTO dispatcher.queue (id, app, priority, due_at)
            SELECT unnest(ids), app, priority, due_at FROM together WHERE size < 20
        )
        INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at)
        SELECT first_id,
            CASE WHEN last_id - first_id + 1 = size
                THEN int8multirange(int8range(first_id, last_id + 1))
                ELSE (SELECT range_agg(int8range(id, id + 1)) FROM unnest(ids) AS id) END,
            size, app, priority, due_at
        FROM together WHERE size >= 20;
    END IF;

    INSERT INTO dispatcher.idempotency (app, key, message_id)
    SELECT app, idempotency_key, id FROM added WHERE idempotency_key IS NOT NULL;

    -- A transaction that has notified cannot be prepared (two-phase commit, XA). Where a session has
    -- set this, polling finds its urgent messages.
    IF current_setting('dispatcher.notify', true) = 'off' THEN
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
    reference text DEFAULT NULL
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
        priority, send_at, expires_at, idempotency_key, reference)
    VALUES (enqueue.app, enqueue.sender, enqueue.recipient, enqueue.template_id, enqueue.params,
        enqueue.signature, enqueue.priority::smallint, enqueue.send_at, enqueue.expires_at,
        enqueue.idempotency_key, enqueue.reference)
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

-- Return what happened to messages after position *after*, oldest first, at most "limit" entries.
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
    reference text
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
    SELECT greatest(n.before, n.after) + entry.place, entry.id, n.app, n.event, n.code,
        n.created_at, m.reference
    FROM near n
    LEFT JOIN dispatcher.batch b ON b.id = n.batch_id
    CROSS JOIN LATERAL unnest((coalesce(n.message_ids, b.message_ids))[
        greatest(n.after - n.before, 0) + 1
        : least(n.last_position, n.after + events."limit") - n.before
    ]) WITH ORDINALITY AS entry (id, place)
    LEFT JOIN dispatcher.message m ON m.id = entry.id
    ORDER BY 1
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

-- Move the bulk rows that hold one of *wanted* into the queue, where each message waits alone. For
-- all that touches single messages. A claim that has locked such a row is waited for; it may leave
-- the rest in a new row, which the next turn finds.
CREATE FUNCTION dispatcher.open_bulk(wanted bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    holding bigint[];
BEGIN
    LOOP
        SELECT array_agg(b.first_id ORDER BY b.first_id) INTO holding
        FROM (
            SELECT (id - 1) / 500 * 500 AS before, max(id) AS last_id, array_agg(id) AS ids
            FROM unnest(wanted) AS id WHERE id > 0 GROUP BY 1
        ) AS block
        JOIN dispatcher.bulk b ON b.first_id > block.before AND b.first_id <= block.last_id
        WHERE EXISTS (SELECT FROM unnest(block.ids) AS id WHERE b.ids @> id);
        EXIT WHEN holding IS NULL;
        WITH opened AS (
            DELETE FROM dispatcher.bulk WHERE first_id = ANY (holding)
            RETURNING ids, app, priority, due_at
        )
        INSERT INTO dispatcher.queue (id, app, priority, due_at)
        SELECT generate_series(lower(o.range), upper(o.range) - 1), o.app, o.priority, o.due_at
        FROM (SELECT unnest(ids) AS range, app, priority, due_at FROM opened) AS o
        ON CONFLICT (id) DO NOTHING;
    END LOOP;
END $$;

-- Cancel what still waits; return how many. A message that is being claimed at this moment is
-- waited for, and is then too late: whatever this counts is never sent. No audit: for cancel() and
-- forget().
CREATE FUNCTION dispatcher.cancel_queued(ids bigint[]) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    apps text[];
    cancelled bigint[];
BEGIN
    PERFORM dispatcher.open_bulk(ids);
    WITH taken AS (
        DELETE FROM dispatcher.queue WHERE id = ANY (ids) RETURNING id, app, attempt, last_batch
    ), written AS (
        INSERT INTO dispatcher.outcome (message_id, state, attempts, batch_id)
        SELECT id, 'cancelled', attempt, last_batch FROM taken
        RETURNING message_id
    )
    SELECT array_agg(t.app), array_agg(t.id) INTO apps, cancelled
    FROM taken t JOIN written w ON w.message_id = t.id;
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

-- Return rejected or expired messages to the queue, as new; return how many. A message whose
-- variables were wiped stays as it is: it would be sent without them.
CREATE FUNCTION dispatcher.requeue(ids bigint[], actor text DEFAULT session_user) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    apps text[];
    requeued bigint[];
    messages integer;
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
    SELECT array_agg(app), array_agg(id) INTO apps, requeued FROM waiting;
    messages := coalesce(cardinality(requeued), 0);
    PERFORM dispatcher.count_event('requeued', '', apps);
    PERFORM dispatcher.append_event('requeued', '', apps, requeued);
    PERFORM dispatcher.append_message_audit(actor, 'requeue', ids,
        format('%s of %s wait again', messages, coalesce(cardinality(ids), 0)));
    RETURN messages;
END $$;

-- Settle an unsure batch by hand; return how many messages it settled. 'sent': they were sent;
-- 'resend': they were not, and return to the queue. Raises no_data_found if no unsure batch has
-- the token.
CREATE FUNCTION dispatcher.settle(token text, how text, actor text DEFAULT session_user)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
            INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, last_batch, code)
            SELECT m.id, m.app, m.priority, clock_timestamp(), u.attempt, settled.id,
                'settled-by-operator'
            FROM unnest(settled.message_ids, settled.attempts) AS u (id, attempt)
            JOIN dispatcher.message m ON m.id = u.id
            WHERE u.id = ANY (coalesce(settled.unsure_ids, settled.message_ids))
              AND NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id)
            RETURNING id
        )
        SELECT array_agg(id) INTO ids FROM waiting;
    END IF;
    messages := coalesce(cardinality(ids), 0);
    PERFORM dispatcher.count_event('settled', how, array_fill(settled.app, ARRAY[messages]));
    PERFORM dispatcher.append_event(CASE how WHEN 'sent' THEN 'accepted' ELSE 'requeued' END,
        'settled-by-operator', array_fill(settled.app, ARRAY[messages]), ids);
    PERFORM dispatcher.append_audit(actor, 'settle', 'batch ' || token, how,
        messages || CASE how WHEN 'sent' THEN ' taken as sent' ELSE ' wait again' END);
    RETURN messages;
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

-- Claim for an app again, and for all its countries.
CREATE FUNCTION dispatcher.resume(app text, actor text DEFAULT session_user) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE dispatcher.app SET paused_at = NULL, pause_reason = NULL, pause_code = NULL,
        paused_by = NULL, probe_at = NULL, probe_wait = NULL, probe_max = NULL
    WHERE name = resume.app;
    DELETE FROM dispatcher.country_pause c WHERE c.app = resume.app;
    SELECT dispatcher.append_audit(resume.actor, 'resume', resume.app, '', 'resumed')
$$;

-- Rules ---------------------------------------------------------------------------------------------

-- Never send to *numbers* any more; return how many are new. The audit has no number.
CREATE FUNCTION dispatcher.suppress(
    numbers text[], reason text DEFAULT '', actor text DEFAULT session_user
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    added integer;
BEGIN
    INSERT INTO dispatcher.suppression (recipient, reason)
    SELECT DISTINCT dispatcher.e164(n) AS recipient, suppress.reason
    FROM unnest(numbers) AS n ORDER BY recipient
    ON CONFLICT (recipient) DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    PERFORM dispatcher.append_audit(actor, 'suppress',
        dispatcher.numbers_in_words(cardinality(numbers)), reason,
        dispatcher.numbers_in_words(added) || ' new');
    RETURN added;
END $$;

-- Send to *numbers* again; return how many were suppressed.
CREATE FUNCTION dispatcher.unsuppress(numbers text[], actor text DEFAULT session_user)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    freed integer;
BEGIN
    DELETE FROM dispatcher.suppression
    WHERE recipient = ANY (ARRAY(SELECT dispatcher.e164(n) FROM unnest(numbers) AS n));
    GET DIAGNOSTICS freed = ROW_COUNT;
    PERFORM dispatcher.append_audit(actor, 'unsuppress',
        dispatcher.numbers_in_words(cardinality(numbers)), '',
        dispatcher.numbers_in_words(freed) || ' freed');
    RETURN freed;
END $$;

-- Define what variables a template takes, or define it anew; its text serves to count segments.
CREATE FUNCTION dispatcher.define_template(
    template_id text, kinds text[], note text DEFAULT '', text text DEFAULT NULL,
    actor text DEFAULT session_user
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO dispatcher.template (template_id, kinds, note, text)
    VALUES (template_id, kinds, note, text)
    ON CONFLICT (template_id) DO UPDATE
    SET kinds = excluded.kinds, note = excluded.note, text = excluded.text;
    SELECT dispatcher.append_audit(actor, 'template', template_id,
        coalesce(nullif(array_to_string(kinds, ', '), ''), 'no variables'), 'defined')
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

-- migrate:down

DROP TRIGGER fill_queue ON dispatcher.message;
DROP FUNCTION dispatcher.set_price, dispatcher.set_limits, dispatcher.drop_template,
    dispatcher.define_template, dispatcher.unsuppress, dispatcher.suppress, dispatcher.resume,
    dispatcher.pause, dispatcher.settle, dispatcher.requeue, dispatcher.cancel,
    dispatcher.cancel_queued, dispatcher.open_bulk, dispatcher.numbers_in_words, dispatcher.append_message_audit,
    dispatcher.append_audit, dispatcher.events, dispatcher.append_event, dispatcher.count_event,
    dispatcher.enqueue, dispatcher.message_id_for_key, dispatcher.fill_queue, dispatcher.e164;
