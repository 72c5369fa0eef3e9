-- This worker has left in good order.
-- $1 worker
UPDATE dispatcher.worker SET stopped_at = clock_timestamp() WHERE id = $1
