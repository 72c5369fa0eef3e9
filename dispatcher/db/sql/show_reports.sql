-- Everything the carrier said of a message, one row a segment: under its provider id, and under the
-- tokens of its requests with its number, for that is all there is while it is unsure.
-- $1 provider id, $2 tokens, $3 number (core.message.canonical)
SELECT r.provider_id, r.segment, r.total, r.status, r.state, r.description, r.received_at,
    r.updated_at, r.source, r.earlier ->> 'status' AS earlier_status,
    (r.earlier ->> 'received_at')::timestamptz AS earlier_at, u.why AS unmatched
FROM dispatcher.report r
LEFT JOIN dispatcher.unmatched u ON u.provider_id = r.provider_id AND u.segment = r.segment
WHERE r.provider_id = $1
   OR r.token = ANY ($2::text[])
  AND CASE WHEN r.recipient LIKE '+%' THEN r.recipient ELSE '+86' || r.recipient END = $3
ORDER BY r.received_at, r.provider_id, r.segment
