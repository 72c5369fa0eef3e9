-- Messages that wait, in the queue and in bulk rows: claimed, returned, deferred.

-- name: claim
-- Delete the due messages of one app from the queue and return them, first priority first: when
-- each was due (seconds since 1970: exact, and cheap to read), the bytes of large variables, which
-- are left out (read_large reads them), then the fields of core.message.Message in order, and of what
-- returned before why, and the batch that it returned from. The caller writes their batches in the same
-- transaction.
-- One index range per priority: a single ordered scan would walk past all that is not due yet.
-- The clock is asked in a subquery, because only what is fixed for the statement can bound an
-- index range. Likewise the lowest and the highest id: they leave out the other partitions. The ids
-- as an array are looked up one by one: all between an old message and a new one would be read.
-- A pause that came since the app was asked is seen here: it is committed together with the
-- messages it returned, which would otherwise be sent once more.
-- Messages of a campaign that is paused or cancelled stay where they are.
-- A message that has an outcome leaves the queue and is not returned: data that were loaded through
-- the parent table queue every message that there ever was. One that has no row in the table (its
-- partition was detached, or the row deleted) leaves it too, and is returned without a recipient.
-- FOR UPDATE SKIP LOCKED: workers share the queue without waiting for each other.
-- $1 app, $2 limit, $3 first priority, $4 last priority, $5 the app's default sender, $6 from when
-- on to look, for each priority from 0 on (see core.claim_cursor), $7 whether a paused app is probed,
-- $8 when the first bulk row of the last priority was due, before which to stop (null: there is none),
-- $9 whether to leave out what returned with a code
WITH due AS MATERIALIZED (
    SELECT head.ctid
    FROM generate_series($3::int, $4::int) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT q.ctid
        FROM dispatcher.queue q
        WHERE q.app = $1 AND q.priority = p.priority
          AND q.due_at >= to_timestamp(($6::float8[])[p.priority + 1])
          AND q.due_at <= least((SELECT clock_timestamp()),
              CASE WHEN p.priority = $4 THEN to_timestamp($8) END)
          AND (q.code IS NULL OR NOT $9)
          AND (q.campaign = ANY (ARRAY(
              SELECT c.name FROM dispatcher.campaign c WHERE c.state <> 'running'
          ))) IS NOT TRUE
        ORDER BY q.due_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS head
    WHERE $7 OR (SELECT a.paused_at IS NULL FROM dispatcher.app a WHERE a.name = $1)
    LIMIT $2
), taken AS (
    DELETE FROM dispatcher.queue
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM due))
    RETURNING id, priority, due_at, attempt, requeued, throttled, code, last_batch
)
SELECT
    date_part('epoch', t.due_at),
    CASE WHEN pg_column_size(m.params) > 8192 THEN pg_column_size(m.params) END,
    t.id,
    m.recipient,
    m.template_id,
    CASE WHEN pg_column_size(m.params) > 8192 THEN '{}' ELSE m.params END,
    coalesce(m.sender, $5),
    m.signature,
    date_part('epoch', m.expires_at - clock_timestamp()),
    t.priority,
    least(t.attempt + 1, 32767)::smallint,
    t.requeued,
    t.throttled,
    t.code,
    t.last_batch
FROM taken t
LEFT JOIN dispatcher.message m ON m.id = t.id
  AND m.id = ANY (ARRAY(SELECT id FROM taken))
  AND m.id >= (SELECT min(id) FROM taken)
  AND m.id <= (SELECT max(id) FROM taken)
WHERE NOT EXISTS (
      SELECT FROM dispatcher.outcome o
      WHERE o.message_id = t.id
        AND o.message_id = ANY (ARRAY(SELECT id FROM taken))
        AND o.message_id >= (SELECT min(id) FROM taken)
        AND o.message_id <= (SELECT max(id) FROM taken)
  )
ORDER BY t.priority, t.due_at, t.id

-- name: read_large
-- Return the variables that a claim left out.
-- $1 message ids
SELECT id, params FROM dispatcher.message WHERE id = ANY ($1::bigint[])

