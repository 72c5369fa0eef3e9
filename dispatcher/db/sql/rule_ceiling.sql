-- Pause an app that has reached its own ceiling, until the next day begins at the provider. An
-- operator's pause stays.
-- $1 app, $2 code, $3 reason, $4 seconds until then
UPDATE dispatcher.app
SET paused_at = coalesce(paused_at, clock_timestamp()),
    pause_code = $2,
    pause_reason = $3,
    paused_by = 'worker',
    probe_at = clock_timestamp() + make_interval(secs => $4),
    probe_wait = interval '1 minute',
    probe_max = interval '1 hour'
WHERE name = $1 AND paused_by IS DISTINCT FROM 'operator'
