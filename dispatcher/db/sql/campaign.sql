-- Campaigns: operators' actions, progress, and export.

-- name: pause_campaign
-- Stop claiming messages of a campaign. Raises no_data_found for one that does not exist.
-- $1 name, $2 reason, $3 actor
SELECT dispatcher.pause_campaign($1, $2, $3)

-- name: resume_campaign
-- Claim messages of a campaign again.
-- $1 name, $2 actor
SELECT dispatcher.resume_campaign($1, $2)

-- name: cancel_campaign
-- Claim no message of a campaign any more; outcomes follow, see cancel_campaign_step.
-- $1 name, $2 reason, $3 actor
SELECT dispatcher.cancel_campaign($1, $2, $3)

-- name: cancel_campaign_step
-- Write the outcomes of some messages of cancelled campaigns; return how many.
SELECT dispatcher.cancel_campaign_step()

-- name: cancelled_campaigns_that_wait
-- The cancelled campaigns of which messages wait: their outcomes are not written yet.
SELECT name FROM dispatcher.campaign c
WHERE c.state = 'cancelled'
  AND (EXISTS (SELECT FROM dispatcher.queue q WHERE q.campaign = c.name)
      OR EXISTS (SELECT FROM dispatcher.bulk b WHERE b.campaign = c.name))

-- name: campaign_waits
-- Whether any message of a campaign waits.
-- $1 name
SELECT EXISTS (SELECT FROM dispatcher.queue WHERE campaign = $1)
    OR EXISTS (SELECT FROM dispatcher.bulk WHERE campaign = $1)

-- name: move_campaign
-- Move what waits of a campaign to another time or priority; see move_campaign_step.
-- $1 name, $2 time, $3 seconds from one message to the next, $4 priority, $5 actor
SELECT dispatcher.move_campaign($1, $2, $3, $4, $5)

-- name: move_campaign_step
-- Move some messages of a campaign; return how many.
SELECT dispatcher.move_campaign_step()

-- name: campaign_moved
-- How many messages of a campaign have moved, and whether it is to be moved still.
-- $1 name
SELECT moved, moved_id IS NOT NULL AND state <> 'cancelled' AS moves
FROM dispatcher.campaign WHERE name = $1

-- name: changing_queue
-- The transactions that change the queue at this moment.
SELECT dispatcher.changing_queue()

-- name: campaign_in_flight
-- How many messages of a campaign are in requests that have no result yet.
-- $1 name
SELECT count(*)
FROM dispatcher.batch b
CROSS JOIN LATERAL unnest(b.message_ids) AS u (id)
JOIN dispatcher.message m ON m.id = u.id
WHERE b.state = 'open' AND m.campaign = $1

-- name: stop_campaigns
-- Pause campaigns of which too many messages failed; return how many.
SELECT dispatcher.stop_campaigns()

-- name: campaign_stop_at
-- Set the share of failed messages at which a campaign pauses by itself, and write the audit.
-- $1 name, $2 share, $3 actor
WITH changed AS (
    UPDATE dispatcher.campaign SET stop_at = $2 WHERE name = $1 AND stop_at IS DISTINCT FROM $2
    RETURNING name
)
SELECT dispatcher.append_audit($3, 'stop-at', 'campaign ' || name,
    round(($2 * 100)::numeric, 1) || '% failed', 'set')
FROM changed

-- name: requeue_campaign_step
-- Requeue some rejected or expired messages of a campaign.
-- $1 name, $2 last id that was looked at, $3 how many at most, $4 actor
SELECT last_id, requeued FROM dispatcher.requeue_campaign_step($1, $2, $3, $4)

-- name: campaign_claim_name
-- Begin a campaign for a file; return no row if the name is taken.
-- $1 name, $2 file, $3 actor
INSERT INTO dispatcher.campaign (name, file, created_by, first_id)
SELECT $1, $2, $3, last_value FROM dispatcher.message_id
ON CONFLICT (name) DO NOTHING
RETURNING name

