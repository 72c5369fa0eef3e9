-- Hold the app's pace until the end of this transaction; seconds until it may claim again
-- (negative: may claim now).
-- $1 app
SELECT extract(epoch FROM next_at - clock_timestamp())::float8 AS wait
FROM dispatcher.app WHERE name = $1 FOR NO KEY UPDATE
