-- What status, show and the console read.

-- name: status_apps
-- Return the state of each app without counting a big table: what waits is counted up to 10,001, and
-- open and unsure batches lie in indexes of their own. Apps that have messages waiting but no worker
-- are found by hopping over the index, one look-up an app.
WITH RECURSIVE hop AS (
    SELECT least(
        (SELECT app FROM dispatcher.queue ORDER BY app LIMIT 1),
        (SELECT app FROM dispatcher.bulk ORDER BY app LIMIT 1)) AS app
    UNION ALL
    SELECT least(
        (SELECT q.app FROM dispatcher.queue q WHERE q.app > hop.app ORDER BY q.app LIMIT 1),
        (SELECT b.app FROM dispatcher.bulk b WHERE b.app > hop.app ORDER BY b.app LIMIT 1))
    FROM hop WHERE hop.app IS NOT NULL
), named AS (
    SELECT app AS name FROM hop WHERE app IS NOT NULL
    UNION
    SELECT name FROM dispatcher.app
)
SELECT
    n.name,
    a.name IS NOT NULL AS known,
    a.paused_at,
    a.paused_by,
    a.pause_code,
    a.pause_reason,
    a.probe_at,
    a.numbers_per_second,
    a.rate,
    least(10001,
        (SELECT count(*) FROM (SELECT FROM dispatcher.queue q WHERE q.app = n.name LIMIT 10001) AS w)
        + (SELECT coalesce(sum(size), 0)
            FROM (SELECT b.size FROM dispatcher.bulk b WHERE b.app = n.name LIMIT 10001) AS w)
    ) AS waiting,
    (
        SELECT min(first.due_at)
        FROM generate_series(0, 9) AS p
        CROSS JOIN LATERAL (
            (SELECT q.due_at FROM dispatcher.queue q
            WHERE q.app = n.name AND q.priority = p AND q.due_at <= (SELECT clock_timestamp())
            ORDER BY q.due_at LIMIT 1)
            UNION ALL
            (SELECT b.due_at FROM dispatcher.bulk b
            WHERE b.app = n.name AND b.priority = p AND b.due_at <= (SELECT clock_timestamp())
            ORDER BY b.due_at LIMIT 1)
        ) AS first
    ) AS oldest_due_at,
    (
        SELECT coalesce(sum(cardinality(b.message_ids)), 0)
        FROM dispatcher.batch b WHERE b.state = 'open' AND b.app = n.name
    ) AS sending,
    (
        SELECT count(*) FROM dispatcher.batch b WHERE b.state = 'unsure' AND b.app = n.name
    ) AS unsure_batches,
    ARRAY(
        SELECT c.country FROM dispatcher.country_pause c
        WHERE c.app = n.name
          AND c.until BETWEEN clock_timestamp() AND clock_timestamp() + interval '65 minutes'
        ORDER BY c.country
    ) AS paused_countries,
    a.next_at,
    (
        SELECT count(*) FROM dispatcher.batch b
        WHERE b.state = 'unsure' AND b.app = n.name AND a.on_unsure = 'resend'
          AND (SELECT b.opened_at <= i.restored_at OR b.opened_at > clock_timestamp()
            FROM dispatcher.installation i WHERE i.restored_at IS NOT NULL)
    ) AS held_batches
FROM named n
LEFT JOIN dispatcher.app a ON a.name = n.name
ORDER BY n.name

-- name: due_counts
-- Return how many messages of apps are due, counted up to 10,001 each: the others wait for their time.
-- $1 apps
SELECT a.name, least(10001, (
    SELECT count(*) FROM (
        SELECT FROM generate_series(0, 9) AS p
        CROSS JOIN LATERAL (
            SELECT FROM dispatcher.queue q
            WHERE q.app = a.name AND q.priority = p AND q.due_at <= (SELECT clock_timestamp())
            LIMIT 10001
        ) AS of_priority
        LIMIT 10001
    ) AS alone
) + (
    SELECT coalesce(sum(size), 0) FROM (
        SELECT of_priority.size FROM generate_series(0, 9) AS p
        CROSS JOIN LATERAL (
            SELECT b.size FROM dispatcher.bulk b
            WHERE b.app = a.name AND b.priority = p AND b.due_at <= (SELECT clock_timestamp())
            LIMIT 10001
        ) AS of_priority
        LIMIT 10001
    ) AS together
)) AS due
FROM unnest($1::text[]) AS a (name)

