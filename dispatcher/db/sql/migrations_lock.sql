-- One migrates at a time. Never waited for here: see the caller.
SELECT pg_try_advisory_lock($1)
