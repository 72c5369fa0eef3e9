-- What happened in the last hour and the last day, by app, event and code; from the counters.
SELECT
    app,
    event,
    code,
    coalesce(sum(count) FILTER (WHERE minute > now() - interval '1 hour'), 0)::bigint AS hour,
    sum(count)::bigint AS day
FROM dispatcher.tally
WHERE minute > now() - interval '1 day'
GROUP BY app, event, code
ORDER BY app, event, code
