-- The event log and its counters.

-- name: append_feed
-- Append results of messages to the feed, one row for each app, event and code. Each names its
-- messages, or the batch that they are all of.
-- $1 apps, $2 events, $3 codes, $4 message ids of each (an array as text) or null, $5 batches or
-- null, $6 how many messages
INSERT INTO dispatcher.feed (app, event, code, message_ids, batch_id, size)
SELECT u.app, u.event, u.code, u.ids::bigint[], u.batch_id, u.size
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::int[])
    WITH ORDINALITY AS u (app, event, code, ids, batch_id, size, place)
ORDER BY u.place

-- name: place_feed
-- Give new rows of the feed their place behind all that have one; returns how many. The caller
-- holds the lock of the feed since before this statement began, so it sees every place that was
-- given, and places become visible in their order.
-- $1 limit of rows, $2 whether to notify each app's channel
WITH new AS MATERIALIZED (
    SELECT f.id, f.size, sum(f.size) OVER (ORDER BY f.id) AS upto
    FROM (
        SELECT id, size FROM dispatcher.feed WHERE last IS NULL ORDER BY id LIMIT $1
    ) AS f
), placed AS (
    UPDATE dispatcher.feed f SET last = e.last + new.upto
    FROM new, dispatcher.feed_end e
    WHERE f.id = new.id AND f.id = ANY (ARRAY(SELECT id FROM new))
    RETURNING f.app, f.last
), ended AS (
    UPDATE dispatcher.feed_end SET last = last + (SELECT sum(size) FROM new)
    WHERE EXISTS (SELECT FROM new)
), told AS MATERIALIZED (
    -- A channel's name has at most 63 bytes.
    SELECT pg_notify(left('dispatcher_events_' || app, 63), max(last)::text)
    FROM placed WHERE $2 GROUP BY app
)
SELECT (SELECT count(*) FROM placed)::int AS rows, (SELECT count(*) FROM told)::int AS channels

-- name: count_events
-- Add to the counters of this minute. Sorted, so that two transactions cannot lock crosswise.
-- $1 worker, $2 apps, $3 events, $4 codes, $5 counts
INSERT INTO dispatcher.tally AS t (minute, app, event, code, worker, count)
SELECT date_trunc('minute', now()), u.app, u.event, u.code, $1, u.count
FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS u (app, event, code, count)
ORDER BY u.app, u.event, u.code
ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
