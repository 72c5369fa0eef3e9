-- Messages with an application's own word, the newest first.
-- Full partitions have an index on it, and the one being filled is read whole.
-- $1 reference, $2 how many at most
WITH hit AS MATERIALIZED (
    SELECT id FROM dispatcher.message WHERE reference = $1 ORDER BY id DESC LIMIT $2
)
SELECT s.id, s.app, s.recipient, s.reference, s.state, s.code, s.queued_at
FROM hit JOIN dispatcher.message_status s ON s.id = hit.id
WHERE s.id = ANY (ARRAY(SELECT id FROM hit))
ORDER BY s.id DESC
