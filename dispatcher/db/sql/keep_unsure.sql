-- The answer told of some messages of an unsure batch: only these are still to be settled.
-- $1 batch, $2 message ids
UPDATE dispatcher.batch SET unsure_ids = $2::bigint[] WHERE id = $1 AND state = 'unsure'
