-- What a connection or transaction sets.

-- name: begin
-- Begin a transaction whose client may not fall silent in the middle of it. One that is frozen
-- there would hold its locks, on the pace of an app for one, and all other workers would wait for
-- it; so the server ends it, which is a ROLLBACK. By then a client that runs has cut it itself
-- (session.PATIENCE), and one that waits for a slow statement is not idle.
-- Nobody waits as long for a lock: else the frozen client's other transactions, which wait behind
-- the first, would come to hold it one after the other. Who gives up asks again.
-- All in one message: it costs no round trip, and no session is changed, so that it also works
-- behind a pooler that hands sessions around.
BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL lock_timeout = '4s'

-- name: pin_plans
-- Pin the planner for the rest of this transaction: tables that fill within minutes make statistics
-- lie, and a plan made for an empty table would be kept for a full one. Every statement that is run
-- so has an index for what it looks for. (What a claim pins is in app_state.)
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('jit', 'off', true)

-- name: ping
-- Does the database answer, and is it read-only?
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'

-- name: database_time
-- The time that decides, whatever the clock here says.
SELECT clock_timestamp()