-- name: stopped_in_front
-- Return the campaigns that are not running and have the first due messages of an app and priority: no
-- claim takes those.
-- $1 apps
SELECT DISTINCT a.name AS app, c.name, c.state, coalesce(c.reason, '') AS reason
FROM unnest($1::text[]) AS a (name)
CROSS JOIN generate_series(0, 9) AS p (priority)
CROSS JOIN LATERAL (
    (SELECT q.campaign FROM dispatcher.queue q
    WHERE q.app = a.name AND q.priority = p.priority AND q.due_at <= (SELECT clock_timestamp())
    ORDER BY q.due_at LIMIT 1)
    UNION ALL
    (SELECT b.campaign FROM dispatcher.bulk b
    WHERE b.app = a.name AND b.priority = p.priority AND b.due_at <= (SELECT clock_timestamp())
    ORDER BY b.due_at LIMIT 1)
) AS first
JOIN dispatcher.campaign c ON c.name = first.campaign AND c.state <> 'running'
ORDER BY a.name, c.name

-- name: oldest_due_beside
-- Return since when a message of apps is due that belongs to no stopped campaign, or null. A stopped
-- campaign may have millions, so of each priority only the first 10,001 due rows are searched, and if
-- all of those are stopped the last 10,001: what has come since is among them.
-- $1 apps
WITH stopped AS MATERIALIZED (
    SELECT array_agg(name) AS names FROM dispatcher.campaign WHERE state <> 'running'
)
SELECT a.name, min(least(
    coalesce(
        (SELECT w.due_at FROM (
            SELECT q.due_at, q.campaign FROM dispatcher.queue q
            WHERE q.app = a.name AND q.priority = p.priority AND q.due_at <= (SELECT clock_timestamp())
            ORDER BY q.due_at LIMIT 10001) AS w
        WHERE (w.campaign = ANY ((SELECT names FROM stopped)::text[])) IS NOT TRUE
        ORDER BY w.due_at LIMIT 1),
        (SELECT min(w.due_at) FROM (
            SELECT q.due_at, q.campaign FROM dispatcher.queue q
            WHERE q.app = a.name AND q.priority = p.priority AND q.due_at <= (SELECT clock_timestamp())
            ORDER BY q.due_at DESC LIMIT 10001) AS w
        WHERE (w.campaign = ANY ((SELECT names FROM stopped)::text[])) IS NOT TRUE)),
    coalesce(
        (SELECT w.due_at FROM (
            SELECT b.due_at, b.campaign FROM dispatcher.bulk b
            WHERE b.app = a.name AND b.priority = p.priority AND b.due_at <= (SELECT clock_timestamp())
            ORDER BY b.due_at LIMIT 10001) AS w
        WHERE (w.campaign = ANY ((SELECT names FROM stopped)::text[])) IS NOT TRUE
        ORDER BY w.due_at LIMIT 1),
        (SELECT min(w.due_at) FROM (
            SELECT b.due_at, b.campaign FROM dispatcher.bulk b
            WHERE b.app = a.name AND b.priority = p.priority AND b.due_at <= (SELECT clock_timestamp())
            ORDER BY b.due_at DESC LIMIT 10001) AS w
        WHERE (w.campaign = ANY ((SELECT names FROM stopped)::text[])) IS NOT TRUE))
)) AS due_at
FROM unnest($1::text[]) AS a (name)
CROSS JOIN generate_series(0, 9) AS p (priority)
GROUP BY a.name

