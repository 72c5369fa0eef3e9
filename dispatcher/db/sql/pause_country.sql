-- Let the messages of one app to one country wait.
-- $1 app, $2 country, $3 seconds, $4 code
INSERT INTO dispatcher.country_pause AS c (app, country, until, code)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3), $4)
ON CONFLICT (app, country) DO UPDATE SET until = excluded.until, code = excluded.code
