-- Put back the messages of open batches that their own worker never had in its hands: the claim
-- was committed, but its answer was lost on the way. They were not sent, and it costs no attempt.
-- $1 worker, $2 batches
WITH gone AS (
    UPDATE dispatcher.batch
    SET state = 'closed', closed_at = clock_timestamp(), tries = 0, code = 'never-sent',
        description = 'the answer of the claim was lost', settled_by = 'its worker'
    WHERE id = ANY ($2::bigint[]) AND worker = $1 AND state = 'open'
    RETURNING id, message_ids, attempts
), waiting AS (
    INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, last_batch, code)
    SELECT m.id, m.app, m.priority, clock_timestamp(), u.attempt - 1, g.id, 'never-sent'
    FROM gone g
    CROSS JOIN LATERAL unnest(g.message_ids, g.attempts) AS u (id, attempt)
    JOIN dispatcher.message m ON m.id = u.id
    RETURNING id
)
SELECT (SELECT count(*) FROM gone)::int AS batches, (SELECT count(*) FROM waiting)::int AS messages
