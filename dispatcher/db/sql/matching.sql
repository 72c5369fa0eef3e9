-- Which message a report belongs to.

-- name: match_lock
-- Take the lock of the matching until the end of the transaction; false if another process has it.
-- $1 key of the lock
SELECT pg_try_advisory_xact_lock($1)

-- name: take_reports
-- Take the oldest reports of the inbox, whole rows of it, some $1 reports in all. They are deleted
-- from it when the caller commits. A row that another session holds is taken later.
-- $1 about how many reports
WITH oldest AS (
    SELECT i.id, sum(i.size) OVER (ORDER BY i.id) - i.size AS before
    FROM (SELECT id, size FROM dispatcher.report_inbox ORDER BY id LIMIT 2000) AS i
), taken AS (
    DELETE FROM dispatcher.report_inbox
    WHERE id = ANY (ARRAY(
        SELECT i.id FROM dispatcher.report_inbox i
        WHERE i.id = ANY (ARRAY(SELECT id FROM oldest WHERE before < $1))
        FOR UPDATE SKIP LOCKED))
    RETURNING *
)
SELECT u.provider_id, u.segment, u.total, u.state, u.status, nullif(u.token, ''),
    nullif(u.recipient, ''), u.fresh, 0,
    extract(epoch FROM clock_timestamp() - t.received_at)::float8, t.id
FROM taken t
CROSS JOIN LATERAL unnest(t.provider_ids, t.segments, t.totals, t.states, t.statuses, t.tokens,
    t.recipients, t.fresh) WITH ORDINALITY
    AS u (provider_id, segment, total, state, status, token, recipient, fresh, place)
ORDER BY t.id, u.place

-- name: take_unmatched
-- Take reports that are to be matched again: those that are due, and those of $1 and $2, of which a
-- final one has come. No report waits longer than ten minutes: a later time was written by a clock that
-- was ahead, and counts for nothing. One that another session holds waits for the next step.
-- $1 provider ids, $2 segments, $3 limit of those that are due
WITH due AS (
    (SELECT provider_id, segment FROM dispatcher.unmatched_report
    WHERE due_at <= clock_timestamp()
    ORDER BY due_at LIMIT $3)
    UNION ALL
    (SELECT provider_id, segment FROM dispatcher.unmatched_report
    WHERE due_at > clock_timestamp() + interval '11 minutes'
    ORDER BY due_at LIMIT $3)
), taken AS (
    DELETE FROM dispatcher.unmatched_report m
    WHERE m.ctid = ANY (ARRAY(
        SELECT f.ctid FROM dispatcher.unmatched_report f
        WHERE (f.provider_id, f.segment) IN (
            SELECT provider_id, segment FROM due
            UNION SELECT * FROM unnest($1::text[], $2::smallint[])
        )
        FOR UPDATE OF f SKIP LOCKED))
    RETURNING m.provider_id, m.segment, m.fresh, m.attempts
)
SELECT r.provider_id, r.segment, r.total, r.state, r.status, r.token, r.recipient, t.fresh, t.attempts
FROM taken t
JOIN dispatcher.report r ON r.provider_id = t.provider_id AND r.segment = t.segment

-- name: still_unmatched
-- Return those of some reports that take_unmatched has left: another session holds their rows.
-- $1 provider ids, $2 segments
SELECT provider_id, segment FROM dispatcher.unmatched_report
WHERE (provider_id, segment) IN (SELECT * FROM unnest($1::text[], $2::smallint[]))

-- name: put_back
-- Put reports back into the inbox, each into the row that it was taken from, so that they stay in order.
-- $1 ids of the rows, $2 seconds since they were stored, $3 provider ids, $4 segments, $5 totals,
-- $6 states, $7 statuses, $8 tokens, $9 numbers, $10 fresh
INSERT INTO dispatcher.report_inbox AS i (id, received_at, provider_ids, segments, totals, states,
    statuses, tokens, recipients, fresh)
OVERRIDING SYSTEM VALUE
SELECT u.id, clock_timestamp() - make_interval(secs => max(u.waited)), array_agg(u.provider_id),
    array_agg(u.segment), array_agg(u.total), array_agg(u.state), array_agg(u.status),
    array_agg(coalesce(u.token, '')), array_agg(coalesce(u.recipient, '')), array_agg(u.fresh)
