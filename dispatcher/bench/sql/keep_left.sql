-- How many months of the year are still there.
SELECT count(*)::int FROM dispatcher.partitions() p
WHERE EXISTS (SELECT FROM dispatcher.message m
    WHERE m.id >= p.first AND m.id < p.past AND m.queued_at < now() - interval '9 days')
