-- Append what became of messages that have no batch: claimed, and never to be sent.
-- $1 ids, $2 states, $3 attempts, $4 codes, $5 reasons
INSERT INTO dispatcher.outcome (message_id, state, attempts, code, reason)
SELECT u.id, u.state, u.attempts, u.code, u.reason
FROM unnest($1::bigint[], $2::text[], $3::smallint[], $4::text[], $5::text[])
    AS u (id, state, attempts, code, reason)
