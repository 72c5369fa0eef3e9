-- Add to the counters of this minute. Sorted, so that two transactions cannot lock crosswise.
-- $1 worker, $2 apps, $3 events, $4 codes, $5 counts
INSERT INTO dispatcher.tally AS t (minute, app, event, code, worker, count)
SELECT date_trunc('minute', now()), u.app, u.event, u.code, $1, u.count
FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS u (app, event, code, count)
ORDER BY u.app, u.event, u.code
ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
