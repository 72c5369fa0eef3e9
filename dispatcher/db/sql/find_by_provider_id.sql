-- The message that the provider knows by an id. A report of it leads there at once, by the token of
-- its request and its number; without one, full partitions have an index, and the one being filled is read whole.
-- $1 provider id, $2 how many at most
WITH told AS MATERIALIZED (
    SELECT m.id
    FROM dispatcher.report r
    JOIN dispatcher.batch b ON b.token = r.token
    CROSS JOIN LATERAL unnest(b.message_ids) AS u (id)
    JOIN dispatcher.message m ON m.id = u.id
    WHERE r.provider_id = $1
      AND regexp_replace(m.recipient, '^[+]?(86)?', '') = regexp_replace(r.recipient, '^[+]?(86)?', '')
    LIMIT 1
), hit AS MATERIALIZED (
    SELECT id FROM told
    UNION ALL
    SELECT message_id FROM dispatcher.outcome
    WHERE provider_id = $1 AND NOT EXISTS (SELECT FROM told)
    LIMIT $2
)
SELECT s.id, s.app, s.recipient, s.reference, s.state, s.code, s.queued_at
FROM hit JOIN dispatcher.message_status s ON s.id = hit.id
WHERE s.id = ANY (ARRAY(SELECT id FROM hit))
ORDER BY s.id DESC
