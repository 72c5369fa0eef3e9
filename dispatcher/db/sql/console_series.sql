-- What happened since a time, in steps, by event; from the counters.
-- $1 app (null: all), $2 whole span (seconds), $3 step (seconds)
SELECT
    date_bin(make_interval(secs => $3), minute, 'epoch') AS step,
    event,
    sum(count)::bigint
FROM dispatcher.tally
WHERE minute >= date_bin(make_interval(secs => $3), now() - make_interval(secs => $2), 'epoch')
  AND ($1::text IS NULL OR app = $1)
  AND event IN ('accepted', 'rejected', 'deferred', 'delivered', 'undelivered')
GROUP BY step, event
ORDER BY step, event
