-- How many messages have an outcome by now, as the recorder counts them.
SELECT coalesce(sum(count), 0)::int FROM dispatcher.tally WHERE event IN ('accepted', 'rejected')
