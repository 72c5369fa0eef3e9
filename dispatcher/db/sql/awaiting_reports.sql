-- What of the accepted has no report yet, by app; from the counters alone. Minutes further back
-- than $1 are left out: the provider has reported by then, or never will.
-- $1 seconds that count, $2 seconds after which a report is overdue
WITH minutes AS (
    SELECT app, minute,
        coalesce(sum(count) FILTER (WHERE event <> 'reported'), 0) AS accepted,
        coalesce(sum(count) FILTER (WHERE event = 'reported'), 0) AS reported
    FROM dispatcher.tally
    WHERE minute > now() - make_interval(secs => $1)
      AND (event IN ('accepted', 'reported') OR event = 'settled' AND code = 'sent')
    GROUP BY app, minute
)
SELECT
    app,
    sum(accepted)::bigint AS accepted,
    sum(greatest(accepted - reported, 0))::bigint AS waiting,
    coalesce(sum(greatest(accepted - reported, 0))
        FILTER (WHERE minute < now() - make_interval(secs => $2)), 0)::bigint AS overdue,
    extract(epoch FROM now() - min(minute) FILTER (WHERE accepted > reported))::float8
        AS oldest_seconds
FROM minutes
GROUP BY app
ORDER BY app
