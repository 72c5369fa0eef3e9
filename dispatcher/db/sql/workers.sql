-- Running workers.

-- name: register_worker
-- Register a worker, with a new id at every start. Its row counts as its first heartbeat.
-- $1 host, $2 process id, $3 version, $4 apps, $5 lease (seconds)
INSERT INTO dispatcher.worker (host, pid, version, apps, lease)
VALUES ($1, $2, $3, $4, make_interval(secs => $5))
RETURNING id, date_part('epoch', started_at) AS started

-- name: database_id
-- Return the identity of this database.
SELECT id::text FROM dispatcher.installation

-- name: expire
-- Expire what waits although its time is over; return how many, and with what to go on.
-- $1, $2 the last two columns of the call before, or null and 0
SELECT expired, last, last_id FROM dispatcher.expire($1, $2)

-- name: heartbeat
-- Write the heartbeat of a worker; return for how many seconds it was silent, by this clock, which
-- decides whether others have taken it for dead, and when its last heartbeat was, this one is, and its
-- row was written (seconds since 1970). No row if its row is gone: a database that was restored may
-- give its id to another worker.
-- $1 worker, $2 apps that its host cannot send for, $3 a line for each part that fails, $4 when its row
-- was written (null: not known yet)
UPDATE dispatcher.worker w
SET heartbeat_at = clock_timestamp(), unreachable_apps = $2, failing_parts = $3
FROM (
    SELECT id, heartbeat_at FROM dispatcher.worker
    WHERE id = $1 AND ($4::float8 IS NULL OR date_part('epoch', started_at) = $4)
    FOR UPDATE
) AS last
WHERE w.id = last.id
RETURNING date_part('epoch', w.heartbeat_at - last.heartbeat_at) AS silence,
    date_part('epoch', last.heartbeat_at) AS before, date_part('epoch', w.heartbeat_at) AS at,
    date_part('epoch', w.started_at) AS started

-- name: end_clock_waits
-- End what waits by a clock that was ahead of this one, in one step; return how many rows, and the last id
-- looked at, null at the end.
-- $1 the last id of the step before
SELECT ended, last FROM dispatcher.end_clock_waits($1)

-- name: heartbeats_ahead
-- Return the workers whose last heartbeat lies ahead, since this clock was set back: when it was (seconds
-- since 1970), and their lease in seconds.
SELECT id, date_part('epoch', heartbeat_at) AS at, date_part('epoch', lease) AS lease
FROM dispatcher.worker
WHERE stopped_at IS NULL AND heartbeat_at > clock_timestamp() + interval '1 second'

-- name: newest_heartbeat
-- Return when a worker was last here that this database knows of (seconds since 1970): itself, if it has
-- its row, else one that was started before it was last here, for others may have come after a restore; and
-- only if there is none of those, any. One that a clock wrote which was ahead of this one does not count.
-- Null: its row is gone within the hour that every retention keeps it.
-- $1 worker, $2 when its row was written, $3 when it was last here (both in seconds since 1970)
SELECT CASE
    WHEN own.heartbeat_at IS NOT NULL THEN date_part('epoch', own.heartbeat_at)
    WHEN clock_timestamp() > to_timestamp($3) + interval '1 hour'
        THEN (SELECT date_part('epoch', coalesce(
                max(w.heartbeat_at) FILTER (WHERE w.started_at <= to_timestamp($3)),
                max(w.heartbeat_at)))
            FROM dispatcher.worker w WHERE w.heartbeat_at <= clock_timestamp()) END
FROM (SELECT 1) AS one
LEFT JOIN dispatcher.worker own ON own.id = $1 AND date_part('epoch', own.started_at) = $2::float8

-- name: worker_stopped
-- Note that a worker has stopped in good order. A restored database may have given its id to another one.
-- $1 worker, $2 when its row was written (seconds since 1970; null: not known)
UPDATE dispatcher.worker SET stopped_at = clock_timestamp()
WHERE id = $1 AND ($2::float8 IS NULL OR date_part('epoch', started_at) = $2)

