-- This worker lives; returns for how many seconds it was silent, by this clock, which decides
-- whether others have taken it for dead. No row if nobody knows it any more.
-- $1 worker, $2 apps for which this host cannot send
UPDATE dispatcher.worker w
SET heartbeat_at = clock_timestamp(), cut_off = $2
FROM (SELECT id, heartbeat_at FROM dispatcher.worker WHERE id = $1 FOR UPDATE) AS last
WHERE w.id = last.id
RETURNING date_part('epoch', w.heartbeat_at - last.heartbeat_at)
