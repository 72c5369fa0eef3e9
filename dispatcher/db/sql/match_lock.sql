-- One matches at a time, for all workers and receivers; false if somebody else does.
-- $1 key of the lock
SELECT pg_try_advisory_xact_lock($1)
