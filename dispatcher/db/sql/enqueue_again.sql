-- Put messages that this transaction claimed back into the queue.
-- $1 app, $2 ids, $3 priorities, $4 waits (seconds from now), $5 attempts, $6 requeued,
-- $7 last batches, $8 codes
INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, requeued, last_batch, code)
SELECT u.id, $1, u.priority, clock_timestamp() + make_interval(secs => u.wait), u.attempt,
    u.requeued, u.last_batch, u.code
FROM unnest($2::bigint[], $3::smallint[], $4::float8[], $5::smallint[], $6::boolean[],
    $7::bigint[], $8::text[])
    AS u (id, priority, wait, attempt, requeued, last_batch, code)
