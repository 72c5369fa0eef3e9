-- Everything kept of the messages to a number, oldest first: the rows themselves, as JSON.
-- $1 spellings of the number
SELECT jsonb_build_object(
    'message', to_jsonb(m),
    'status', to_jsonb(s),
    'reports', coalesce(
        (SELECT jsonb_agg(to_jsonb(r)) FROM dispatcher.report r WHERE r.provider_id = s.provider_id),
        '[]')
)::text
FROM dispatcher.message m
JOIN dispatcher.message_status s ON s.id = m.id
WHERE m.recipient = ANY ($1::text[])
  AND s.id = ANY (ARRAY(SELECT id FROM dispatcher.message WHERE recipient = ANY ($1::text[])))
ORDER BY m.id
