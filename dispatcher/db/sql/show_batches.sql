-- The requests that a message was in, oldest first. Nothing leads from a message to all of its
-- batches, so those of its app since it was queued are looked through, the newest 20,000 at most.
-- $1 message id, $2 app, $3 queued at
SELECT
    b.token, b.state, b.opened_at, b.closed_at, b.unsure_at, b.tries, b.http_status, b.code,
    b.description, b.settled_by, b.bytes,
    cardinality(b.message_ids) AS messages,
    b.attempts[array_position(b.message_ids, $1)]::integer AS attempt
FROM (
    SELECT * FROM dispatcher.batch r
    WHERE r.app = $2 AND r.opened_at >= $3
    ORDER BY r.opened_at DESC
    LIMIT 20000
) AS b
WHERE b.message_ids @> ARRAY[$1::bigint]
ORDER BY b.opened_at
