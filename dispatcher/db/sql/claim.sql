-- Delete the due messages of one app from the queue and return them, first priority first: when
-- each was due, then the fields of core.message.Message in order. The caller writes their batches
-- in the same transaction.
-- One index range per priority: a single ordered scan would walk past all that is not due yet.
-- FOR UPDATE SKIP LOCKED: workers share the queue without waiting for each other.
-- $1 app, $2 limit, $3 first priority, $4 last priority, $5 the app's default sender
WITH due AS MATERIALIZED (
    SELECT head.ctid
    FROM generate_series($3::int, $4::int) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT q.ctid
        FROM dispatcher.queue q
        WHERE q.app = $1 AND q.priority = p.priority AND q.due_at <= clock_timestamp()
        ORDER BY q.due_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS head
    LIMIT $2
), taken AS (
    DELETE FROM dispatcher.queue
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM due))
    RETURNING id, priority, due_at, attempt, requeued
)
SELECT
    t.due_at,
    m.id,
    m.recipient,
    m.template_id,
    m.params,
    coalesce(m.sender, $5),
    m.signature,
    t.priority,
    (t.attempt + 1)::smallint,
    extract(epoch FROM m.expires_at - clock_timestamp())::float8,
    t.requeued
FROM taken t
JOIN dispatcher.message m ON m.id = t.id
WHERE m.id = ANY (ARRAY(SELECT id FROM taken))
ORDER BY t.priority, t.due_at, t.id
