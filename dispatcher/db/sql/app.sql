-- Run-time state of an app: pause, rate, probe.

-- name: app_names
-- Return the apps that a worker or an operator has named so far.
SELECT name FROM dispatcher.app ORDER BY name

-- name: app_state
-- Return what a worker must know of an app before it claims. No lock: the next claim sees a pause
-- that comes a moment later. The planner is pinned for the rest of the transaction, because
-- statistics are wrong for a queue that fills and empties within minutes: a bitmap scan would sort
-- the whole backlog for 500 rows, a nested loop would compare all claimed rows with all.
-- And a claim is on disk before its requests leave, even where commits need not be: a crash that
-- undid it would return to the queue what was sent.
-- bulk_due: a bulk row is due, and may be claimed by another worker at this moment.
-- $1 app, $2 first priority, $3 last priority, $4 from when on to look for bulk rows, for each
-- priority from 0 on
SELECT
    paused_at IS NOT NULL AS paused,
    coalesce(probe_at <= clock_timestamp(), false) AS probe_due,
    rate,
    date_part('epoch', next_at - clock_timestamp()) AS wait,
    ARRAY(
        SELECT country FROM dispatcher.country_pause c
        WHERE c.app = a.name AND c.until > clock_timestamp()
    ) AS countries,
    date_part('epoch', clock_timestamp()) AS asked_at,
    EXISTS (
        SELECT FROM generate_series($2::int, $3::int) AS p (priority)
        CROSS JOIN LATERAL (
            -- ORDER BY: the plan is made before the pins below count, and must not read the table.
            SELECT FROM dispatcher.bulk b
            WHERE b.app = a.name AND b.priority = p.priority
              AND b.due_at >= to_timestamp(($4::float8[])[p.priority + 1])
              AND b.due_at <= (SELECT clock_timestamp())
            ORDER BY b.due_at LIMIT 1
        ) AS head
    ) AS bulk_due,
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_nestloop', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('jit', 'off', true),
    CASE WHEN current_setting('synchronous_commit') = 'off'
        THEN set_config('synchronous_commit', 'local', true) END
FROM dispatcher.app a
WHERE name = $1

-- name: register_app
-- Make the run-time row of a configured app, or bring its settings up to date. The cause of a pause
-- may have been removed with this start, so a worker's pause is probed at once.
-- $1 app, $2 numbers per second (null: no limit), $3 on_unsure, $4 resend after (seconds)
INSERT INTO dispatcher.app AS a (name, numbers_per_second, rate, on_unsure, resend_after)
VALUES ($1, $2, $2, $3, make_interval(secs => $4))
ON CONFLICT (name) DO UPDATE SET
    rate = CASE WHEN a.numbers_per_second IS DISTINCT FROM $2 THEN $2 ELSE a.rate END,
    slowdown_rate = CASE WHEN a.numbers_per_second IS DISTINCT FROM $2 THEN NULL
        ELSE a.slowdown_rate END,
    numbers_per_second = $2,
    on_unsure = $3,
    resend_after = make_interval(secs => $4),
    probe_at = CASE WHEN a.paused_by = 'worker' THEN clock_timestamp() ELSE a.probe_at END,
    seen_at = clock_timestamp()

-- name: pause_app
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

-- name: pause_country
-- Let the messages of one app to one country wait.
-- $1 app, $2 country, $3 seconds, $4 code
INSERT INTO dispatcher.country_pause AS c (app, country, until, code)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3), $4)
ON CONFLICT (app, country) DO UPDATE SET until = excluded.until, code = excluded.code

-- name: resume_app
-- End a pause that workers made: a request has passed.
-- $1 app
UPDATE dispatcher.app
SET paused_at = NULL, pause_code = NULL, pause_reason = NULL, paused_by = NULL,
    probe_at = NULL, probe_wait = NULL, probe_max = NULL
WHERE name = $1 AND paused_by = 'worker'
RETURNING name

-- name: slow_down
-- Halve the app's rate, at most once a second and not below 1 % of its setting; slowdown_rate is
-- where it was too fast.
-- $1 app
UPDATE dispatcher.app
SET rate = greatest(rate / 2, numbers_per_second / 100), slowdown_rate = rate,
    slowed_at = clock_timestamp()
WHERE name = $1 AND rate IS NOT NULL
  AND (slowed_at IS NULL OR slowed_at < clock_timestamp() - interval '1 second')

-- name: lock_pace
-- Lock the app's rate limit until the end of this transaction: its rate, and the seconds until the
-- time of the next grant (negative: that is past).
-- $1 app
SELECT rate, date_part('epoch', next_at - clock_timestamp()) AS wait
FROM dispatcher.app WHERE name = $1 FOR NO KEY UPDATE

-- name: charge_pace
-- Charge the numbers this transaction claimed: they are sent at next_at, and those after them $2
-- seconds later. Returns the seconds until then. Unused time is lost.
-- A rate that was slowed down recovers by sending: within seconds to 95 % of where it was refused,
-- and from there slowly, 1/600 of the setting a second.
-- $1 app, $2 seconds
UPDATE dispatcher.app
SET next_at = greatest(next_at, clock_timestamp()) + make_interval(secs => $2),
    rate = least(numbers_per_second, rate + $2 * CASE
        WHEN rate < slowdown_rate * 0.95
            THEN least(slowdown_rate / 8, (slowdown_rate * 0.95 - rate) / $2)
        ELSE numbers_per_second / 600 END)
WHERE name = $1 AND rate IS NOT NULL
RETURNING date_part('epoch', next_at - clock_timestamp())

-- name: take_probe
-- Take the right to send one message for a paused app; a row if this caller has it. The next probe
-- waits longer, and at least one request time-out, so only one is on its way at a time.
-- $1 app, $2 shortest wait (seconds)
UPDATE dispatcher.app
SET probe_at = clock_timestamp() + greatest(coalesce(probe_wait, '0'), make_interval(secs => $2)),
    probe_wait = least(probe_wait * 2, greatest(probe_wait, probe_max))
WHERE name = $1 AND paused_at IS NOT NULL AND probe_at <= clock_timestamp()
RETURNING name

-- name: who_reaches
-- Return whether an app has other workers, and whether one of them reaches its provider: has had a
-- message accepted in this minute, or in that of half a minute ago.
-- $1 app, $2 this worker
WITH others AS (
    SELECT id FROM dispatcher.worker
    WHERE id <> $2 AND stopped_at IS NULL AND heartbeat_at > clock_timestamp() - lease
      AND $1 = ANY (apps)
)
SELECT
    EXISTS (SELECT FROM others) AS there,
    EXISTS (
        SELECT FROM dispatcher.event_count t JOIN others o ON o.id = t.worker
        WHERE t.minute >= date_trunc('minute', clock_timestamp() - interval '30 seconds')
          AND t.app = $1 AND t.event = 'accepted'
    ) AS reaching
