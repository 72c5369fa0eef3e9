-- What the policy `resend` allows: unsure batches after their silence, without any report, go
-- back to the queue. A single report proves that the provider took the request.
-- $1 worker, $2 batches, held by this transaction
WITH silent AS (
    UPDATE dispatcher.batch b
    SET state = 'closed', closed_at = clock_timestamp(), settled_by = 'policy: resend'
    FROM dispatcher.app a
    WHERE b.id = ANY ($2::bigint[]) AND a.name = b.app AND a.on_unsure = 'resend'
      AND b.state = 'unsure' AND b.unsure_at < clock_timestamp() - a.resend_after
      AND NOT EXISTS (SELECT FROM dispatcher.report r WHERE r.token = b.token)
    RETURNING b.id, b.app, b.message_ids, b.attempts,
        coalesce(b.unsure_ids, b.message_ids) AS unsure_ids
), waiting AS (
    INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, last_batch, code)
    SELECT m.id, m.app, m.priority, clock_timestamp(), u.attempt, s.id, 'resend'
    FROM silent s
    CROSS JOIN LATERAL unnest(s.message_ids, s.attempts) AS u (id, attempt)
    JOIN dispatcher.message m ON m.id = u.id
    WHERE u.id = ANY (s.unsure_ids)
      AND NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id)
    RETURNING app, id
), told AS (
    INSERT INTO dispatcher.feed (app, event, code, message_ids, size)
    SELECT app, 'requeued', 'resend', array_agg(id), count(*) FROM waiting GROUP BY app ORDER BY app
), counted AS (
    INSERT INTO dispatcher.tally AS t (minute, app, event, code, worker, count)
    SELECT date_trunc('minute', now()), app, 'settled', 'resend', $1, count(*)
    FROM waiting GROUP BY app ORDER BY app
    ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
)
SELECT (SELECT count(*) FROM silent)::int AS batches, (SELECT count(*) FROM waiting)::int AS messages
