-- Requests: opened before they leave, closed once, recovered from dead workers.

-- name: open_batches
-- Write the requests that are about to leave; return their ids in the order given.
-- $1 app, $2 worker, $3 tokens, $4 message ids of each (an array as text), $5 attempts of each (the
-- same), $6 bytes, $7 parent (null: claimed from the queue), $8 messages that were requeued
INSERT INTO dispatcher.batch
    (token, app, worker, message_ids, attempts, bytes, parent, requeued_ids)
SELECT u.token, $1, $2, u.ids::bigint[], u.attempts::smallint[], u.bytes, $7, $8::bigint[]
FROM unnest($3::text[], $4::text[], $5::text[], $6::int[])
    WITH ORDINALITY AS u (token, ids, attempts, bytes, place)
ORDER BY u.place
RETURNING id

-- name: close_batches
-- Close batches, or mark them unsure; return the tokens of those that this call may write for, when each
-- was opened, of which of its messages it may write (null: of all), and whether it was never unsure.
-- The guard makes a repeat harmless and keeps a late worker from overwriting anything: an open batch
-- takes any answer, an unsure one only evidence ($7), which settles what it covers. A batch that is
-- unsure because its answer lacked some messages (unsure_ids) has had its answer: what that returned
-- may be on its way again, and would be returned a second time. One that had none lacks what was
-- requeued since: that may be on its way again, and the answer says nothing new of it.
-- The token belongs to the batch as the id does: in another database, and in one that was promoted or
-- restored and gave ids out again, the id alone is another request.
-- $1 ids, $2 states, $3 HTTP statuses, $4 codes, $5 descriptions, $6 tries, $7 evidence,
-- $8 tokens
UPDATE dispatcher.batch b
SET state = u.state,
    closed_at = CASE WHEN u.state = 'closed' THEN clock_timestamp() END,
    unsure_at = CASE WHEN u.state = 'unsure' THEN coalesce(b.unsure_at, clock_timestamp())
        ELSE b.unsure_at END,
    http_status = u.http_status,
    code = u.code,
    description = u.description,
    tries = u.tries,
    settled_by = CASE WHEN b.state = 'unsure' AND u.state = 'closed' THEN 'late answer' END
FROM unnest($1::bigint[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::smallint[],
    $7::boolean[], $8::text[]) AS u (id, state, http_status, code, description, tries, evidence, token)
WHERE b.id = u.id AND b.token = u.token
  AND b.id = ANY ($1::bigint[])
  AND (b.state = 'open' OR b.state = 'unsure' AND u.evidence
    AND (b.unsure_ids IS NULL OR b.http_status IS NULL))
RETURNING b.token, b.opened_at, b.unsure_ids, b.unsure_at IS NULL

-- name: close_for_split
-- Close a batch that was refused as a whole, to send it again in parts; only while it is open, and while
-- no person has stopped its app, or the campaign of one of its messages: they were not sent yet. Not for a
-- pause by a worker: the one bad message may bring it, and each pause would find one. As a claim (see
-- app_state), this is on disk before the parts are sent.
-- $1 id, $2 HTTP status, $3 code, $4 description, $5 tries, $6 token
UPDATE dispatcher.batch
SET state = 'closed', closed_at = clock_timestamp(), http_status = $2, code = $3,
    description = $4, tries = $5, settled_by = 'split'
WHERE id = $1 AND token = $6 AND state = 'open'
  AND NOT EXISTS (
    SELECT FROM dispatcher.app a
    WHERE a.name = batch.app AND a.paused_at IS NOT NULL
      AND coalesce(a.paused_by, 'worker') <> 'worker')
  AND NOT EXISTS (
    SELECT FROM unnest(batch.message_ids) AS u (id)
    WHERE (SELECT m.campaign FROM dispatcher.message m WHERE m.id = u.id) = ANY (ARRAY(
        SELECT c.name FROM dispatcher.campaign c WHERE c.state <> 'running')))
RETURNING id, CASE WHEN current_setting('synchronous_commit') = 'off'
    THEN set_config('synchronous_commit', 'local', true) END

-- name: close_settled
-- Close unsure batches of which every message has an outcome by now.
-- $1 batches, $2 settled by
UPDATE dispatcher.batch b
SET state = 'closed', closed_at = clock_timestamp(), settled_by = $2
WHERE b.id = ANY ($1::bigint[]) AND b.state = 'unsure'
  AND NOT EXISTS (
    SELECT FROM unnest(coalesce(b.unsure_ids, b.message_ids)) AS u (id)
    WHERE NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id)
  )
RETURNING b.id

-- name: mark_not_recorded
-- Keep an unsure batch from the policy `resend`: it was answered, and the database refuses the answer.
-- $1 id, $2 token, $3 code, $4 description
UPDATE dispatcher.batch SET code = $3, description = $4
WHERE id = $1 AND token = $2 AND state = 'unsure'

