-- Partitions, indexes, retention.

-- name: make_partitions
-- Make partitions ahead of need; returns how many.
SELECT dispatcher.make_partitions()

-- name: turn_page
-- Begin a new partition if the current one was begun long ago; returns whether it did.
-- $1 how long ago (seconds)
SELECT dispatcher.turn_page(make_interval(secs => $1))

-- name: index_step
-- Make one index that a full partition lacks; returns its name, null for nothing.
SELECT dispatcher.index_step()

-- name: drop_step
-- One step of dropping the oldest partition that is over; returns what was done, null for nothing.
-- So few messages in one step that workers are hardly slowed: fifty thousand took
-- seconds of one core.
-- $1 retention (seconds)
SELECT dispatcher.drop_step(make_interval(secs => $1), 10000)

-- name: prune
-- Delete what is old and lies in no partition, a bounded number of rows; returns how many.
-- $1 retention (seconds)
SELECT dispatcher.prune(make_interval(secs => $1))

-- name: wipe_params
-- Wipe the variables of messages that are long over, a bounded number; returns how many it looked at.
-- $1 how long over (seconds)
SELECT dispatcher.wipe_params(make_interval(secs => $1))
