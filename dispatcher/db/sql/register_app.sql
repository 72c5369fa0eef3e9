-- Make the run-time row of a configured app, or bring its settings up to date. What paused it
-- may have been mended with this start, so a worker's pause is probed at once.
-- $1 app, $2 numbers per second (null: no limit), $3 on_unsure, $4 resend after (seconds)
INSERT INTO dispatcher.app AS a (name, numbers_per_second, rate, on_unsure, resend_after)
VALUES ($1, $2, $2, $3, make_interval(secs => $4))
ON CONFLICT (name) DO UPDATE SET
    rate = CASE WHEN a.numbers_per_second IS DISTINCT FROM $2 THEN $2 ELSE a.rate END,
    ceiling = CASE WHEN a.numbers_per_second IS DISTINCT FROM $2 THEN NULL ELSE a.ceiling END,
    numbers_per_second = $2,
    on_unsure = $3,
    resend_after = make_interval(secs => $4),
    probe_at = CASE WHEN a.paused_by = 'worker' THEN clock_timestamp() ELSE a.probe_at END,
    seen_at = clock_timestamp()
