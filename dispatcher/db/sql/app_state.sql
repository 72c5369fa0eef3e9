-- What a worker must know of an app before it claims. No lock: a pause that comes a moment later
-- is seen by the next claim. And the planner is pinned for the rest of the transaction, because
-- statistics know nothing of a queue that fills and empties within minutes: a bitmap scan would
-- sort the whole backlog for 500 rows, a nested loop would compare all claimed rows with all.
-- And a claim is on disk before its requests leave, even where commits need not be: a crash that
-- took it back would put what was sent into the queue again.
-- $1 app
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
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_nestloop', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('jit', 'off', true),
    CASE WHEN current_setting('synchronous_commit') = 'off'
        THEN set_config('synchronous_commit', 'local', true) END
FROM dispatcher.app a
WHERE name = $1