-- name: lock_bulk
-- Lock the first bulk row of one app that is due and that no other claim holds; return its priority,
-- when it was due (seconds since 1970), and whether a message of the queue comes before it. Because
-- it is locked, this claim can take it once it has taken those.
-- $1 app, $2 first priority, $3 last priority, $4 from when on to look, for each priority from 0 on
SELECT head.priority, date_part('epoch', head.due_at) AS due_at,
    EXISTS (
        SELECT FROM generate_series($2::int, head.priority::int) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT FROM dispatcher.queue q
            WHERE q.app = $1 AND q.priority = p.priority
              AND q.due_at >= to_timestamp(($4::float8[])[p.priority + 1])
              AND q.due_at <= least((SELECT clock_timestamp()),
                  CASE WHEN p.priority = head.priority THEN head.due_at END)
            ORDER BY q.due_at LIMIT 1
        ) AS before
    ) AS queue_first
FROM generate_series($2::int, $3::int) AS p (priority)
CROSS JOIN LATERAL (
    SELECT b.priority, b.due_at
    FROM dispatcher.bulk b
    WHERE b.app = $1 AND b.priority = p.priority
      AND b.due_at >= to_timestamp(($4::float8[])[p.priority + 1])
      AND b.due_at <= (SELECT clock_timestamp())
      AND (b.campaign = ANY (ARRAY(
          SELECT c.name FROM dispatcher.campaign c WHERE c.state <> 'running'
      ))) IS NOT TRUE
    ORDER BY b.due_at, b.first_id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
) AS head
LIMIT 1

-- name: claim_bulk
-- Delete due bulk rows of one app and priority, up to the next message of the queue, and return their
-- messages as `claim` does, without the last columns: none was claimed before. Rows are locked one by one, until they hold as many messages as wanted;
-- those of fewer than 20 messages count as 20, so that there may be more. The last row may hold more
-- than is wanted: the others wait on in a new row.
-- In the order of due times and ids: the ranges are sorted, a few, and each is read along the index.
-- To sort the messages would cost a tenth of the claim. LATERAL leaves no other plan.
-- A row that was loaded again after its messages were sent is known by their outcomes, which are
-- looked for once for each range of ids.
-- The last row is no message: in the place of the size it has how many there must be, and in that of
-- the variables their ranges, so that the caller sees which are missing in the table. Both are null if none
-- of the rows that it locked was deleted: a trigger of an application keeps them. What is not deleted is
-- not taken, or the next claim would take it too.
-- $1 app, $2 limit, $3 priority, $4 from when on: as lock_bulk has returned it, $5 the app's default
-- sender, $6 whether a paused app is probed
WITH held AS MATERIALIZED (
    SELECT b.*, generate_series(20, size + 19, 20) AS counted
    FROM (
        SELECT first_id, ids, size, due_at, campaign
        FROM dispatcher.bulk
        WHERE app = $1 AND priority = $3 AND due_at >= to_timestamp($4)
          AND due_at <= (SELECT least(clock_timestamp(), (
              SELECT q.due_at FROM dispatcher.queue q
              WHERE q.app = $1 AND q.priority = $3 AND q.due_at > to_timestamp($4)
              ORDER BY q.due_at LIMIT 1)))
          AND (campaign = ANY (ARRAY(
              SELECT c.name FROM dispatcher.campaign c WHERE c.state <> 'running'
          ))) IS NOT TRUE
          AND ($6 OR (SELECT a.paused_at IS NULL FROM dispatcher.app a WHERE a.name = $1))
        ORDER BY due_at, first_id
        FOR UPDATE SKIP LOCKED
    ) AS b
    LIMIT ($2 + 19) / 20
), chosen AS MATERIALIZED (
    SELECT first_id, ids, due_at, campaign, size,
        $2 - sum(size) OVER (ORDER BY due_at, first_id) AS room
    FROM held WHERE counted = 20
), part AS MATERIALIZED (
    SELECT *, CASE WHEN room >= 0 THEN ids ELSE ids * int8multirange(int8range(NULL, (
        SELECT id FROM unnest(ids) AS range, generate_series(lower(range), upper(range) - 1) AS id
        ORDER BY id OFFSET size + room LIMIT 1))) END AS claimed
    FROM chosen
), gone AS (
    DELETE FROM dispatcher.bulk WHERE first_id = ANY (ARRAY(SELECT first_id FROM part))
    RETURNING first_id
), taken AS MATERIALIZED (
    SELECT * FROM part WHERE first_id = ANY (ARRAY(SELECT first_id FROM gone))
), rest AS (
    INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at, campaign)
    SELECT lower(ids - claimed), ids - claimed, -room, $1, $3, due_at, campaign
    FROM taken WHERE room < 0
), span AS MATERIALIZED (
    SELECT date_part('epoch', due_at) AS due, unnest(claimed) AS range FROM taken
), finished AS MATERIALIZED (
    SELECT o.message_id
    FROM span s
    JOIN dispatcher.outcome o ON o.message_id >= lower(s.range) AND o.message_id < upper(s.range)
)
SELECT
    s.due,
    m.*
