-- Append to the feed what became of messages, one row for each app, event and code. Each names its
-- messages, or the batch that they are all of.
-- $1 apps, $2 events, $3 codes, $4 message ids of each (an array as text) or null, $5 batches or
-- null, $6 how many messages
INSERT INTO dispatcher.feed (app, event, code, message_ids, batch_id, size)
SELECT u.app, u.event, u.code, u.ids::bigint[], u.batch_id, u.size
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::int[])
    WITH ORDINALITY AS u (app, event, code, ids, batch_id, size, place)
ORDER BY u.place
