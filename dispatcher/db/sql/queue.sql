-- Messages that wait, in the queue and in bulk rows: claimed, returned, deferred.

-- name: claim
-- Delete the due messages of one app from the queue and return them, first priority first: when
-- each was due (seconds since 1970: exact, and cheap to read), then the fields of
-- core.message.Message in order. The caller writes their batches in the same transaction.
-- One index range per priority: a single ordered scan would walk past all that is not due yet.
-- The clock is asked in a subquery, because only what is fixed for the statement can bound an
-- index range. Likewise the lowest and the highest id: they leave out the other partitions.
-- A pause that came since the app was asked is seen here: it is committed together with the
-- messages it returned, which would otherwise be sent once more.
-- A message that has an outcome leaves the queue and is not returned: data that were loaded through
-- the parent table queue every message that there ever was.
-- FOR UPDATE SKIP LOCKED: workers share the queue without waiting for each other.
-- $1 app, $2 limit, $3 first priority, $4 last priority, $5 the app's default sender, $6 from when
-- on to look, for each priority from 0 on (see core.claim_cursor), $7 whether a paused app is probed,
-- $8 until when to look, for each priority: bulk rows that are due later come first
WITH due AS MATERIALIZED (
    SELECT head.ctid
    FROM generate_series($3::int, $4::int) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT q.ctid
        FROM dispatcher.queue q
        WHERE q.app = $1 AND q.priority = p.priority
          AND q.due_at >= to_timestamp(($6::float8[])[p.priority + 1])
          AND q.due_at <= (SELECT clock_timestamp())
          AND q.due_at <= to_timestamp(($8::float8[])[p.priority + 1])
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
  AND NOT EXISTS (
      SELECT FROM dispatcher.outcome o
      WHERE o.message_id = t.id
        AND o.message_id >= (SELECT min(id) FROM taken)
        AND o.message_id <= (SELECT max(id) FROM taken)
  )
ORDER BY t.priority, t.due_at, t.id

-- name: hold_bulk
-- Lock the first bulk row that is due and that no other claim holds; return its priority, when it was
-- due, and its first id. The lock makes sure that what comes before it in the queue is all that is to be claimed
-- first, and that this transaction can then claim it.
-- $1 app, $2 first priority, $3 last priority, $4 from when on to look, for each priority from 0 on
SELECT head.priority, date_part('epoch', head.due_at) AS due_at, head.first_id
FROM generate_series($2::int, $3::int) AS p (priority)
CROSS JOIN LATERAL (
    SELECT b.priority, b.due_at, b.first_id
    FROM dispatcher.bulk b
    WHERE b.app = $1 AND b.priority = p.priority
      AND b.due_at >= to_timestamp(($4::float8[])[p.priority + 1])
      AND b.due_at <= (SELECT clock_timestamp())
    ORDER BY b.due_at, b.first_id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
) AS head
LIMIT 1

-- name: claim_bulk
-- Delete the due bulk rows of one app and priority, up to the next row of the queue, and return their
-- messages as `claim` does. Rows are locked one by one until they hold as many messages as wanted.
-- Of the last row the first messages are taken, and the others wait on in a row of their own.
-- $1 app, $2 limit, $3 priority, $4 from when on: as hold_bulk has returned it, $5 the app's default
-- sender, $6 from when on to look in the queue, $7 whether a paused app is probed
WITH held AS MATERIALIZED (
    SELECT r.first_id, generate_series(lower(r.range), upper(r.range) - 1) AS id
    FROM (
        SELECT b.first_id, unnest(b.ids) AS range
        FROM (
            SELECT first_id, ids
            FROM dispatcher.bulk
            WHERE app = $1 AND priority = $3 AND due_at >= to_timestamp($4)
              AND due_at <= (SELECT clock_timestamp())
              AND due_at <= coalesce((
                  SELECT q.due_at FROM dispatcher.queue q
                  WHERE q.app = $1 AND q.priority = $3
                    AND q.due_at > to_timestamp($4) AND q.due_at >= to_timestamp($6)
                  ORDER BY q.due_at LIMIT 1), 'infinity')
              AND ($7 OR (SELECT a.paused_at IS NULL FROM dispatcher.app a WHERE a.name = $1))
            ORDER BY due_at, first_id
            FOR UPDATE SKIP LOCKED
        ) AS b
    ) AS r
    LIMIT $2
), part AS MATERIALIZED (
    SELECT first_id, count(*) AS size, int8multirange(int8range(NULL, max(id) + 1)) AS claimed
    FROM held GROUP BY first_id
), taken AS (
    DELETE FROM dispatcher.bulk
    WHERE first_id = ANY (ARRAY(SELECT first_id FROM part))
    RETURNING *
), rest AS (
    INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at)
    SELECT lower(t.ids - p.claimed), t.ids - p.claimed, t.size - p.size, t.app, t.priority, t.due_at
    FROM taken t JOIN part p ON p.first_id = t.first_id AND p.size < t.size
)
SELECT
    date_part('epoch', t.due_at),
    m.id,
    m.recipient,
    m.template_id,
    m.params,
    coalesce(m.sender, $5),
    m.signature,
    $3::smallint AS priority,
    1::smallint,
    date_part('epoch', m.expires_at - clock_timestamp()),
    false