-- name: keep_unsure
-- The answer lacks some messages of an unsure batch: only these are still to be settled.
-- $1 batch, $2 message ids
UPDATE dispatcher.batch SET unsure_ids = $2::bigint[] WHERE id = $1 AND state = 'unsure'

-- name: lock_unsure
-- Lock unsure batches until the end of this transaction, but for those that another transaction is
-- settling; return which of their messages are in question (null: all).
-- $1 batches
SELECT id, unsure_ids FROM dispatcher.batch
WHERE id = ANY ($1::bigint[]) AND state = 'unsure'
ORDER BY id
FOR UPDATE SKIP LOCKED

-- name: lock_silent
-- Lock the unsure batches that the policy `resend` may send again until the end of this transaction,
-- but for those that another transaction is settling. A message that has had all its attempts
-- keeps its batch unsure, and so does one of before a restore; one that a clock opened which was ahead may
-- be from before. So does an answer that the database refused, or has lost: the provider did answer, and may
-- have accepted all of it. The installation is locked: what notices a restore waits for this transaction, and
-- then finds in the queue what it returned. A statement of its own: the next one then sees what faster
-- transactions have committed.
-- $1 seconds after the wait, for a report that came within it and is not stored yet
SELECT b.id
FROM (SELECT restored_at FROM dispatcher.installation FOR SHARE) AS i
CROSS JOIN dispatcher.batch b
JOIN dispatcher.app a ON a.name = b.app
WHERE a.on_unsure = 'resend'
  AND b.state = 'unsure'
  AND b.unsure_at < clock_timestamp() - a.resend_after - make_interval(secs => $1)
  AND b.opened_at > coalesce(i.restored_at, '-infinity')
  AND (b.opened_at <= clock_timestamp() OR i.restored_at IS NULL)
  AND coalesce(b.code, '') NOT IN ('not-recorded', 'record-lost')
  AND (a.max_attempts IS NULL OR a.max_attempts > ALL (b.attempts))
  AND NOT EXISTS (SELECT FROM dispatcher.report r WHERE r.token = b.token)
  AND NOT EXISTS (SELECT FROM dispatcher.unreadable_push p WHERE p.tokens @> ARRAY[b.token])
ORDER BY b.id
LIMIT 1000
FOR UPDATE OF b SKIP LOCKED

-- name: open_of_worker
-- Return the batches that a worker has open. A restored database may have given its id to another one,
-- whose batches these are not.
-- $1 worker, $2 when its row was written (seconds since 1970; null: not known)
SELECT b.id, b.token
FROM dispatcher.batch b
JOIN dispatcher.worker w ON w.id = b.worker
WHERE b.worker = $1 AND b.state = 'open'
  AND ($2::float8 IS NULL OR date_part('epoch', w.started_at) = $2)

-- name: disown
-- Mark open batches unsure whose result their own worker has recorded and the database has lost: a
-- standby was promoted that had the claim and not the record. They may have been sent; only a report
-- or an operator can settle them.
-- $1 worker, $2 batches
WITH marked AS (
    UPDATE dispatcher.batch
    SET state = 'unsure', unsure_at = clock_timestamp(), code = 'record-lost',
        description = 'the database has lost the record of its answer'
    WHERE id = ANY ($2::bigint[]) AND worker = $1 AND state = 'open'
    RETURNING id, app, cardinality(message_ids) AS messages
), logged AS (
    INSERT INTO dispatcher.event (app, event, code, batch_id, message_count)
    SELECT app, 'unsure', 'record-lost', id, messages FROM marked
)
INSERT INTO dispatcher.event_count AS t (minute, app, event, code, worker, count)
SELECT date_trunc('minute', now()), app, 'unsure', 'record-lost', $1, sum(messages)
FROM marked GROUP BY app ORDER BY app
ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count

-- name: abandon
-- Return the messages of open batches that their own worker never received: the claim was committed,
-- but its answer was lost. They were not sent, and it costs no attempt.
-- $1 worker, $2 batches
WITH gone AS (
    UPDATE dispatcher.batch
    SET state = 'closed', closed_at = clock_timestamp(), tries = 0, code = 'never-sent',
        description = 'the answer of the claim was lost', settled_by = 'its worker'
    WHERE id = ANY ($2::bigint[]) AND worker = $1 AND state = 'open'
    RETURNING id, message_ids, attempts, requeued_ids
), waiting AS (
    INSERT INTO dispatcher.queue
        (id, app, priority, due_at, attempt, requeued, last_batch, code, campaign, waits_since)
    SELECT m.id, m.app, m.priority, clock_timestamp(), u.attempt - 1, m.id = ANY (g.requeued_ids),
        g.id, 'never-sent', m.campaign, clock_timestamp()
    FROM gone g
    CROSS JOIN LATERAL unnest(g.message_ids, g.attempts) AS u (id, attempt)
    JOIN dispatcher.message m ON m.id = u.id
    ON CONFLICT (id) DO NOTHING  -- loaded with the trigger on: it waits
    RETURNING id
)
SELECT (SELECT count(*) FROM gone)::int AS batches, (SELECT count(*) FROM waiting)::int AS messages

