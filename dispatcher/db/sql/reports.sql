-- Status reports: stored, counted, listed.

-- name: store_reports
-- Write reports, and leave for the matching what is new in them; safe to repeat. A report only
-- moves forward: an interim one becomes final; a final one that the platform made up gives way to
-- the carrier's; one whose status says no result to a delivery; any other final one never changes.
-- What gave way is kept in earlier (core/report_status.py, takes_place).
-- Returns how many were news, or no row if none was.
-- The caller sorts the keys, so that two receivers cannot lock crosswise, and gives each once.
-- All but the last three are arrays as text.
-- $1 provider ids, $2 segments, $3 totals, $4 statuses, $5 states, $6 tokens, $7 recipients,
-- $8 seconds since it came, $9 times of the carrier (seconds since 1970), $10 sources, $11 descriptions,
-- $12 codes of the carrier, $13 raw, $14 final statuses that the platform makes up,
-- $15 pattern of the statuses that say a result
WITH written AS (
    INSERT INTO dispatcher.report AS r (provider_id, segment, total, status, state, token,
        recipient, received_at, updated_at, source, description, org_code, raw)
    SELECT u.provider_id, u.segment, u.total, u.status, u.state, u.token, u.recipient,
        clock_timestamp() - make_interval(secs => u.age), to_timestamp(u.updated_at), u.source,
        u.description, u.org_code, u.raw::jsonb
    FROM unnest($1::text::text[], $2::text::smallint[], $3::text::smallint[], $4::text::text[],
        $5::text::text[], $6::text::text[], $7::text::text[], $8::text::float8[],
        $9::text::float8[], $10::text::smallint[], $11::text::text[], $12::text::text[],
        $13::text[])
        AS u (provider_id, segment, total, status, state, token, recipient, age, updated_at,
            source, description, org_code, raw)
    ON CONFLICT (provider_id, segment) DO UPDATE SET
        total = greatest(r.total, excluded.total),
        status = excluded.status,
        state = excluded.state,
        token = coalesce(r.token, excluded.token),
        recipient = coalesce(r.recipient, excluded.recipient),
        received_at = excluded.received_at,
        updated_at = excluded.updated_at,
        source = excluded.source,
        description = excluded.description,
        org_code = excluded.org_code,
        raw = excluded.raw,
        earlier = jsonb_build_object(
            'status', r.status, 'received_at', r.received_at, 'updated_at', r.updated_at,
            'raw', r.raw)
    WHERE excluded.state <> 'interim' AND (r.state = 'interim'
        OR upper(r.status) = ANY ($14::text[]) AND upper(excluded.status) <> ALL ($14::text[])
        OR r.state = 'undelivered' AND excluded.state = 'delivered' AND r.status !~* $15)
    RETURNING provider_id, segment, total, state, status, coalesce(token, '') AS token,
        coalesce(recipient, '') AS recipient, xmax = 0 AS fresh
)
INSERT INTO dispatcher.report_inbox
    (provider_ids, segments, totals, states, statuses, tokens, recipients, fresh)
SELECT array_agg(provider_id), array_agg(segment), array_agg(total), array_agg(state),
    array_agg(status), array_agg(token), array_agg(recipient), array_agg(fresh)
FROM written
HAVING count(*) > 0
RETURNING size

-- name: sum_reports
-- Write the state of messages by all their reports so far; return those of which it is new, and
-- whether it is the first. Delivered when every segment is, undelivered when one is not.
-- $1 provider ids, $2 final statuses that the platform makes up
INSERT INTO dispatcher.report_summary AS s (provider_id, state, status)
SELECT r.provider_id,
    CASE
        WHEN bool_or(r.state = 'undelivered') THEN 'undelivered'
        WHEN count(*) FILTER (WHERE r.state = 'delivered') >= max(r.total) THEN 'delivered'
        ELSE 'interim'
    END,
    coalesce(
        min(r.status) FILTER (WHERE r.state = 'undelivered'),
        min(r.status) FILTER (WHERE r.state = 'delivered'),
        min(r.status)
    )
FROM dispatcher.report r
WHERE r.provider_id = ANY ($1::text[])
GROUP BY r.provider_id
ORDER BY r.provider_id
ON CONFLICT (provider_id) DO UPDATE SET state = excluded.state, status = excluded.status,
    updated_at = now()
WHERE excluded.state <> 'interim' AND (s.state <> excluded.state
    OR upper(s.status) = ANY ($2::text[]) AND (excluded.state, excluded.status) <> (s.state, s.status))
RETURNING provider_id, state, status, xmax = 0 AS fresh

-- name: register_statuses
-- Write what the statuses of reports mean, for message_status.
-- $1 statuses, $2 states, $3 meanings, $4 whether such a message may be sent again, $5 whether it is
-- charged where what is sent is charged
INSERT INTO dispatcher.carrier_status AS c (status, state, meaning, resendable, charged)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::boolean[])
ON CONFLICT (status) DO UPDATE SET state = excluded.state, meaning = excluded.meaning,
    resendable = excluded.resendable, charged = excluded.charged
