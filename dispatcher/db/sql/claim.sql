-- Delete the due messages of one app from the queue and return them, first priority first: when
-- each was due (seconds since 1970: exact, and cheap to read), then the fields of
-- core.message.Message in order. The caller writes their batches in the same transaction.
-- One index range per priority: a single ordered scan would walk past all that is not due yet.
-- The clock is asked in a subquery, because only what is fixed for the statement can bound an
-- index range. Likewise the lowest and the highest id: they leave out the other partitions.
-- A pause that came since the app was asked is seen here: it is committed together with the
-- messages it put back, which would otherwise go out once more.
-- FOR UPDATE SKIP LOCKED: workers share the queue without waiting for each other.
-- $1 app, $2 limit, $3 first priority, $4 last priority, $5 the app's default sender, $6 from when
-- on to look, for each priority from 0 on (see db.floor), $7 whether a paused app is probed
WITH due AS MATERIALIZED (
    SELECT head.ctid
    FROM generate_series($3::int, $4::int) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT q.ctid
        FROM dispatcher.queue q
        WHERE q.app = $1 AND q.priority = p.priority
          AND q.due_at >= to_timestamp(($6::float8[])[p.priority + 1])
          AND q.due_at <= (SELECT clock_timestamp())
        ORDER BY q.due_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS head
    WHERE $7 OR (SELECT a.paused_at IS NULL FROM dispatcher.app a WHERE a.name = $1)
    LIMIT $2
), taken AS (
    DELETE FROM dispatcher.queue
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM due))
    RETURNING id, priority, due_at, attempt, requeued
)
SELECT
    date_part('epoch', t.due_at),
    m.id,
    m.recipient,
    m.template_id,
    m.params,
    coalesce(m.sender, $5),
    m.signature,
    t.priority,
    (t.attempt + 1)::smallint,
    date_part('epoch', m.expires_at - clock_timestamp()),
    t.requeued
FROM taken t
JOIN dispatcher.message m ON m.id = t.id
WHERE m.id = ANY (ARRAY(SELECT id FROM taken))
  AND m.id >= (SELECT min(id) FROM taken)
  AND m.id <= (SELECT max(id) FROM taken)
ORDER BY t.priority, t.due_at, t.id
