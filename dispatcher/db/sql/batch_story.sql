-- One request: what was sent, and what was answered.
-- $1 token
SELECT
    b.id, b.token, b.app, b.worker, b.state, b.bytes, b.opened_at, b.unsure_at, b.closed_at,
    b.tries, b.http_status, b.code, b.description, b.settled_by,
    cardinality(b.message_ids) AS messages,
    p.token AS parent
FROM dispatcher.batch b
LEFT JOIN dispatcher.batch p ON p.id = b.parent
WHERE b.token = $1
