-- Take the right to send one message for a paused app; a row if this caller has it. The next
-- probe waits longer, and at least one request time-out, so only one is on its way at a time.
-- Without a due message there is nothing to probe with, and the right stays.
-- $1 app, $2 shortest wait (seconds)
UPDATE dispatcher.app
SET probe_at = clock_timestamp() + greatest(coalesce(probe_wait, '0'), make_interval(secs => $2)),
    probe_wait = least(probe_wait * 2, greatest(probe_wait, probe_max))
WHERE name = $1 AND paused_at IS NOT NULL AND probe_at <= clock_timestamp()
  AND EXISTS (
    SELECT FROM generate_series(0, 9) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT FROM dispatcher.queue q
        WHERE q.app = $1 AND q.priority = p.priority AND q.due_at <= clock_timestamp()
        LIMIT 1
    ) AS head
  )
RETURNING name
