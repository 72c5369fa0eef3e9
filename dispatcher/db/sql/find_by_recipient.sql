-- Messages to a number, the newest first; two spellings of a mainland number are one.
-- Full partitions have an index on it, and the one being filled is read whole.
-- $1 spellings, $2 how many at most
WITH hit AS MATERIALIZED (
    SELECT id FROM dispatcher.message WHERE recipient = ANY ($1::text[]) ORDER BY id DESC LIMIT $2
)
SELECT s.id, s.app, s.recipient, s.reference, s.state, s.code, s.queued_at
FROM hit JOIN dispatcher.message_status s ON s.id = hit.id
WHERE s.id = ANY (ARRAY(SELECT id FROM hit))
ORDER BY s.id DESC
