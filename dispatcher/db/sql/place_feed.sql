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
