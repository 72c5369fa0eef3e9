-- Delete what is old and lies in no partition, a bounded number of rows; returns how many.
-- $1 retention (seconds)
SELECT dispatcher.prune(make_interval(secs => $1))