-- name: hold_restored_requests
-- Let the policy resend leave the requests alone that were opened until some time. No row of an app is
-- touched: a person may hold one.
-- $1 time
UPDATE dispatcher.installation SET restored_at = $1 WHERE (restored_at >= $1) IS NOT TRUE

-- name: end_old_actions
-- End the actions on many messages that were started until some time and are not finished, and write the
-- audit.
-- $1 time, $2 actor
WITH ended AS (
    UPDATE dispatcher.message_action SET finished_at = clock_timestamp(), ended_early = true
    WHERE started_at <= $1 AND finished_at IS NULL
    RETURNING id, action, filter
)
SELECT dispatcher.append_audit($2, action, 'action ' || id, filter,
    'ended early: what is left may have been done before the restore')
FROM ended

-- name: end_old_loads
-- End the loads of uploaded lists that were asked for until some time: the database may lack what they
-- loaded since. The audit has them.
-- $1 time, $2 why, $3 actor
WITH ended AS (
    UPDATE dispatcher.list_upload SET state = 'failed', error = $2
    WHERE state = 'loading' AND asked_at <= $1
    RETURNING id, name
)
SELECT dispatcher.append_audit($3, 'load', 'list ' || id, name,
    'ended early: what is left may have been done before the restore')
FROM ended

-- name: last_seen
-- Return when the newest worker was last here, and until when it may have sent; no row if that was not long
-- ago. A worker that stopped in good order may be away for longer than one that did not. Within its lease it
-- may have sent what came after its heartbeat. What a clock wrote that was ahead of this one says nothing of
-- when a worker was here.
-- $1 how long ago (seconds), $2 the same after a stop in good order (seconds), $3 when a worker was here that
-- the database does not know of any more (seconds since 1970; null: there is none)
SELECT to_timestamp($3::float8) AS at, to_timestamp($3::float8) AS sent_until
WHERE $3::float8 IS NOT NULL
UNION ALL
SELECT n.at, n.sent_until
FROM (
    SELECT heartbeat_at AS at, stopped_at IS NOT NULL AS stopped, heartbeat_at + lease AS sent_until
    FROM dispatcher.worker WHERE heartbeat_at <= clock_timestamp()
    ORDER BY heartbeat_at DESC LIMIT 1
) AS n
WHERE $3::float8 IS NULL
  AND n.at < clock_timestamp() - make_interval(secs => CASE WHEN n.stopped THEN $2::float8 ELSE $1::float8 END)

-- name: apps_of_old_queue
-- Return the apps that have a due message from before some time, and are not paused. If the database is known
-- to lack what was written since, a message that is not due counts too: it may have been made due since, and
-- sent, or cancelled; and so does an app that an operator had paused, for he would resume it. An app may have
-- no row: it was named by messages, and by a worker after the backup. Where all is well, nothing waits so long
-- when a backup is made. What a clock wrote that was ahead may be from before. The queue is read once for all
-- apps: by the ids of each, an app with few messages behind a million of another one would cost as much.
-- $1 until when messages may have been sent, $2 when a worker was here that the database does not know of any
-- more (null: there is none). An app that an operator has resumed since then is left alone.
WITH oldest AS (
    SELECT w.app, min(w.id) AS id
    FROM (
        SELECT q.app, q.id FROM dispatcher.queue q
        WHERE $2::timestamptz IS NOT NULL OR q.due_at <= (SELECT clock_timestamp())
        UNION ALL
        SELECT b.app, b.first_id FROM dispatcher.bulk b
        WHERE $2::timestamptz IS NOT NULL OR b.due_at <= (SELECT clock_timestamp())
    ) AS w
    GROUP BY w.app
)
SELECT o.app
FROM oldest o
LEFT JOIN dispatcher.app a ON a.name = o.app
LEFT JOIN dispatcher.message m ON m.id = o.id  -- a row that is gone hides no others
WHERE ($2::timestamptz IS NOT NULL OR a.paused_by IS DISTINCT FROM 'operator')
  AND (a.resumed_at > $2) IS NOT TRUE
  AND (m.queued_at <= $1 OR m.queued_at > clock_timestamp()) IS NOT FALSE
ORDER BY o.app
