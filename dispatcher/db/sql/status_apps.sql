-- What each app does now, without counting a big table: what waits is counted up to 10,001, and
-- open and unsure batches lie in indexes of their own. Apps that have messages waiting but no
-- worker are found by hopping over the index, one look-up an app.
WITH RECURSIVE hop AS (
    (SELECT app FROM dispatcher.queue ORDER BY app LIMIT 1)
    UNION ALL
    SELECT (SELECT q.app FROM dispatcher.queue q WHERE q.app > hop.app ORDER BY q.app LIMIT 1)
    FROM hop WHERE hop.app IS NOT NULL
), named AS (
    SELECT app AS name FROM hop WHERE app IS NOT NULL
    UNION
    SELECT name FROM dispatcher.app
)
SELECT
    n.name,
    a.name IS NOT NULL AS known,
    a.paused_at,
    a.paused_by,
    a.pause_code,
    a.pause_reason,
    a.probe_at,
    a.numbers_per_second,
    a.rate,
    (SELECT count(*) FROM (SELECT FROM dispatcher.queue q WHERE q.app = n.name LIMIT 10001) AS w)
        AS waiting,
    (
        SELECT min(first.due_at)
        FROM generate_series(0, 9) AS p
        CROSS JOIN LATERAL (
            SELECT q.due_at FROM dispatcher.queue q
            WHERE q.app = n.name AND q.priority = p AND q.due_at <= clock_timestamp()
            ORDER BY q.due_at LIMIT 1
        ) AS first
    ) AS oldest_due_at,
    (
        SELECT coalesce(sum(cardinality(b.message_ids)), 0)
        FROM dispatcher.batch b WHERE b.state = 'open' AND b.app = n.name
    ) AS sending,
    (
        SELECT count(*) FROM dispatcher.batch b WHERE b.state = 'unsure' AND b.app = n.name
    ) AS unsure_batches,
    ARRAY(
        SELECT c.country FROM dispatcher.country_pause c
        WHERE c.app = n.name AND c.until > clock_timestamp() ORDER BY c.country
    ) AS paused_countries
FROM named n
LEFT JOIN dispatcher.app a ON a.name = n.name
ORDER BY n.name
