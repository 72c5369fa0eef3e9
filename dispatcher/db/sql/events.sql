-- The event log and its counters.

-- name: append_events
-- Append to the event log, one row for each app, event and code. Each names its messages, or the
-- batch that they are all of.
-- $1 apps, $2 events, $3 codes, $4 message ids of each (an array as text) or null, $5 batches or
-- null, $6 how many messages
INSERT INTO dispatcher.event (app, event, code, message_ids, batch_id, message_count)
SELECT u.app, u.event, u.code, u.ids::bigint[], u.batch_id, u.message_count
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::int[])
    WITH ORDINALITY AS u (app, event, code, ids, batch_id, message_count, place)
ORDER BY u.place

-- name: place_events
-- Give new rows of the event log their positions behind all that have one; return how many. The
-- caller holds the lock of the event log since before this statement began, so it sees every position
-- that was given, and positions become visible in their order.
-- $1 limit of rows, $2 whether to notify each app's channel
WITH new AS MATERIALIZED (
    SELECT e.id, e.message_count, sum(e.message_count) OVER (ORDER BY e.id) AS upto
    FROM (
        SELECT id, message_count FROM dispatcher.event
        WHERE last_position IS NULL ORDER BY id LIMIT $1
    ) AS e
), placed AS (
    UPDATE dispatcher.event e SET last_position = p.last_position + new.upto
    FROM new, dispatcher.event_position p
    WHERE e.id = new.id AND e.id = ANY (ARRAY(SELECT id FROM new))
    RETURNING e.app, e.last_position
), moved AS (
    UPDATE dispatcher.event_position
    SET last_position = last_position + (SELECT sum(message_count) FROM new)
    WHERE EXISTS (SELECT FROM new)
), notified AS MATERIALIZED (
    -- A channel's name has at most 63 bytes.
    SELECT pg_notify(left('dispatcher_events_' || app, 63), max(last_position)::text)
    FROM placed WHERE $2 GROUP BY app
)
SELECT (SELECT count(*) FROM placed)::int AS rows, (SELECT count(*) FROM notified)::int AS channels

-- name: count_events
-- Add to the counters of this minute. Sorted, so that two transactions cannot lock crosswise.
-- $1 worker, $2 apps, $3 events, $4 codes, $5 counts
INSERT INTO dispatcher.event_count AS t (minute, app, event, code, worker, count)
SELECT date_trunc('minute', now()), u.app, u.event, u.code, $1, u.count
FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS u (app, event, code, count)
ORDER BY u.app, u.event, u.code
ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