FROM (SELECT due, range FROM span ORDER BY due, range) AS s
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN pg_column_size(m.params) > 8192 THEN pg_column_size(m.params) END,
        m.id,
        m.recipient,
        m.template_id,
        CASE WHEN pg_column_size(m.params) > 8192 THEN '{}' ELSE m.params END,
        coalesce(m.sender, $5),
        m.signature,
        date_part('epoch', m.expires_at - clock_timestamp()),
        $3::smallint AS priority
    FROM dispatcher.message m
    WHERE m.id >= lower(s.range) AND m.id < upper(s.range)
      AND m.id <> ALL (ARRAY(SELECT message_id FROM finished))
    ORDER BY m.id
) AS m
UNION ALL
SELECT NULL, (sum(upper(range) - lower(range)) - (SELECT count(*) FROM finished))::int, NULL, NULL, NULL,
    array_agg(range::text), NULL, NULL, NULL, NULL
FROM span
HAVING EXISTS (SELECT FROM part)

-- name: missing_messages
-- Return the ids that have neither a message nor an outcome. OFFSET 0: each is looked up. A claim has
-- pinned the planner by then, and would join all of history instead.
-- $1 ranges of ids
SELECT id
FROM unnest($1::text[]) AS range,
    generate_series(lower(range::int8range), upper(range::int8range) - 1) AS each (id)
WHERE NOT EXISTS (SELECT FROM dispatcher.message m WHERE m.id = each.id OFFSET 0)
  AND NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = each.id OFFSET 0)
ORDER BY id

