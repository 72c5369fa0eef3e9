-- What the carrier said of a message, one row a segment.
-- $1 provider id
SELECT segment, total, status, state, description, received_at, updated_at
FROM dispatcher.report
WHERE provider_id = $1
ORDER BY segment
