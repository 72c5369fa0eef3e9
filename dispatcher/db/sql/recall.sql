-- Take messages that wait to be sent again out of the queue: a report has told that they were sent.
-- $1 message ids
DELETE FROM dispatcher.queue WHERE id = ANY ($1::bigint[]) RETURNING id
