-- Partitions, indexes, retention.

-- name: make_partitions
-- Make partitions ahead of need; return how many.
SELECT dispatcher.make_partitions()

-- name: start_partition_early
-- Begin a new partition if the current one was begun long ago; return whether it did.
-- $1 how long ago (seconds)
SELECT dispatcher.start_partition_early(make_interval(secs => $1))

-- name: index_step
-- Make one index that a full partition lacks; return its name, null for nothing.
SELECT dispatcher.index_step()

-- name: drop_step
-- One step of dropping the oldest partition that is finished; return what was done, null for nothing.
-- So few messages in one step that other work is hardly slowed: fifty thousand took seconds of one
-- core.
-- $1 retention (seconds)
SELECT dispatcher.drop_step(make_interval(secs => $1), 10000)

-- name: roll_up_counts
-- Add some counters by minute that are old to those by hour; return how many.
-- $1 age (seconds)
SELECT dispatcher.roll_up_counts(make_interval(secs => $1))

-- name: drop_uploads
-- Delete uploaded lists and unconfirmed actions of over a day ago; return how many.
SELECT dispatcher.drop_uploads()

-- name: prune
-- Delete what is old and lies in no partition, a bounded number of rows; return how many.
-- $1 retention (seconds)
SELECT dispatcher.prune(make_interval(secs => $1))

-- name: wipe_params
-- Wipe the variables of messages that finished long ago, a bounded number; return how many were
-- examined.
-- $1 how long ago (seconds)
SELECT dispatcher.wipe_params(make_interval(secs => $1))

-- name: foreign_keys_onto_messages
-- Return the foreign keys that keep partitions from being dropped, in words; null if there is none.
SELECT dispatcher.foreign_keys_onto_messages()
