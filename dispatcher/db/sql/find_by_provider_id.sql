-- The message that the provider knows by an id. A report of it leads there at once; without one,
-- full partitions have an index, and the one being filled is read whole.
-- $1 provider id, $2 how many at most
WITH told AS MATERIALIZED (
    SELECT message_id AS id FROM dispatcher.report
    WHERE provider_id = $1 AND message_id IS NOT NULL LIMIT 1
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
