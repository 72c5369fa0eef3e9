-- Mark due messages as claimed and return them, in the order of core.message.Message.
-- $1 app, $2 limit, $3 worker
WITH due AS MATERIALIZED (
    SELECT id
    FROM usual.message
    WHERE app = $1 AND status = 'queued' AND send_at <= now()
    ORDER BY priority, send_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE usual.message m
SET status = 'claimed', attempts = m.attempts + 1, claimed_by = $3, claimed_at = now()
FROM due
WHERE m.id = due.id
RETURNING m.id, m.recipient, m.template_id, m.params, m.sender, m.signature, m.priority, m.attempts