-- name: status_workers
-- Return workers that run, or died within the last day without stopping in good order.
SELECT
    id,
    host,
    pid,
    version,
    apps,
    started_at,
    extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_seconds,
    heartbeat_at > clock_timestamp() - lease AS alive,
    unreachable_apps,
    failing_parts
FROM dispatcher.worker
WHERE stopped_at IS NULL AND heartbeat_at > clock_timestamp() - interval '1 day'
ORDER BY id

-- name: status_totals
-- Return what happened in the last hour and the last day, by app, event and code; from the counters.
SELECT
    app,
    event,
    code,
    coalesce(sum(count) FILTER (WHERE minute > now() - interval '1 hour'), 0)::bigint AS hour,
    sum(count)::bigint AS day
FROM dispatcher.event_count
WHERE minute BETWEEN now() - interval '1 day' AND now()
GROUP BY app, event, code
ORDER BY app, event, code

-- name: recent_counts
-- Return what happened in the last ten minutes, by minute; from the counters.
SELECT minute, app, event, code, sum(count)::bigint
FROM dispatcher.event_count
WHERE minute BETWEEN now() - interval '10 minutes' AND now()
GROUP BY minute, app, event, code
ORDER BY minute, app, event, code

-- name: count_series
-- Return what happened since a time, in steps, by event; from the counters.
-- $1 app (null: all), $2 whole span (seconds), $3 step (seconds)
SELECT
    date_bin(make_interval(secs => $3), at, 'epoch') AS step,
    event,
    sum(count)::bigint
FROM (
    SELECT minute AS at, app, event, count FROM dispatcher.event_count
    UNION ALL
    SELECT hour, app, event, count FROM dispatcher.hour_count
) AS c
WHERE at >= date_bin(make_interval(secs => $3), now() - make_interval(secs => $2), 'epoch')
  AND ($1::text IS NULL OR app = $1)
  AND event IN ('accepted', 'rejected', 'deferred', 'delivered', 'undelivered')
GROUP BY step, event
ORDER BY step, event

-- name: last_hour
-- Return what happened in each minute of the last hour, by app: accepted, and failed.
SELECT app, minute,
    coalesce(sum(count) FILTER (WHERE event = 'accepted'), 0)::bigint AS accepted,
    coalesce(sum(count) FILTER (WHERE event IN ('rejected', 'undelivered')), 0)::bigint AS failed
FROM dispatcher.event_count
WHERE minute BETWEEN date_trunc('minute', now()) - interval '1 hour' AND now()
  AND event IN ('accepted', 'rejected', 'undelivered')
GROUP BY app, minute ORDER BY app, minute

-- name: delivery_sample
-- Return the newest messages that were reported as delivered or not in a time, and when. From the log
-- of events, of which the newest are read.
-- $1 since, $2 until, $3 how many events are read, $4 how many messages at most
WITH newest AS MATERIALIZED (
    SELECT id, created_at, event, message_ids, batch_id FROM dispatcher.event ORDER BY id DESC LIMIT $3
)
SELECT u.id, n.event = 'delivered' AS delivered, n.created_at
FROM newest n
CROSS JOIN LATERAL unnest(coalesce(n.message_ids,
    (SELECT b.message_ids FROM dispatcher.batch b WHERE b.id = n.batch_id))) AS u (id)
WHERE n.event IN ('delivered', 'undelivered') AND n.created_at >= $1 AND n.created_at < $2
ORDER BY n.id DESC LIMIT $4

-- name: sampled_messages
-- Return what is known of some messages for the times of delivery. This and sampled_outcomes are no
-- join, which either reads whole tables, or searches all ids for each message.
-- $1 ids
SELECT id, app, template_id, dispatcher.e164(recipient) AS recipient FROM dispatcher.message
WHERE id = ANY ($1::bigint[])

-- name: sampled_outcomes
-- Return when some messages were answered.
-- $1 ids
SELECT message_id, created_at FROM dispatcher.outcome WHERE message_id = ANY ($1::bigint[])