FROM unnest($1::bigint[], $2::float8[], $3::text[], $4::smallint[], $5::smallint[], $6::text[],
    $7::text[], $8::text[], $9::text[], $10::boolean[])
    AS u (id, waited, provider_id, segment, total, state, status, token, recipient, fresh)
GROUP BY u.id
ON CONFLICT (id) DO UPDATE SET
    provider_ids = i.provider_ids || excluded.provider_ids,
    segments = i.segments || excluded.segments,
    totals = i.totals || excluded.totals,
    states = i.states || excluded.states,
    statuses = i.statuses || excluded.statuses,
    tokens = i.tokens || excluded.tokens,
    recipients = i.recipients || excluded.recipients,
    fresh = i.fresh || excluded.fresh

-- name: find_places
-- Look up the messages under the tokens and numbers of reports: one row for each whose token is
-- known, with its place in $1. The last column: whether the message is in no place, as after a fail-over
-- that went back in time. Numbers are as e164() returns them.
-- $1 tokens, $2 numbers (both an array as text)
WITH wanted AS MATERIALIZED (
    SELECT w.token, w.number, w.place
    FROM unnest($1::text::text[], $2::text::text[]) WITH ORDINALITY AS w (token, number, place)
), request AS MATERIALIZED (
    SELECT b.id, b.token, b.app, b.state, b.settled_by, b.message_ids, b.attempts, b.unsure_ids
    FROM (SELECT DISTINCT token FROM wanted) AS t
    JOIN dispatcher.batch b ON b.token = t.token
), member AS MATERIALIZED (
    SELECT r.id AS batch_id, u.id, u.attempt,
        r.unsure_ids IS NULL OR u.id = ANY (r.unsure_ids) AS in_question
    FROM request r
    CROSS JOIN LATERAL unnest(r.message_ids, r.attempts) AS u (id, attempt)
), named AS MATERIALIZED (
    SELECT e.batch_id, e.id, e.attempt, e.in_question,
        dispatcher.e164(m.recipient) AS number
    FROM member e
    JOIN dispatcher.message m ON m.id = e.id
    WHERE m.id = ANY (ARRAY(SELECT id FROM member))
), found AS MATERIALIZED (
    SELECT w.place, r.id AS batch_id, r.app, r.state, r.settled_by, n.id, n.attempt, n.in_question,
        n.number
    FROM wanted w
    JOIN request r ON r.token = w.token
    LEFT JOIN named n ON n.batch_id = r.id AND n.number = w.number
)
SELECT f.place, f.batch_id, f.app, f.state, f.settled_by, f.id, f.attempt,
    coalesce(f.in_question, false), o.state, o.provider_id, o.batch_id,
    date_part('epoch', o.created_at), f.number, false,
    f.state = 'closed' AND o.message_id IS NULL AND f.id IS NOT NULL AND coalesce((
        SELECT s.state = 'lost' FROM dispatcher.message_status s WHERE s.id = f.id
    ), false)
FROM found f
LEFT JOIN dispatcher.outcome o
    ON o.message_id = f.id AND o.message_id = ANY (ARRAY(SELECT id FROM found))

-- name: find_members
-- All messages of some requests, by token: of whole requests, about $2 messages in all. For reports
-- whose number leads to none. A message that is gone has no id.
-- $1 tokens, $2 how many messages
WITH request AS MATERIALIZED (
    SELECT * FROM (
        SELECT b.id, b.token, b.app, b.state, b.settled_by, b.message_ids, b.attempts, b.unsure_ids,
            sum(cardinality(b.message_ids)) OVER (ORDER BY b.id) - cardinality(b.message_ids)
                AS before
        FROM dispatcher.batch b WHERE b.token = ANY ($1::text[])
    ) AS r
    WHERE before < $2
), member AS MATERIALIZED (
    SELECT r.token, r.id AS batch_id, r.app, r.state, r.settled_by, u.id, u.attempt,
        r.unsure_ids IS NULL OR u.id = ANY (r.unsure_ids) AS in_question
    FROM request r
    CROSS JOIN LATERAL unnest(r.message_ids, r.attempts) AS u (id, attempt)
)
SELECT e.token, e.batch_id, e.app, e.state, e.settled_by, m.id, e.attempt, e.in_question,
    o.state, o.provider_id, o.batch_id, date_part('epoch', o.created_at),
    CASE WHEN m.recipient <> '0' THEN dispatcher.e164(m.recipient) END,
    coalesce(m.recipient = '0', false),
    e.state = 'closed' AND o.message_id IS NULL AND m.id IS NOT NULL AND coalesce((
        SELECT s.state = 'lost' FROM dispatcher.message_status s WHERE s.id = m.id
    ), false)
