-- Set what an app allows itself; all of it null: nothing is limited any more.
-- $1 app, $2 per minute, $3 per day, $4 same per minute, $5 same per hour, $6 ceiling,
-- $7 quiet from, $8 quiet until
WITH gone AS (
    DELETE FROM dispatcher.app_limit
    WHERE app = $1 AND num_nonnulls($2::int, $3::int, $4::int, $5::int, $6::bigint, $7::time) = 0
)
INSERT INTO dispatcher.app_limit AS l
SELECT $1, $2, $3, $4, $5, $6, $7, $8::time
WHERE num_nonnulls($2::int, $3::int, $4::int, $5::int, $6::bigint, $7::time) > 0
ON CONFLICT (app) DO UPDATE SET per_minute = excluded.per_minute, per_day = excluded.per_day,
    same_per_minute = excluded.same_per_minute, same_per_hour = excluded.same_per_hour,
    ceiling = excluded.ceiling, quiet_from = excluded.quiet_from, quiet_until = excluded.quiet_until
