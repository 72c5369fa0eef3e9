-- What happened in the last ten minutes, by minute; from the counters.
SELECT minute, app, event, code, sum(count)::bigint
FROM dispatcher.tally
WHERE minute > now() - interval '10 minutes'
GROUP BY minute, app, event, code
ORDER BY minute, app, event, code