-- name: unsure_batches
-- Return the requests that may have been sent, oldest first, with how many messages are in question: the
-- answer may have the results of the others, and reports may have settled some.
-- $1 how many at most
SELECT b.token, b.app, dispatcher.count_in_question(b.ids), b.unsure_at, b.code, b.description
FROM (
    SELECT token, app, coalesce(unsure_ids, message_ids) AS ids, unsure_at, code, description
    FROM dispatcher.batch
    WHERE state = 'unsure'
    ORDER BY unsure_at
    LIMIT $1
) AS b
ORDER BY b.unsure_at

-- name: show_message
-- Return one message: what was asked for, its state, its result, and the state of its app.
-- $1 message id
SELECT
    s.id, s.app, s.sender, s.recipient, s.template_id, s.reference, s.priority, s.state,
    s.attempts, s.provider_id, s.code, s.reason, s.segments, s.queued_at, s.due_at,
    s.accepted_at, s.finished_at, s.report_status, s.batch_token,
    m.params, m.signature, m.send_at, m.expires_at, m.idempotency_key,
    CASE WHEN a.paused_at IS NOT NULL THEN coalesce(a.pause_reason, 'no reason was given') END
        AS app_paused,
    a.paused_at AS app_paused_at, a.paused_by AS app_paused_by, a.pause_code AS app_pause_code,
    EXISTS (
        SELECT FROM dispatcher.worker w
        WHERE s.app = ANY (w.apps) AND w.stopped_at IS NULL
          AND w.heartbeat_at > clock_timestamp() - w.lease
    ) AS app_served,
    coalesce(s.due_at > clock_timestamp(), false) AS early,
    CASE WHEN o.state = 'accepted' THEN coalesce(o.code, '000000') ELSE o.code END AS outcome_code,
    o.created_at AS outcome_at,
    (
        SELECT u.reason FROM dispatcher.suppression u
        WHERE s.code IN ('suppressed', 'unsubscribed')
          AND u.recipient = dispatcher.e164(s.recipient) AND u.app IN ('', s.app)
        ORDER BY u.promotional = (s.code = 'unsubscribed') DESC, u.added_at LIMIT 1
    ) AS suppressed_because,
    r.final AS segments_reported,
    CASE WHEN s.accepted_at IS NOT NULL
        THEN dispatcher.charged_segments(b.mode, s.segments, r.total, r.delivered, r.uncharged)
    END AS charged,
    CASE WHEN s.accepted_at IS NOT NULL
        THEN dispatcher.open_segments(b.mode, s.segments, r.total, r.final)
    END AS may_be_charged
FROM dispatcher.message_status s
JOIN dispatcher.message m ON m.id = s.id
LEFT JOIN dispatcher.app a ON a.name = s.app
LEFT JOIN dispatcher.outcome o ON o.message_id = s.id AND o.message_id = $1
CROSS JOIN LATERAL (SELECT dispatcher.billing_mode(a.billing, s.recipient) AS mode) AS b
CROSS JOIN LATERAL dispatcher.report_parts(s.provider_id) AS r
WHERE s.id = $1

-- name: show_batches
-- Return the requests that a message was in, oldest first. No index leads from a message to all of
-- its batches, so those of its app since it was queued are searched, the newest 20,000 at most; none
-- took it after it had its outcome.
-- $1 message id, $2 app, $3 queued at, $4 when it had its outcome, or null
SELECT
    b.token, b.state, b.opened_at, b.closed_at, b.unsure_at, b.tries, b.http_status, b.code,
    b.description, b.settled_by, b.bytes,
    cardinality(b.message_ids) AS messages,
    b.attempts[array_position(b.message_ids, $1)]::integer AS attempt
