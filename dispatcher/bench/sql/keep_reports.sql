-- The carriers' reports of what was accepted; of 50 messages one never had any.
-- $1 first id, $2 how many
INSERT INTO dispatcher.report
    (provider_id, status, state, token, recipient, received_at, updated_at, source, raw)
SELECT o.provider_id,
    CASE WHEN m.id % 25 = 0 THEN 'UNDELIV' ELSE 'DELIVRD' END,
    CASE WHEN m.id % 25 = 0 THEN 'undelivered' ELSE 'delivered' END,
    md5('token ' || o.batch_id), m.recipient, o.at + interval '5 s', o.at + interval '4 s', 1,
    jsonb_build_object('orgCode', '1', 'to', m.recipient)
FROM dispatcher.message m JOIN dispatcher.outcome o ON o.message_id = m.id
WHERE m.id >= $1::bigint AND m.id < $1::bigint + $2::int
  AND o.message_id >= $1::bigint AND o.message_id < $1::bigint + $2::int
  AND o.state = 'accepted' AND m.id % 50 <> 7
