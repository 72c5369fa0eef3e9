-- Pause an app for its reason. An operator's pause stays; a pause for the same code keeps its
-- beginning and its growing wait between probes.
-- $1 app, $2 code, $3 reason, $4 seconds to the first probe, $5 longest wait between probes
UPDATE dispatcher.app
SET paused_at = coalesce(paused_at, clock_timestamp()),
    pause_code = $2,
    pause_reason = $3,
    paused_by = 'worker',
    probe_at = CASE WHEN pause_code = $2 THEN probe_at
        ELSE clock_timestamp() + make_interval(secs => $4) END,
    probe_wait = CASE WHEN pause_code = $2 THEN probe_wait ELSE make_interval(secs => $4) END,
    probe_max = make_interval(secs => $5)
WHERE name = $1 AND paused_by IS DISTINCT FROM 'operator'
RETURNING name
