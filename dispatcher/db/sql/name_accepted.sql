-- Give accepted messages the provider id that nobody knew when they were settled.
-- $1 message ids, $2 provider ids
UPDATE dispatcher.outcome o SET provider_id = u.provider_id
FROM unnest($1::bigint[], $2::text[]) AS u (id, provider_id)
WHERE o.message_id = u.id AND o.message_id = ANY ($1::bigint[])
  AND o.state = 'accepted' AND o.provider_id IS NULL
RETURNING o.message_id
