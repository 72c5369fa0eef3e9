-- What a connection or transaction sets.

-- name: begin
-- Begin a transaction whose client may not fall silent in the middle of it. A client that is frozen
-- there would hold its locks, for one on the rate limit of an app, and all other workers would wait
-- for it; so the server ends the session, which is a ROLLBACK. A client that runs has cut it itself
-- by then (database.PATIENCE), and one that waits for a slow statement is not idle.
-- The lock timeout is shorter: else the frozen client's other transactions, which wait behind the
-- first, would come to hold the lock one after the other. A caller that gives up tries again.
-- All in one message: it costs no round trip, and changes no session, so that it also works behind
-- a pooler that hands sessions around.
BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL lock_timeout = '4s'

-- name: pin_plans
-- Pin the planner for the rest of this transaction: statistics are wrong for tables that fill within
-- minutes, and a plan made for an empty table would be kept for a full one. Every statement that is
-- run so has an index for what it searches. (app_state pins what a claim needs.)
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('jit', 'off', true)

-- name: ping
-- Return whether the database is read-only.
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'

-- name: database_epoch
-- Return the same in seconds since 1970.
SELECT date_part('epoch', clock_timestamp())

-- name: database_time
-- Return the time that decides, whatever the local clock shows.
SELECT clock_timestamp()