-- name: campaigns
-- The campaigns, the newest first, each with how many of its messages wait.
-- $1 how many at most, $2 name (null: any)
SELECT c.name, c.state, c.reason, c.file, c.created_by, c.created_at, c.changed_by, c.changed_at,
    (SELECT count(*) FROM dispatcher.queue q WHERE q.campaign = c.name)
        + (SELECT coalesce(sum(b.size), 0) FROM dispatcher.bulk b WHERE b.campaign = c.name)
        AS waiting,
    (SELECT sum(i.imported)::bigint FROM dispatcher.file_import i WHERE i.campaign = c.name) AS imported
FROM dispatcher.campaign c
WHERE $2::text IS NULL OR c.name = $2
ORDER BY c.created_at DESC LIMIT $1

-- name: campaign_names
-- The names of campaigns, the newest first.
-- $1 how they begin, $2 how many at most
SELECT name FROM dispatcher.campaign WHERE starts_with(name, $1) ORDER BY created_at DESC LIMIT $2

-- name: campaign_states
-- How many messages of a campaign are in each state, with their codes, segments, and how many were
-- accepted in the last seconds. Reads every message since it began.
-- $1 name, $2 seconds
SELECT s.state, s.code, min(s.reason) AS reason, count(*) AS messages,
    coalesce(sum(s.segments), 0)::bigint AS segments,
    count(*) FILTER (WHERE s.accepted_at > now() - make_interval(secs => $2)) AS recent
FROM dispatcher.message_status s
WHERE s.id >= (SELECT c.first_id FROM dispatcher.campaign c WHERE c.name = $1) AND s.campaign = $1
GROUP BY s.state, s.code
ORDER BY count(*) DESC

-- name: export_rows
-- Everything an export shows, oldest first; times in seconds since 1970.
-- $1 campaign, $2 app, $3 state, $4 since, $5 first id, $6 whether charged segments are wanted: they
-- take a third of the time
SELECT s.id, s.app, s.campaign, s.recipient, s.template_id, s.reference, s.state, s.code, s.reason,
    s.segments, date_part('epoch', s.queued_at)::bigint, date_part('epoch', s.accepted_at)::bigint,
    date_part('epoch', s.finished_at)::bigint, s.provider_id,
    CASE WHEN $6 AND s.accepted_at IS NOT NULL THEN dispatcher.charged_segments(
        dispatcher.billing_mode(a.billing, s.recipient), s.segments, r.total, r.delivered, r.uncharged)
    END AS charged
FROM dispatcher.message_status s
LEFT JOIN dispatcher.app a ON a.name = s.app
LEFT JOIN LATERAL dispatcher.report_parts(s.provider_id) AS r ON s.provider_id IS NOT NULL AND $6
WHERE s.id >= $5
  AND ($1::text IS NULL OR s.campaign = $1)
  AND ($2::text IS NULL OR s.app = $2)
  AND ($3::text IS NULL OR s.state = $3)
  AND ($4::timestamptz IS NULL OR s.queued_at >= $4)
ORDER BY s.id

-- name: export_from
-- The first id that an export must read.
-- $1 campaign
SELECT coalesce((SELECT first_id FROM dispatcher.campaign WHERE name = $1), 0)

-- name: campaign_page
-- Some campaigns, the newest first, with what was counted of them last, and whether any message waits.
-- $1 begun before (null: any), $2 name below among those begun then, $3 how many at most, $4 name
-- (null: any)
SELECT c.name, c.state, c.reason, c.file, c.stop_at, c.created_by, c.created_at, c.changed_by,
    c.changed_at, c.counted::text AS counted, c.counted_at,
    EXISTS (SELECT FROM dispatcher.queue q WHERE q.campaign = c.name)
        OR EXISTS (SELECT FROM dispatcher.bulk b WHERE b.campaign = c.name) AS waits,
    c.first_id < (
        SELECT min(split_part(p.relname, '_', 2)::bigint)
        FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
        WHERE i.inhparent = 'dispatcher.message'::regclass
          AND p.relname ~ '^message_[0-9]+_to_[0-9]+$'
    ) AS partly_removed
FROM dispatcher.campaign c
WHERE ($1::timestamptz IS NULL OR (c.created_at, c.name) < ($1, $2::text))
  AND ($4::text IS NULL OR c.name = $4)
