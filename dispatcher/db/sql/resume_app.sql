-- End a pause that workers made: a request has passed.
-- $1 app
UPDATE dispatcher.app
SET paused_at = NULL, pause_code = NULL, pause_reason = NULL, paused_by = NULL,
    probe_at = NULL, probe_wait = NULL, probe_max = NULL
WHERE name = $1 AND paused_by = 'worker'
RETURNING name
