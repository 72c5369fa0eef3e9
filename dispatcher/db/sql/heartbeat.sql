-- This worker lives; returns for how many seconds it was silent, by this clock, which decides
-- whether others have taken it for dead. No row if nobody knows it any more.
-- $1 worker
UPDATE dispatcher.worker w
SET heartbeat_at = clock_timestamp()
FROM (SELECT id, heartbeat_at FROM dispatcher.worker WHERE id = $1 FOR UPDATE) AS last
WHERE w.id = last.id
RETURNING date_part('epoch', w.heartbeat_at - last.heartbeat_at)