ORDER BY c.created_at DESC, c.name DESC LIMIT $3

-- name: count_campaign
-- How many messages of a campaign are in each state, as message_status has it, by code and the
-- beginning of the number, of which the country follows. It joins whole tables, which for a million
-- messages is some ten times faster than a look-up of each in message_status.
-- $1 name, $2 seconds that are recent
WITH mine AS (
    SELECT m.id, m.app, dispatcher.e164(m.recipient) AS recipient FROM dispatcher.message m
    WHERE m.id >= (SELECT c.first_id FROM dispatcher.campaign c WHERE c.name = $1)
      AND m.campaign = $1
), waiting AS (
    SELECT id, due_at, code FROM dispatcher.queue WHERE campaign = $1
    UNION ALL
    SELECT u.id, b.due_at, NULL
    FROM dispatcher.bulk b
    CROSS JOIN LATERAL unnest(b.ids) AS range
    CROSS JOIN LATERAL generate_series(lower(range), upper(range) - 1) AS u (id)
    WHERE b.campaign = $1
), live AS (
    SELECT u.id, b.state, b.code
    FROM dispatcher.batch b
    CROSS JOIN LATERAL unnest(coalesce(b.unsure_ids, b.message_ids)) AS u (id)
    WHERE b.state = 'open' OR b.state = 'unsure'
), reported AS (
    SELECT o.message_id,
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
        (count(*) FILTER (WHERE p.state = 'delivered'))::integer AS delivered,
        (count(*) FILTER (WHERE p.state <> 'interim'
            AND NOT dispatcher.is_charged(p.status, c.charged)))::integer AS uncharged
    FROM mine m
    JOIN dispatcher.outcome o ON o.message_id = m.id
    JOIN dispatcher.report p ON p.provider_id = o.provider_id
    LEFT JOIN dispatcher.carrier_status c ON c.status = upper(p.status)
    GROUP BY o.message_id
)
SELECT state, code, min(recipient) AS recipient, count(*) AS messages,
    coalesce(sum(segments), 0)::bigint AS segments,
    coalesce(sum(charged), 0)::bigint AS charged,
    count(*) FILTER (WHERE accepted_at > now() - make_interval(secs => $2)) AS recent,
    max(due_at) AS last_due_at
FROM (
    SELECT
        CASE
            WHEN o.state = 'accepted' THEN coalesce(r.state, 'accepted')
            WHEN o.state IS NOT NULL THEN o.state
            WHEN q.id IS NOT NULL THEN 'queued'
            WHEN l.state = 'open' THEN 'sending'
            WHEN l.state = 'unsure' THEN 'unsure'
            ELSE 'lost'
        END AS state,
        CASE
            WHEN r.state IS NOT NULL THEN r.status
            WHEN o.state = 'accepted' THEN coalesce(o.code, '000000')
            ELSE coalesce(o.code, q.code, l.code)
        END AS code,
        coalesce(o.segments, r.total) AS segments,
        CASE WHEN o.state = 'accepted' THEN dispatcher.charged_segments(
            dispatcher.billing_mode(a.billing, m.recipient), o.segments, r.total, r.delivered,
            r.uncharged) END AS charged,
        CASE WHEN o.state = 'accepted' THEN o.created_at END AS accepted_at,
        q.due_at,
        m.recipient
    FROM mine m
    LEFT JOIN dispatcher.outcome o ON o.message_id = m.id
    LEFT JOIN waiting q ON q.id = m.id
    LEFT JOIN live l ON l.id = m.id AND o.message_id IS NULL AND q.id IS NULL
    LEFT JOIN reported r ON r.message_id = m.id
    LEFT JOIN dispatcher.app a ON a.name = m.app
) AS s
GROUP BY state, code, CASE WHEN recipient LIKE '+86%' THEN '+86' ELSE left(recipient, 8) END

-- name: keep_campaign_count
-- Keep what was counted of a campaign.
-- $1 name, $2 counts as JSON, $3 when the counting began
UPDATE dispatcher.campaign SET counted = $2::text::jsonb, counted_at = $3
WHERE name = $1 AND coalesce(counted_at, '-infinity') < $3
