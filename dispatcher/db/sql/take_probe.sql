-- Take the right to send one message for a paused app; a row if this caller has it. The next
-- probe waits longer, and at least one request time-out, so only one is on its way at a time.
-- $1 app, $2 shortest wait (seconds)
UPDATE dispatcher.app
SET probe_at = clock_timestamp() + greatest(coalesce(probe_wait, '0'), make_interval(secs => $2)),
    probe_wait = least(probe_wait * 2, greatest(probe_wait, probe_max))
WHERE name = $1 AND paused_at IS NOT NULL AND probe_at <= clock_timestamp()
RETURNING name
