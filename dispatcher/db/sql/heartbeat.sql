-- This worker lives; no row if nobody knows it any more.
-- $1 worker
UPDATE dispatcher.worker SET heartbeat_at = clock_timestamp() WHERE id = $1 RETURNING id