FROM member e
LEFT JOIN dispatcher.message m ON m.id = e.id AND m.id = ANY (ARRAY(SELECT id FROM member))
LEFT JOIN dispatcher.outcome o
    ON o.message_id = e.id AND o.message_id = ANY (ARRAY(SELECT id FROM member))

-- name: find_accepted
-- Look up accepted messages by provider ids: those, and the columns of find_places. Full partitions of
-- outcome have an index on them; the one that is being filled is read whole, so this is asked seldom.
-- $1 provider ids
WITH found AS MATERIALIZED (
    SELECT message_id, provider_id, batch_id, state, created_at FROM dispatcher.outcome
    WHERE provider_id = ANY ($1::text[]) AND provider_id IS NOT NULL AND state = 'accepted'
)
SELECT f.provider_id, coalesce(f.batch_id, 0), m.app, 'closed', NULL, m.id, NULL::smallint, false,
    f.state, f.provider_id, f.batch_id, date_part('epoch', f.created_at),
    CASE WHEN m.recipient <> '0' THEN dispatcher.e164(m.recipient) END, m.recipient = '0', false
FROM found f
JOIN dispatcher.message m
    ON m.id = f.message_id AND m.id = ANY (ARRAY(SELECT message_id FROM found))

-- name: erase_reports
-- Erase the number from reports of a person whose messages are erased.
-- $1 provider ids, $2 segments
UPDATE dispatcher.report r SET recipient = NULL, raw = NULL, earlier = NULL
FROM unnest($1::text[], $2::smallint[]) AS u (provider_id, segment)
WHERE r.provider_id = u.provider_id AND r.segment = u.segment

-- name: keep_unmatched
-- Store reports that belong to no message, yet or ever; one that is matched again waits longer. Those
-- that are looked up by provider id wait for the next minute, so that one search serves all of them.
-- $1 provider ids, $2 segments, $3 reasons, $4 fresh, $5 attempts, $6 whether to match again
INSERT INTO dispatcher.unmatched_report AS m (provider_id, segment, reason, fresh, attempts, due_at)
SELECT u.provider_id, u.segment, u.reason, u.fresh, u.attempts,
    CASE
        WHEN u.again AND u.reason IN ('no-token', 'unknown-token')
            THEN date_trunc('minute', clock_timestamp()) + interval '1 minute'
        WHEN u.again
            THEN clock_timestamp()
                + least(interval '1 second' * u.attempts * u.attempts, '10 minutes')
    END
FROM unnest($1::text[], $2::smallint[], $3::text[], $4::boolean[], $5::smallint[], $6::boolean[])
    AS u (provider_id, segment, reason, fresh, attempts, again)
ORDER BY u.provider_id, u.segment  -- as a requeue, or both wait for each other
ON CONFLICT (provider_id, segment) DO UPDATE SET reason = excluded.reason, due_at = excluded.due_at

-- name: match_again
-- Match reports again that belonged to no message: a late answer has named theirs. Not those of which a
-- requeue has taken the message.
-- $1 provider ids
UPDATE dispatcher.unmatched_report SET due_at = clock_timestamp()
WHERE provider_id = ANY ($1::text[]) AND due_at IS NULL AND reason <> 'requeued'

-- name: count_reported
-- Count messages that have their first report, by the minute in which they were accepted: the rest of
-- those accepted in that minute have none (see awaiting_reports).
-- $1 minutes of acceptance (seconds since 1970), $2 apps, $3 how many
INSERT INTO dispatcher.event_count AS t (minute, app, event, code, worker, count)
SELECT to_timestamp(u.minute), u.app, 'reported', '', 0, u.count
FROM unnest($1::float8[], $2::text[], $3::bigint[]) AS u (minute, app, count)
ORDER BY 1, 2
ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count

