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
-- bulk_due: a bulk row is due; another claim may hold it.
-- No row if the database lacks the last heartbeat of the worker, and so what was written since. It may
-- have given the id of the worker to another one.
-- $1 app, $2 first priority, $3 last priority, $4 from when on to look for bulk rows, for each
-- priority from 0 on (see core.claim_cursor), $5 worker, $6 its last heartbeat (seconds since 1970;
-- null: not known), $7 when the row of the worker was written (the same)
SELECT
    name,
    paused_at IS NOT NULL AS paused,
    coalesce(dispatcher.is_probe_due(probe_at, probe_wait, probe_max, pause_code), false)
        AS probe_due,
    rate,
    date_part('epoch', dispatcher.next_grant_at(next_at, rate) - clock_timestamp()) AS wait,
    EXISTS (
        SELECT FROM dispatcher.country_pause c
        WHERE c.app = a.name
          AND c.until BETWEEN clock_timestamp() AND clock_timestamp() + interval '65 minutes'
    ) AS has_paused_countries,
    date_part('epoch', clock_timestamp()) AS asked_at,
    coalesce(pause_code = 'unknown-results', false) AS probed_without_messages,
    slow_start IS NOT NULL AS slow_start,
    EXISTS (
        SELECT FROM unnest($4::float8[]) WITH ORDINALITY AS p (since, place)
        CROSS JOIN LATERAL (
            -- ORDER BY: this plan is made before the pins below count, and must not read the table.
            SELECT FROM dispatcher.bulk b
            WHERE b.app = a.name AND b.priority = p.place - 1
              AND b.due_at >= to_timestamp(p.since) AND b.due_at <= (SELECT clock_timestamp())
            ORDER BY b.due_at LIMIT 1
        ) AS head
        WHERE p.place - 1 BETWEEN $2 AND $3
    ) AS bulk_due,
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_nestloop', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('jit', 'off', true),
    CASE WHEN current_setting('synchronous_commit') = 'off'
        THEN set_config('synchronous_commit', 'local', true) END
FROM dispatcher.app a
WHERE name = $1 AND ($6::float8 IS NULL OR EXISTS (
    SELECT FROM dispatcher.worker w WHERE w.id = $5 AND date_part('epoch', w.heartbeat_at) >= $6
      AND ($7::float8 IS NULL OR date_part('epoch', w.started_at) = $7)
))

-- name: register_app
-- Make the run-time row of a configured app, or bring its settings up to date. The cause of a pause
-- may have been removed with this start, so a worker's pause is probed at once.
-- $1 app, $2 numbers per second (null: no limit), $3 on_unsure, $4 resend after (seconds),
-- $5 most attempts, $6 default sender, $7 whether its messages are promotional, $8 billing
INSERT INTO dispatcher.app AS a
    (name, numbers_per_second, rate, on_unsure, resend_after, max_attempts, sender, promotional,
    billing)
VALUES ($1, $2, $2, $3, make_interval(secs => $4), $5, $6, $7, $8)
ON CONFLICT (name) DO UPDATE SET
    rate = CASE WHEN a.numbers_per_second IS DISTINCT FROM $2 THEN $2 ELSE a.rate END,
    numbers_per_second = $2,
    on_unsure = $3,
    resend_after = make_interval(secs => $4),
    max_attempts = $5,
    sender = $6,
    promotional = $7,
    billing = $8,
    next_at = dispatcher.next_grant_at(a.next_at, a.rate),
    pause_ended_at = CASE WHEN a.pause_ended_at > clock_timestamp() THEN clock_timestamp()
        ELSE a.pause_ended_at END,
    probe_at = CASE WHEN a.paused_by = 'worker' THEN clock_timestamp() ELSE a.probe_at END,
    seen_at = clock_timestamp()

