-- Write what the statuses of reports mean, for message_status.
-- $1 statuses, $2 states, $3 meanings
INSERT INTO dispatcher.carrier_status AS c (status, state, meaning)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
ON CONFLICT (status) DO UPDATE SET state = excluded.state, meaning = excluded.meaning
WHERE (c.state, c.meaning) <> (excluded.state, excluded.meaning)
