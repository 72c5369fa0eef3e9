-- Count messages that have their first report, by the minute in which they were accepted: what is
-- left of those accepted in that minute has none (see awaiting_reports.sql).
-- $1 times of acceptance, $2 apps
INSERT INTO dispatcher.tally AS t (minute, app, event, code, worker, count)
SELECT date_trunc('minute', u.at), u.app, 'reported', '', 0, count(*)
FROM unnest($1::timestamptz[], $2::text[]) AS u (at, app)
GROUP BY 1, 2 ORDER BY 1, 2
ON CONFLICT (minute, app, event, code, worker) DO UPDATE SET count = t.count + excluded.count