FROM (
    SELECT t.due_at, unnest(t.ids * p.claimed) AS range
    FROM taken t JOIN part p ON p.first_id = t.first_id
) AS t
JOIN dispatcher.message m ON m.id >= lower(t.range) AND m.id < upper(t.range)
ORDER BY t.due_at, m.id

-- name: open_bulk
-- Move the bulk rows of these messages into the queue.
-- $1 message ids
SELECT dispatcher.open_bulk($1::bigint[])

-- name: lock_head
-- Lock the first due message of one app in the order of claims, and return it: the queue alone is
-- read, whatever is wrong with the message.
-- $1 app, $2 first priority, $3 last priority
SELECT q.id, q.attempt FROM dispatcher.queue q
WHERE q.app = $1 AND q.priority BETWEEN $2 AND $3 AND q.due_at <= clock_timestamp()
ORDER BY q.priority, q.due_at
LIMIT 1
FOR UPDATE SKIP LOCKED

-- name: reject_queued
-- Reject a message that waits, and that cannot be claimed; a row if it had no outcome yet.
-- $1 message id, $2 attempts, $3 code, $4 reason
WITH gone AS (DELETE FROM dispatcher.queue WHERE id = $1 RETURNING id)
INSERT INTO dispatcher.outcome (message_id, state, attempts, code, reason)
SELECT id, 'rejected', $2, $3, $4 FROM gone
ON CONFLICT (message_id) DO NOTHING
RETURNING message_id

-- name: read_head
-- Return the fields of a message as claim does.
-- $1 message id, $2 the app's default sender
SELECT id, recipient, template_id, params, coalesce(sender, $2), signature, priority, 1,
    date_part('epoch', expires_at - clock_timestamp()), false
FROM dispatcher.message WHERE id = $1

-- name: return_claimed
-- Return messages that this transaction claimed to the queue: to the place they had, or with a wait.
-- $1 app, $2 ids, $3 priorities, $4 when due (seconds since 1970; null: the wait from now on),
-- $5 waits (seconds), $6 attempts, $7 requeued, $8 codes
INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, requeued, code)
SELECT u.id, $1, u.priority,
    coalesce(to_timestamp(u.due_at), clock_timestamp() + make_interval(secs => u.wait)),
    u.attempt, u.requeued, u.code
FROM unnest($2::bigint[], $3::smallint[], $4::float8[], $5::float8[], $6::smallint[],
    $7::boolean[], $8::text[])
    AS u (id, priority, due_at, wait, attempt, requeued, code)

-- name: return_to_queue
-- Return messages of batches that were closed in this transaction to the queue, unless a report has
-- shown in the meantime that they were sent. A message that is in the queue already stays as it is.
-- $1 apps, $2 ids, $3 priorities, $4 waits (seconds from now), $5 attempts, $6 requeued,
-- $7 last batches, $8 codes
INSERT INTO dispatcher.queue (app, id, priority, due_at, attempt, requeued, last_batch, code)
SELECT u.app, u.id, u.priority, clock_timestamp() + make_interval(secs => u.wait), u.attempt,
    u.requeued, u.last_batch, u.code
FROM unnest($1::text[], $2::bigint[], $3::smallint[], $4::float8[], $5::smallint[], $6::boolean[],
    $7::bigint[], $8::text[])
    AS u (app, id, priority, wait, attempt, requeued, last_batch, code)
WHERE NOT EXISTS (
    SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id AND u.id = ANY ($2::bigint[])
)
ON CONFLICT (id) DO NOTHING

-- name: recall
-- Delete messages that wait to be sent again from the queue: a report shows that they were sent.
-- $1 message ids
DELETE FROM dispatcher.queue WHERE id = ANY ($1::bigint[]) RETURNING id

-- name: recall_resent
-- Delete messages of a batch that was given up for lost, and that wait to be sent again, from the
-- queue: its late answer shows that they were sent.
-- $1 message ids, $2 batch
DELETE FROM dispatcher.queue
WHERE id = ANY ($1::bigint[]) AND last_batch = $2 AND code IN ('resend', 'settled-by-operator')
RETURNING id
