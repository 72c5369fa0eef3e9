-- Take rejected or expired messages back into the queue; returns how many.
-- $1 message ids
SELECT dispatcher.requeue($1)
