-- Append to the feed what became of messages, one row for each app, event and code. All ids come
-- as one array, cut at the ends given in $4.
-- $1 apps, $2 events, $3 codes, $4 where each ends (1-based, inclusive), $5 message ids
INSERT INTO dispatcher.feed (app, event, code, message_ids)
SELECT t.app, t.event, t.code, ($5::bigint[])[t.first:t.last]
FROM (
    SELECT u.*, coalesce(lag(u.last) OVER (ORDER BY u.place), 0) + 1 AS first
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[])
        WITH ORDINALITY AS u (app, event, code, last, place)
) AS t
ORDER BY t.place
