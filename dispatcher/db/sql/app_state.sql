-- What a worker must know of an app before it claims. No lock: a pause that comes a moment later
-- is seen by the next claim.
-- $1 app
SELECT
    paused_at IS NOT NULL AS paused,
    coalesce(probe_at <= clock_timestamp(), false) AS probe_due,
    rate,
    ARRAY(
        SELECT country FROM dispatcher.country_pause c
        WHERE c.app = a.name AND c.until > clock_timestamp()
    ) AS countries
FROM dispatcher.app a
WHERE name = $1
