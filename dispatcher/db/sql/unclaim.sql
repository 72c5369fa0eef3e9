-- Put messages that this transaction claimed back to their places in the queue, as they were.
-- $1 app, $2 ids, $3 priorities, $4 when they were due (seconds since 1970), $5 attempts, $6 requeued
INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, requeued)
SELECT u.id, $1, u.priority, to_timestamp(u.due_at), u.attempt, u.requeued
FROM unnest($2::bigint[], $3::smallint[], $4::float8[], $5::smallint[], $6::boolean[])
    AS u (id, priority, due_at, attempt, requeued)
