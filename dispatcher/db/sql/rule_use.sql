-- Note what numbers are sent now; a message that comes by again keeps one row.
-- $1 app, $2 message ids, $3 numbers in canonical form, $4 digests of texts
INSERT INTO dispatcher.sent_to AS s (message_id, app, recipient, text)
SELECT u.id, $1, u.recipient, u.text
FROM unnest($2::bigint[], $3::text[], $4::bigint[]) AS u (id, recipient, text)
ON CONFLICT (message_id) DO UPDATE SET at = excluded.at