WHERE (c.state, c.meaning, c.resendable, c.charged)
    <> (excluded.state, excluded.meaning, excluded.resendable, excluded.charged)

-- name: report_backlog
-- Return how many reports wait to be matched, and for how long the oldest has; the inbox is small.
SELECT coalesce(sum(size), 0)::bigint AS reports,
    coalesce(extract(epoch FROM clock_timestamp() - min(received_at)), 0)::float8 AS oldest_seconds
FROM dispatcher.report_inbox

-- name: awaiting_reports
-- Return by app what of the accepted has no report yet; from the counters alone. Minutes further back
-- than $1 are left out: the provider has reported by then, or never will. The last column has what was
-- sent and is overdue since the last minute of which anything was reported: a callback address that
-- breaks shows there at once, and in a share of all only after hours.
-- $1 seconds that count, $2 seconds after which a report is overdue
WITH minutes AS (
    SELECT app, minute,
        coalesce(sum(count) FILTER (WHERE event <> 'reported'), 0) AS accepted,
        coalesce(sum(count) FILTER (WHERE event = 'accepted'), 0) AS sent,
        coalesce(sum(count) FILTER (WHERE event = 'reported'), 0) AS reported
    FROM dispatcher.event_count
    WHERE minute > now() - make_interval(secs => $1)
      AND (event IN ('accepted', 'reported') OR event = 'settled' AND code = 'sent')
    GROUP BY app, minute
), counted AS (
    SELECT *, max(minute) FILTER (WHERE reported > 0 AND minute <= now()) OVER (PARTITION BY app)
        AS last_reported
    FROM minutes
)
SELECT
    app,
    sum(accepted)::bigint AS accepted,
    sum(greatest(accepted - reported, 0))::bigint AS waiting,
    coalesce(sum(greatest(accepted - reported, 0))
        FILTER (WHERE minute < now() - make_interval(secs => $2)), 0)::bigint AS overdue,
    extract(epoch FROM now() - min(minute) FILTER (WHERE accepted > reported))::float8
        AS oldest_seconds,
    coalesce(sum(sent) FILTER (WHERE minute > last_reported
        AND minute < now() - make_interval(secs => $2)), 0)::bigint AS since_last
FROM counted
GROUP BY app
ORDER BY app

-- name: unmatched_reports
-- Return reports that belong to no message, newest first; not those that a requeue has left behind.
-- $1 limit
SELECT m.provider_id, m.segment, m.reason, m.first_seen_at, m.due_at IS NOT NULL AS again,
    r.status, r.state, r.token, r.recipient
FROM dispatcher.unmatched_report m
JOIN dispatcher.report r ON r.provider_id = m.provider_id AND r.segment = m.segment
WHERE m.reason <> 'requeued'
ORDER BY m.first_seen_at DESC
LIMIT $1

-- name: announce_check
-- Notify the check of the callback address that its test report has reached this database.
-- $1 the token of the test
SELECT pg_notify('dispatcher_check', $1)

-- name: keep_unreadable
-- Keep a push that cannot be read, as it came; one that came before is counted.
-- $1 digest, $2 reason, $3 content type, $4 body, $5 seconds since it came, $6 path, $7 what in it may be
-- tokens of batches
INSERT INTO dispatcher.unreadable_push AS p
    (digest, reason, content_type, body, received_at, last_at, path, tokens)
SELECT $1, $2, $3, $4, t.at, t.at, $6, $7
FROM (SELECT clock_timestamp() - make_interval(secs => $5::float8)) AS t (at)
ON CONFLICT (digest) DO UPDATE SET times = p.times + 1, last_at = greatest(p.last_at, excluded.last_at),
    reason = excluded.reason, body = excluded.body, read_at = NULL

-- name: unreadable_pushes
-- Pushes that cannot be read, newest first.
-- $1 limit
SELECT encode(digest, 'hex') AS digest, received_at, last_at, times, reason, content_type, body, path
FROM dispatcher.unreadable_push
WHERE read_at IS NULL
ORDER BY received_at DESC
LIMIT $1

-- name: unreadable_count
-- How many pushes cannot be read, 10,001 at most, and when the last came.
SELECT count(*) AS pushes, max(last_at) AS last_at
FROM (SELECT last_at FROM dispatcher.unreadable_push WHERE read_at IS NULL LIMIT 10001) AS p

-- name: unreadable_take
-- Lock pushes that cannot be read, for reading them again, in the order in which they came.
-- $1 when the one before came, $2 its digest, $3 limit
SELECT digest, content_type, body, received_at, path
FROM dispatcher.unreadable_push
WHERE read_at IS NULL AND (received_at, digest) > ($1, $2)
ORDER BY received_at, digest
LIMIT $3
FOR UPDATE

-- name: unreadable_read
-- Note that a push has been read after all.
-- $1 digest
UPDATE dispatcher.unreadable_push SET read_at = clock_timestamp() WHERE digest = $1
