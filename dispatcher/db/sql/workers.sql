-- Running workers.

-- name: register_worker
-- A new worker, with a new id at every boot.
-- $1 host, $2 process id, $3 version, $4 apps, $5 lease (seconds)
INSERT INTO dispatcher.worker (host, pid, version, apps, lease)
VALUES ($1, $2, $3, $4, make_interval(secs => $5))
RETURNING id

-- name: heartbeat
-- This worker lives; returns for how many seconds it was silent, by this clock, which decides
-- whether others have taken it for dead. No row if it is not registered any more.
-- $1 worker, $2 apps for which this host cannot send
UPDATE dispatcher.worker w
SET heartbeat_at = clock_timestamp(), cut_off = $2
FROM (SELECT id, heartbeat_at FROM dispatcher.worker WHERE id = $1 FOR UPDATE) AS last
WHERE w.id = last.id
RETURNING date_part('epoch', w.heartbeat_at - last.heartbeat_at)

-- name: worker_stopped
-- This worker has left in good order.
-- $1 worker
UPDATE dispatcher.worker SET stopped_at = clock_timestamp() WHERE id = $1
