-- How many workers have announced themselves, and have not left.
SELECT count(*)::int FROM dispatcher.worker WHERE stopped_at IS NULL