-- name: pause_app
-- Pause an app for its reason. An operator's pause stays; a pause for the same code keeps its
-- beginning and its growing wait between probes, also from one that ended just before.
-- Where the quota is spent, the first probe is a minute after 00:00 UTC+8; in the hour after that
-- it is soon, because the provider may reset its quotas late.
-- The answer to a request that was opened before the last pause ended changes nothing: what it says
-- may be mended since. An end that lies ahead was written by a clock that was ahead: it counts for
-- nothing, here and below.
-- $1 app, $2 code, $3 reason, $4 seconds to the first probe, $5 longest wait between probes,
-- $6 whether the quota is spent, $7 when the request was opened
UPDATE dispatcher.app a
SET paused_at = coalesce(paused_at, clock_timestamp()),
    pause_code = $2,
    pause_reason = $3,
    paused_by = 'worker',
    probe_at = CASE WHEN pause_code = $2 THEN probe_at
        WHEN $6 AND w.provider_time::time > '01:00' THEN
            (date_trunc('day', w.provider_time) + interval '1 day 1 minute')
            AT TIME ZONE interval '08:00'
        ELSE clock_timestamp() + w.first END,
    probe_wait = CASE WHEN pause_code = $2 THEN probe_wait ELSE w.first END,
    probe_max = make_interval(secs => $5),
    unknown_streak = 0, refused_texts = '{}',
    slow_start = NULL, slow_start_left = 0, slow_start_answered = 0
FROM (
    SELECT name, clock_timestamp() AT TIME ZONE interval '08:00' AS provider_time, greatest(make_interval(secs => $4), CASE WHEN slow_start IS NOT NULL
        THEN least(probe_wait * 2, make_interval(secs => $5)) END) AS first
    FROM dispatcher.app WHERE name = $1
) AS w
WHERE a.name = $1 AND w.name = a.name AND coalesce(paused_by, 'worker') = 'worker'
  AND $7 >= CASE WHEN a.pause_ended_at <= clock_timestamp() THEN a.pause_ended_at ELSE '2000-01-01' END
RETURNING a.name

-- name: brake_spikes
-- Pause apps with far more messages within an hour than is usual for them; return how many.
-- $1 apps, $2 times the busiest hour of their last days
SELECT dispatcher.brake_spikes($1, $2)

-- name: pause_country
-- Let the messages of one app to one country wait.
-- $1 app, $2 country, $3 seconds, $4 code
INSERT INTO dispatcher.country_pause AS c (app, country, until, code)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3), $4)
ON CONFLICT (app, country) DO UPDATE SET until = excluded.until, code = excluded.code

-- name: lock_app
-- Lock an app until the end of this transaction: its pauses stay, and resume() waits.
-- $1 app
SELECT name FROM dispatcher.app WHERE name = $1 FOR NO KEY UPDATE

-- name: paused_countries
-- Return the countries of an app that are paused. Each is tried again within an hour: a time further ahead
-- was written before the clock was set back, and counts for nothing.
-- $1 app
SELECT country FROM dispatcher.country_pause WHERE app = $1
  AND until BETWEEN clock_timestamp() AND clock_timestamp() + interval '65 minutes'

-- name: resume_app
-- End a pause that workers made: a request was answered. The app starts slowly, and what was refused
-- for the first time is due. A pause because all messages are refused does not end with a refused one,
-- and none with a request that was opened before it began.
-- $1 app, $2 whether the request was refused for its content, $3 when it was opened
UPDATE dispatcher.app
SET paused_at = NULL, pause_code = NULL, pause_reason = NULL, paused_by = NULL,
    probe_at = NULL, probe_max = NULL, pause_ended_at = clock_timestamp(),
    slow_start = 1, slow_start_left = 1, slow_start_answered = 0, slow_start_at = NULL
WHERE name = $1 AND paused_by = 'worker' AND NOT ($2 AND pause_code = 'all-refused')
  AND (paused_at <= $3 OR paused_at > clock_timestamp())
RETURNING dispatcher.end_refusal_waits(name, by_message => true)

-- name: end_probe
-- The same: the API has answered a request without messages. All that was refused is due, and no
-- attempt of it counts: nothing shows that a message is at fault.
-- A probe that was sent before the pause began says nothing of it.
-- $1 app, $2 when the right to probe was taken
UPDATE dispatcher.app
SET paused_at = NULL, pause_code = NULL, pause_reason = NULL, paused_by = NULL,
    probe_at = NULL, probe_max = NULL, pause_ended_at = clock_timestamp(),
    slow_start = 1, slow_start_left = 1, slow_start_answered = 0, slow_start_at = NULL
WHERE name = $1 AND paused_by = 'worker' AND pause_code = 'unknown-results'
  AND (paused_at <= $2 OR paused_at > clock_timestamp())
RETURNING dispatcher.end_refusal_waits(name)

