-- Begin a new partition, as the keeper does where one lasts too long; returns its first id.
-- $1 the last id of the month
SELECT setval('dispatcher.message_id', p.past - 1) + 1
FROM dispatcher.partitions() p,
    LATERAL (SELECT setval('dispatcher.batch_id', max(id)) FROM dispatcher.batch) AS b
WHERE p.first <= $1::bigint AND $1::bigint < p.past