-- name: lock_head
-- Lock the first due message of one app in the order of claims, alone or in a bulk row, and return
-- it: messages are not read, whatever is wrong with one.
-- $1 app, $2 first priority, $3 last priority, $4 whether to leave out what returned with a code
WITH stopped AS MATERIALIZED (
    SELECT name FROM dispatcher.campaign WHERE state <> 'running'
), alone AS MATERIALIZED (
    SELECT q.priority, q.due_at, q.id, q.attempt, q.requeued FROM dispatcher.queue q
    WHERE q.app = $1 AND q.priority BETWEEN $2 AND $3 AND q.due_at <= clock_timestamp()
      AND (q.code IS NULL OR NOT $4)
      AND (q.campaign = ANY (ARRAY(SELECT name FROM stopped))) IS NOT TRUE
    ORDER BY q.priority, q.due_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
), together AS MATERIALIZED (
    SELECT b.priority, b.due_at, b.first_id, 0::smallint, false FROM dispatcher.bulk b
    WHERE b.app = $1 AND b.priority BETWEEN $2 AND $3 AND b.due_at <= clock_timestamp()
      AND (b.campaign = ANY (ARRAY(SELECT name FROM stopped))) IS NOT TRUE
    ORDER BY b.priority, b.due_at, b.first_id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
SELECT id, attempt, requeued
FROM (TABLE alone UNION ALL TABLE together) AS head
ORDER BY priority, due_at
LIMIT 1

-- name: reject_queued
-- Reject a message that waits, and that cannot be claimed; a row if it had no outcome yet.
-- $1 message id, $2 attempts, $3 code, $4 reason
WITH gone AS (
    DELETE FROM dispatcher.queue WHERE id = $1 RETURNING id
), left_bulk AS (
    SELECT id FROM dispatcher.take_from_bulk(dispatcher.bulk_rows_with(ARRAY[$1]), ARRAY[$1])
)
INSERT INTO dispatcher.outcome (message_id, state, attempts, code, reason)
SELECT id, 'rejected', $2, $3, $4 FROM (TABLE gone UNION ALL TABLE left_bulk) AS message
ON CONFLICT (message_id) DO NOTHING
RETURNING message_id

-- name: postpone_queued
-- Let a message that waits wait longer, alone, whose batch or outcome the database refuses.
-- $1 message id, $2 seconds, $3 code
WITH gone AS (
    DELETE FROM dispatcher.queue WHERE id = $1 RETURNING id, attempt, requeued, throttled, last_batch
), waits AS (
    TABLE gone
    UNION ALL
    SELECT id, 0::smallint, false, 0::smallint, NULL
    FROM dispatcher.take_from_bulk(dispatcher.bulk_rows_with(ARRAY[$1]), ARRAY[$1])
)
INSERT INTO dispatcher.queue
    (id, app, priority, due_at, attempt, requeued, throttled, last_batch, code, campaign, waits_since)
SELECT m.id, m.app, m.priority, clock_timestamp() + make_interval(secs => $2), w.attempt,
    w.requeued, w.throttled, w.last_batch, $3, m.campaign, clock_timestamp()
FROM waits w
JOIN dispatcher.message m ON m.id = w.id AND m.id = $1

-- name: read_head
-- Return the fields of a message as claim does.
-- $1 message id, $2 the app's default sender, $3 attempt, $4 whether it was requeued
SELECT id, recipient, template_id, params, coalesce(sender, $2), signature,
    date_part('epoch', expires_at - clock_timestamp()), priority, least($3::int, 32767)::smallint, $4::boolean
FROM dispatcher.message WHERE id = $1

-- name: return_claimed
-- Return messages that this transaction claimed to the queue: to the place they had, or with a wait.
-- $1 app, $2 ids, $3 priorities, $4 when due (seconds since 1970; null: the wait from now on),
-- $5 waits (seconds), $6 attempts, $7 requeued, $8 last batches, $9 codes,
-- $10 how often flow control returned them
INSERT INTO dispatcher.queue
    (id, app, priority, due_at, attempt, requeued, throttled, last_batch, code, campaign, waits_since)
SELECT u.id, $1, u.priority,
    coalesce(to_timestamp(u.due_at), clock_timestamp() + make_interval(secs => u.wait)),
    u.attempt, u.requeued, u.throttled, u.last_batch, u.code,
    (SELECT m.campaign FROM dispatcher.message m WHERE m.id = u.id), clock_timestamp()
FROM unnest($2::bigint[], $3::smallint[], $4::float8[], $5::float8[], $6::smallint[],
    $7::boolean[], $8::bigint[], $9::text[], $10::smallint[])
    AS u (id, priority, due_at, wait, attempt, requeued, last_batch, code, throttled)

-- name: return_to_queue
-- Return messages of batches that were closed in this transaction to the queue, unless a report has
-- shown in the meantime that they were sent. A message that is in the queue already stays as it is.
-- $1 apps, $2 ids, $3 priorities, $4 waits (seconds from now), $5 attempts, $6 requeued,
-- $7 last batches, $8 codes, $9 how often flow control returned them
INSERT INTO dispatcher.queue (app, id, priority, due_at, attempt, requeued, throttled, last_batch, code,
    campaign, waits_since)
SELECT u.app, u.id, u.priority, clock_timestamp() + make_interval(secs => u.wait), u.attempt,
    u.requeued, u.throttled, u.last_batch, u.code,
    (SELECT m.campaign FROM dispatcher.message m WHERE m.id = u.id), clock_timestamp()
FROM unnest($1::text[], $2::bigint[], $3::smallint[], $4::float8[], $5::smallint[], $6::boolean[],
    $7::bigint[], $8::text[], $9::smallint[])
    AS u (app, id, priority, wait, attempt, requeued, last_batch, code, throttled)
WHERE NOT EXISTS (
    SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id AND u.id = ANY ($2::bigint[])
)
ON CONFLICT (id) DO NOTHING

-- name: recall
-- Take back messages of requests that were given up for lost; return those that are the caller's now, and
-- the batch that one was unsure in again, which is locked.
-- $1 message ids, $2 batches, $3 tokens
SELECT id, again FROM dispatcher.take_back($1, $2, $3)

-- name: wait_for_given_up
-- Wait for the first message of a request given up for lost that another session holds where `recall`
-- takes it back, or for the later request in which it is unsure; then hold those of the queue that are
-- free. While it waits, it holds none: so it is in no deadlock.
-- $1 message ids, $2 batch, $3 token
WITH given_up AS MATERIALIZED (
    SELECT u.id
    FROM dispatcher.batch g
    CROSS JOIN LATERAL unnest(coalesce(g.unsure_ids, g.message_ids)) AS u (id)
    WHERE g.id = $2 AND g.token = $3 AND g.settled_by IN ('policy: resend', 'operator: resend')
      AND u.id = ANY ($1::bigint[])
), waiting AS MATERIALIZED (
    SELECT q.id FROM dispatcher.queue q
    WHERE q.id = ANY (ARRAY(SELECT id FROM given_up))
    ORDER BY q.id
    LIMIT 1
    FOR UPDATE
), ended AS MATERIALIZED (
    SELECT o.message_id FROM dispatcher.outcome o
    WHERE (SELECT count(*) FROM waiting) = 0
      AND o.message_id = ANY (ARRAY(SELECT id FROM given_up)) AND o.state <> 'accepted'
      AND o.message_id >= (SELECT min(id) FROM given_up)
      AND o.message_id <= (SELECT max(id) FROM given_up)
    ORDER BY o.message_id
    LIMIT 1
    FOR UPDATE
), unsure AS MATERIALIZED (
    SELECT b.id FROM dispatcher.batch b
    WHERE (SELECT count(*) FROM waiting) + (SELECT count(*) FROM ended) = 0
      AND b.state = 'unsure' AND EXISTS (SELECT FROM given_up)
      AND EXISTS (
        SELECT FROM unnest(coalesce(b.unsure_ids, b.message_ids)) AS q (id)
        WHERE (q.id IN (SELECT id FROM given_up)) IS TRUE)
    ORDER BY b.id
    LIMIT 1
    FOR UPDATE
)
SELECT q.id FROM dispatcher.queue q
WHERE (SELECT count(*) FROM waiting) + (SELECT count(*) FROM ended)
        + (SELECT count(*) FROM unsure) >= 0
  AND q.id = ANY (ARRAY(SELECT id FROM given_up))
FOR UPDATE SKIP LOCKED

-- name: hold_queued
-- Hold messages that wait alone, but for those that another session holds, until the end of this
-- transaction: no claim takes them. A statement of its own: it sees what a requeue that was waited for has
-- committed.
-- $1 message ids
SELECT id FROM dispatcher.queue WHERE id = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED

-- name: recall_left
-- Return whether `recall`, which waits for nobody, has left messages of a request given up for lost where
-- it takes them back: another session held them. A statement of its own, which sees what that has done.
-- $1 message ids, $2 batch, $3 token
WITH given_up AS MATERIALIZED (
    SELECT u.id
    FROM dispatcher.batch g
    CROSS JOIN LATERAL unnest(coalesce(g.unsure_ids, g.message_ids)) AS u (id)
    WHERE g.id = $2 AND g.token = $3 AND g.settled_by IN ('policy: resend', 'operator: resend')
      AND u.id = ANY ($1::bigint[])
)
SELECT EXISTS (SELECT FROM given_up) AND (
    EXISTS (
        SELECT FROM dispatcher.queue q WHERE q.id = ANY (ARRAY(SELECT id FROM given_up))
    ) OR EXISTS (
        SELECT FROM dispatcher.outcome o
        WHERE o.message_id = ANY (ARRAY(SELECT id FROM given_up)) AND o.state <> 'accepted'
          AND o.message_id >= (SELECT min(id) FROM given_up)
          AND o.message_id <= (SELECT max(id) FROM given_up)
    ) OR EXISTS (
        SELECT FROM dispatcher.batch b
        WHERE b.state = 'unsure' AND EXISTS (
            SELECT FROM unnest(coalesce(b.unsure_ids, b.message_ids)) AS q (id)
            WHERE (q.id IN (SELECT id FROM given_up)) IS TRUE)
    )
)