-- name: circuits
-- Return what is known of the last requests of apps.
-- $1 apps
SELECT name, unknown_streak, refused_texts, slow_start, slow_start_left, slow_start_answered,
    pause_code, date_part('epoch', clock_timestamp() - window_at) AS window_seconds,
    date_part('epoch', window_at - slowed_at) AS window_after_cut,
    window_numbers, window_refused, base_share, cut_share, cut_factor,
    coalesce(slowed_at BETWEEN clock_timestamp() - interval '1 second'
        AND clock_timestamp() + interval '1 second', false) AS just_slowed
FROM dispatcher.app WHERE name = ANY ($1::text[])

-- name: lock_circuits
-- The same, locked until the end of this transaction.
-- $1 apps
SELECT name,
    CASE WHEN pause_ended_at <= clock_timestamp() THEN pause_ended_at ELSE '2000-01-01' END
        AS pause_ended_at,
    unknown_streak, refused_texts, slow_start, slow_start_left, slow_start_answered,
    pause_code, date_part('epoch', clock_timestamp() - window_at) AS window_seconds,
    date_part('epoch', window_at - slowed_at) AS window_after_cut,
    window_numbers, window_refused, base_share, cut_share, cut_factor,
    coalesce(slowed_at BETWEEN clock_timestamp() - interval '1 second'
        AND clock_timestamp() + interval '1 second', false) AS just_slowed
FROM dispatcher.app WHERE name = ANY ($1::text[]) ORDER BY name FOR NO KEY UPDATE

-- name: stopped_apps
-- Return of some apps whether workers have paused them, and why, and whether one worker has cut itself
-- off from them.
-- $1 apps, $2 that worker
SELECT a.name, a.paused_by IS NOT DISTINCT FROM 'worker' AS paused, a.pause_reason,
    EXISTS (
        SELECT FROM dispatcher.worker w WHERE w.id = $2 AND a.name = ANY (w.unreachable_apps)
    ) AS cut_off
FROM dispatcher.app a WHERE a.name = ANY ($1::text[])

-- name: others_send
-- Return whether another worker sends for an app: it has not cut itself off, and of its requests of the
-- last 10 s most were answered.
-- $1 app, $2 this worker
SELECT EXISTS (
    SELECT FROM dispatcher.worker w
    WHERE w.id <> $2 AND w.stopped_at IS NULL AND w.heartbeat_at > clock_timestamp() - w.lease
      AND $1 = ANY (w.apps) AND NOT $1 = ANY (w.unreachable_apps)
      AND (
        SELECT count(*) FILTER (WHERE b.unsure_at IS NULL)
            > count(*) FILTER (WHERE b.unsure_at IS NOT NULL)
        FROM dispatcher.batch b
        WHERE b.opened_at BETWEEN clock_timestamp() - interval '10 seconds' AND clock_timestamp()
          AND b.worker = w.id AND b.app = $1 AND b.state <> 'open' AND b.tries > 0
      )
)

-- name: cut_off
-- Note that a worker claims nothing for an app; its heartbeats keep it.
-- $1 app, $2 worker
UPDATE dispatcher.worker SET unreachable_apps = array_append(unreachable_apps, $1)
WHERE id = $2 AND NOT $1 = ANY (unreachable_apps)

-- name: set_circuit
-- Write what is known of the last requests of an app.
-- $1 app, $2 unknown in a row, $3 refused texts, $4 slow start, $5 left, $6 answered
UPDATE dispatcher.app
SET unknown_streak = $2, refused_texts = $3, slow_start = $4, slow_start_left = $5,
    slow_start_answered = $6
WHERE name = $1

-- name: lock_slow_start
-- Lock the app's slow start until the end of this transaction: numbers in a request, and how many
-- requests may be claimed. If none was claimed for some time, those without an answer are lost with
-- their workers, and as many may be claimed again: a round ends only when all of it is answered. A time
-- ahead was written before the clock was set back, and counts for nothing.
-- $1 app, $2 that time (seconds)
SELECT slow_start, CASE
    WHEN slow_start_left > 0 THEN slow_start_left
    WHEN slow_start_at < clock_timestamp() - make_interval(secs => $2)
        OR slow_start_at > clock_timestamp() + interval '1 second'
        THEN greatest(1, slow_start - slow_start_answered)
    ELSE 0 END AS "left"
FROM dispatcher.app WHERE name = $1 FOR NO KEY UPDATE

-- name: use_slow_start
-- Write how many requests of the round may still be claimed, after this transaction has claimed some.
-- $1 app, which lock_slow_start locked, $2 how many
UPDATE dispatcher.app
SET slow_start_left = $2, slow_start_at = clock_timestamp()
WHERE name = $1 AND slow_start IS NOT NULL

