-- Return messages of batches that were closed in this transaction to the queue, unless a report
-- has told in the meantime that they were sent. One that waits there already, waits.
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
