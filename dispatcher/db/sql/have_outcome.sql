-- Which of these messages have an outcome already.
-- $1 message ids
SELECT message_id FROM dispatcher.outcome WHERE message_id = ANY ($1::bigint[])