-- name: set_window
-- Write what is known of flow control; a window opens now, or stays open. One that opened ahead, before
-- the clock was set back, would stay open until then: it opens now.
-- $1 app, $2 whether one is open, $3 numbers, $4 refused
UPDATE dispatcher.app
SET window_at = CASE WHEN $2 THEN least(window_at, clock_timestamp()) END,
    window_numbers = $3, window_refused = $4
WHERE name = $1

-- name: slow_down
-- Change the app's rate at the end of a window, from 1 % of its setting up to all of it. An app
-- without a limit gets the rate that was accepted.
-- $1 app, $2 factor, $3 numbers a second that were accepted, $4 base share, $5 cut share, $6 its factor
UPDATE dispatcher.app
SET rate = CASE
        WHEN $2::float8 = 1 THEN rate
        WHEN rate IS NULL THEN greatest($3::float8, 1)
        ELSE least(numbers_per_second, greatest(rate * $2, numbers_per_second / 100)) END,
    slowed_at = CASE WHEN $2::float8 = 1 THEN slowed_at ELSE clock_timestamp() END,
    base_share = $4, cut_share = $5, cut_factor = $6
WHERE name = $1

-- name: lock_pace
-- Lock the app's rate limit until the end of this transaction: its rate, and the seconds until the
-- time of the next grant (negative: that is past).
-- $1 app
SELECT rate, date_part('epoch', dispatcher.next_grant_at(next_at, rate) - clock_timestamp()) AS wait
FROM dispatcher.app WHERE name = $1 FOR NO KEY UPDATE

-- name: charge_pace
-- Charge the numbers this transaction claimed: they are sent at next_at, and those after them $2
-- seconds later. Returns the seconds until then. Unused time is lost.
-- A rate that was slowed down recovers by sending: 1/150 of itself a second, at most 1/600 of the
-- setting, so that it passes what the provider accepts by little from one window to the next. At
-- the provider's limit it is reduced again within seconds; after a minute without that the rate was
-- not the cause (or few messages were sent when it was measured), and it recovers ten times as fast.
-- $1 app, $2 seconds
UPDATE dispatcher.app
SET next_at = greatest(dispatcher.next_grant_at(next_at, rate), clock_timestamp())
        + make_interval(secs => $2),
    rate = least(numbers_per_second, rate + $2 * least(numbers_per_second / 600, rate / 150)
        * CASE WHEN slowed_at BETWEEN clock_timestamp() - interval '1 minute'
            AND clock_timestamp() + interval '1 minute' THEN 1 ELSE 10 END)
WHERE name = $1 AND rate IS NOT NULL
RETURNING date_part('epoch', next_at - clock_timestamp())

-- name: take_probe
-- Take the right to probe a paused app; the time if this caller has it. The next probe waits longer. If
-- the probe is a message, it waits at least one request time-out, so only one is on its way at a time.
-- $1 app, $2 shortest wait (seconds)
UPDATE dispatcher.app
SET probe_at = clock_timestamp() + greatest(coalesce(probe_wait, '0'), make_interval(secs => $2)),
    probe_wait = least(probe_wait * 2, greatest(probe_wait, probe_max))
WHERE name = $1 AND paused_at IS NOT NULL
  AND dispatcher.is_probe_due(probe_at, probe_wait, probe_max, pause_code)
RETURNING clock_timestamp()

-- name: delay_probe
-- Let the next look for a message that probes a paused app wait: none is due. A look reads all that
-- waits for a campaign which is paused, and every claim of every worker would repeat it.
-- $1 app, $2 seconds
UPDATE dispatcher.app SET probe_at = clock_timestamp() + make_interval(secs => $2)
WHERE name = $1 AND paused_at IS NOT NULL
  AND dispatcher.is_probe_due(probe_at, probe_wait, probe_max, pause_code)

-- name: probe_answered
-- The next probe of an app that stays paused need not wait for the time-out of the last one, which was
-- answered.
-- $1 app
UPDATE dispatcher.app SET probe_at = least(probe_at, clock_timestamp() + probe_wait)
WHERE name = $1 AND paused_at IS NOT NULL AND paused_by = 'worker'

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
        WHERE t.minute BETWEEN date_trunc('minute', clock_timestamp() - interval '30 seconds')
            AND clock_timestamp()
          AND t.app = $1 AND t.event = 'accepted'
    ) AS reaching