-- name: delivers_elsewhere
-- Return whether an app delivers what some refused messages do not stand for: whether anything was
-- delivered in the last ten minutes, or within a day with a channel, signature (or template) that no
-- refused message has. At night ten minutes without a delivery mean nothing. The newest 20,000 rows of
-- the event log are searched; a delivery that they do not have counts as another one.
-- $1 app, $2 the refused messages, $3 whether the refusals are about templates
WITH today AS MATERIALIZED (
    SELECT max(minute) AS newest FROM dispatcher.event_count
    WHERE minute > now() - interval '1 day' AND app = $1 AND event = 'delivered'
), newest AS MATERIALIZED (
    SELECT id, created_at, app, event, message_ids, batch_id FROM dispatcher.event
    WHERE (SELECT t.newest <= now() - interval '10 minutes' FROM today t)
    ORDER BY id DESC LIMIT 20000
), delivered AS MATERIALIZED (
    SELECT u.id
    FROM newest n
    CROSS JOIN LATERAL unnest(coalesce(n.message_ids,
        (SELECT b.message_ids FROM dispatcher.batch b WHERE b.id = n.batch_id))) AS u (id)
    WHERE n.app = $1 AND n.event = 'delivered' AND n.created_at > now() - interval '1 day'
    ORDER BY n.id DESC LIMIT 1000
), refused AS MATERIALIZED (
    SELECT DISTINCT sender, signature, CASE WHEN $3 THEN template_id END AS template
    FROM dispatcher.message WHERE id = ANY ($2::bigint[])
)
SELECT CASE
    WHEN t.newest IS NULL THEN false
    WHEN t.newest > now() - interval '10 minutes' THEN true
    ELSE coalesce((
        SELECT bool_or(NOT EXISTS (
            SELECT FROM refused r
            WHERE r.sender IS NOT DISTINCT FROM m.sender
              AND r.signature IS NOT DISTINCT FROM m.signature
              AND (NOT $3 OR r.template = m.template_id)))
        FROM dispatcher.message m WHERE m.id = ANY (ARRAY(SELECT id FROM delivered))
    ), true) END
FROM today t

-- name: pause_by_reports
-- Count reports by which the platform refused an app itself, of messages accepted since the app was
-- last resumed, and pause it at the $3rd: only resume() ends that, for a probe would be accepted.
-- $1 app, $2 times of acceptance (seconds since 1970), $3 how many are too many, $4 code, $5 reason,
-- $6 whether they concern all that the app sends; else they are only counted
WITH news AS (
    SELECT a.name,
        count(*) + CASE WHEN a.report_refused_at BETWEEN now() - interval '10 minutes' AND now()
            THEN a.report_refusals ELSE 0 END AS refusals,
        count(*) + CASE WHEN a.report_refused_at BETWEEN now() - interval '10 minutes' AND now()
            THEN a.report_refusals ELSE 0 END >= $3
            AND coalesce(a.paused_by, 'worker') = 'worker'
            AND $6 AS pauses
    FROM dispatcher.app a
    JOIN unnest($2::float8[]) AS t (at) ON to_timestamp(t.at)
        > CASE WHEN a.resumed_at <= clock_timestamp() THEN a.resumed_at ELSE '-infinity' END
    WHERE a.name = $1
    GROUP BY a.name
)
UPDATE dispatcher.app a SET
    report_refusals = n.refusals,
    report_refused_at = now(),
    paused_at = CASE WHEN n.pauses THEN coalesce(a.paused_at, clock_timestamp()) ELSE a.paused_at END,
    pause_code = CASE WHEN n.pauses THEN $4 ELSE a.pause_code END,
    pause_reason = CASE WHEN n.pauses THEN $5 ELSE a.pause_reason END,
    paused_by = CASE WHEN n.pauses THEN 'report' ELSE a.paused_by END,
    probe_at = CASE WHEN n.pauses THEN NULL ELSE a.probe_at END
FROM news n
WHERE a.name = n.name
RETURNING n.pauses