-- name: rescue
-- Mark the open batches of dead workers unsure: their requests may have been sent. They never return
-- to the queue by themselves.
-- $1 the worker that does it, $2 dead workers whose last heartbeat lies ahead
WITH lost AS (
    SELECT b.id
    FROM dispatcher.worker w
    JOIN dispatcher.batch b ON b.worker = w.id AND b.state = 'open'
    WHERE w.stopped_at IS NOT NULL OR w.heartbeat_at < clock_timestamp() - w.lease
        OR w.id = ANY ($2::bigint[])
    ORDER BY b.id
    LIMIT 1000
    FOR UPDATE OF b SKIP LOCKED
), marked AS (
    UPDATE dispatcher.batch b
    SET state = 'unsure', unsure_at = clock_timestamp(), code = 'worker-lost',
        description = 'the worker stopped before it wrote an answer'
    FROM lost
    WHERE b.id = lost.id AND b.state = 'open'
    RETURNING b.id, b.app, cardinality(b.message_ids) AS messages
), logged AS (
    INSERT INTO dispatcher.event (app, event, code, batch_id, message_count)
    SELECT app, 'unsure', 'worker-lost', id, messages FROM marked
), counted AS (
    INSERT INTO dispatcher.event_count AS t (minute, app, event, code, worker, count)
    SELECT date_trunc('minute', now()), app, 'unsure', 'worker-lost', $1, sum(messages)
    FROM marked GROUP BY app ORDER BY app
    ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
)
SELECT count(*)::int AS batches, coalesce(sum(messages), 0)::int AS messages FROM marked

-- name: resend_unsure
-- Do what the policy `resend` allows: after their wait without any report, unsure batches return to
-- the queue. A single report proves that the provider took the request, also one that cannot be read.
-- $1 worker, $2 batches, locked by this transaction
WITH silent AS (
    UPDATE dispatcher.batch b
    SET state = 'closed', closed_at = clock_timestamp(), settled_by = 'policy: resend'
    FROM dispatcher.app a
    WHERE b.id = ANY ($2::bigint[]) AND a.name = b.app AND a.on_unsure = 'resend'
      AND b.state = 'unsure' AND b.unsure_at < clock_timestamp() - a.resend_after
      AND b.opened_at > coalesce((SELECT restored_at FROM dispatcher.installation), '-infinity')
      AND (b.opened_at <= clock_timestamp()
        OR (SELECT restored_at FROM dispatcher.installation) IS NULL)
      AND coalesce(b.code, '') NOT IN ('not-recorded', 'record-lost')
      AND NOT EXISTS (SELECT FROM dispatcher.report r WHERE r.token = b.token)
      AND NOT EXISTS (SELECT FROM dispatcher.unreadable_push p WHERE p.tokens @> ARRAY[b.token])
    RETURNING b.id, b.app, b.message_ids, b.attempts, b.requeued_ids,
        coalesce(b.unsure_ids, b.message_ids) AS unsure_ids
), waiting AS (
    INSERT INTO dispatcher.queue
        (id, app, priority, due_at, attempt, requeued, last_batch, code, campaign, waits_since)
    SELECT m.id, m.app, m.priority, clock_timestamp(), u.attempt, m.id = ANY (s.requeued_ids), s.id,
        'resend', m.campaign, clock_timestamp()
    FROM silent s
    CROSS JOIN LATERAL unnest(s.message_ids, s.attempts) AS u (id, attempt)
    JOIN dispatcher.message m ON m.id = u.id
    WHERE u.id = ANY (s.unsure_ids)
      AND NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id)
    ON CONFLICT (id) DO NOTHING  -- loaded with the trigger on: it waits
    RETURNING app, id
), logged AS (
    INSERT INTO dispatcher.event (app, event, code, message_ids, message_count)
    SELECT app, 'requeued', 'resend', array_agg(id), count(*) FROM waiting GROUP BY app ORDER BY app
), counted AS (
    INSERT INTO dispatcher.event_count AS t (minute, app, event, code, worker, count)
    SELECT date_trunc('minute', now()), app, 'settled', 'resend', $1, count(*)
    FROM waiting GROUP BY app ORDER BY app
    ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
)
SELECT (SELECT count(*) FROM silent)::int AS batches, (SELECT count(*) FROM waiting)::int AS messages

-- name: held_batches
-- Return those of some batches whose rows another session holds.
-- $1 ids
WITH free AS MATERIALIZED (
    SELECT id FROM dispatcher.batch WHERE id = ANY ($1::bigint[])
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT id FROM dispatcher.batch
WHERE id = ANY ($1::bigint[]) AND id <> ALL (ARRAY(SELECT id FROM free))

-- name: unknown_batches
-- Return the tokens that no request of this database has.
-- $1 tokens
SELECT u.token FROM unnest($1::text[]) AS u (token)
WHERE NOT EXISTS (SELECT FROM dispatcher.batch b WHERE b.token = u.token)