FROM (
    SELECT * FROM dispatcher.batch r
    -- A message that was inserted while the clock was ahead may have been sent before that time.
    WHERE r.app = $2 AND r.opened_at >= (
        SELECT CASE WHEN $3::timestamptz <= clock_timestamp() THEN $3 ELSE '-infinity' END)
      -- The outcome has the time at which its transaction began, which a claim may have followed.
      AND r.opened_at <= coalesce($4::timestamptz + interval '1 minute', 'infinity')
    ORDER BY r.opened_at DESC
    LIMIT 20000
) AS b
WHERE b.message_ids @> ARRAY[$1::bigint]
ORDER BY b.opened_at

-- name: show_reports
-- The reports under the provider id of a message, and under the tokens of its requests, which is all
-- there is while it is unsure; of the latter the caller leaves out those with other numbers.
-- $1 provider id, $2 tokens
SELECT r.provider_id, r.segment, r.total, r.status, r.state, r.description, r.received_at,
    r.updated_at, r.source, r.earlier ->> 'status' AS earlier_status,
    (r.earlier ->> 'received_at')::timestamptz AS earlier_at,
    -- What waits to be looked up by its provider id will be found: this message has that id.
    CASE WHEN r.provider_id = $1 AND u.reason IN ('no-token', 'unknown-token') THEN NULL
        ELSE u.reason END AS unmatched,
    r.recipient
FROM dispatcher.report r
LEFT JOIN dispatcher.unmatched_report u ON u.provider_id = r.provider_id AND u.segment = r.segment
WHERE r.provider_id = $1
   OR r.token = ANY ($2::text[]) AND (u.reason IS NOT NULL OR $1 IS NULL)
ORDER BY r.received_at, r.provider_id, r.segment

-- name: batch_message_ids
-- Return the messages of a batch, by its token, the newest first.
-- $1 token, $2 how many at most
SELECT u.id FROM dispatcher.batch b CROSS JOIN LATERAL unnest(b.message_ids) AS u (id)
WHERE b.token = $1 ORDER BY u.id DESC LIMIT $2

-- name: id_of_provider_id
-- Return the message of a provider id. A report of it leads there at once, by the token of its request
-- and its number; without one, full partitions have an index, and the one being filled is read whole.
-- $1 provider id, $2 how many at most
WITH reported AS MATERIALIZED (
    SELECT m.id
    FROM dispatcher.report r
    JOIN dispatcher.batch b ON b.token = r.token
    CROSS JOIN LATERAL unnest(b.message_ids) AS u (id)
    JOIN dispatcher.message m ON m.id = u.id
    WHERE r.provider_id = $1
      AND regexp_replace(m.recipient, '^[+]?(86)?', '')
        = regexp_replace(r.recipient, '^[+]?(86)?', '')
    LIMIT 1
)
SELECT id FROM reported
UNION ALL
SELECT message_id FROM dispatcher.outcome
WHERE provider_id = $1 AND NOT EXISTS (SELECT FROM reported)
LIMIT $2

-- name: message_summaries
-- Return some messages, in the order of their ids here.
-- $1 ids
SELECT s.id, s.app, s.recipient, s.reference, s.state, s.code, s.queued_at
FROM dispatcher.message_status s
WHERE s.id = ANY ($1::bigint[])
ORDER BY array_position($1::bigint[], s.id)

-- name: batch_story
-- Return one request: what was sent, and what was answered.
-- $1 token
SELECT
    b.id, b.token, b.app, b.worker, b.state, b.bytes, b.opened_at, b.unsure_at, b.closed_at,
    b.tries, b.http_status, b.code, b.description, b.settled_by,
    cardinality(b.message_ids) AS messages, b.message_ids,
    CASE WHEN b.state = 'unsure'
        THEN dispatcher.count_in_question(coalesce(b.unsure_ids, b.message_ids)) END AS in_question,
    p.token AS parent
FROM dispatcher.batch b
LEFT JOIN dispatcher.batch p ON p.id = b.parent
WHERE b.token = $1

-- name: states_of
-- The states of messages.
-- $1 ids
SELECT id, state FROM dispatcher.message_status WHERE id = ANY ($1::bigint[])
