-- Append to the feed what became of messages, one row for each app, event and code.
-- $1 apps, $2 events, $3 codes, $4 message ids of each (an array as text)
INSERT INTO dispatcher.feed (app, event, code, message_ids)
SELECT u.app, u.event, u.code, u.ids::bigint[]
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    WITH ORDINALITY AS u (app, event, code, ids, place)
ORDER BY u.place
