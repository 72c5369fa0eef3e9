-- What a connection or transaction sets.

-- name: begin
-- Begin a transaction whose client may not fall silent in the middle of it. A client that is frozen
-- there would hold its locks, for one on the rate limit of an app, and all other workers would wait
-- for it; so the server ends the session, which is a ROLLBACK. A client that runs has cut it itself
-- by then (database.TRANSACTION_TIMEOUT_SECONDS), and one that waits for a slow statement is not idle.
-- The lock timeout is shorter: else the frozen client's other transactions, which wait behind the
-- first, would come to hold the lock one after the other. A caller that gives up tries again.
-- The isolation is named because a database or a role may have another default: each second look
-- after a lock, here and in functions, must see what was committed meanwhile.
-- Where a policy hides rows from this role, a statement fails instead of seeing less: a claim would
-- delete the row of the queue and not find its message, which would be lost.
-- All in one message: it costs no round trip, and changes no session, so that it also works behind
-- a pooler that hands sessions around.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL lock_timeout = '4s';
SET LOCAL row_security = off

-- name: lock_timeout
-- Set how long a statement of this transaction waits for a lock.
-- $1 time
SELECT set_config('lock_timeout', $1, true)

-- name: pin_plans
-- Pin the planner for the rest of this transaction: statistics are wrong for tables that fill within
-- minutes, and a plan made for an empty table would be kept for a full one. Every statement that is
-- run so has an index for what it searches. (app_state pins what a claim needs.)
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('jit', 'off', true)

-- name: set_lock_timeout
-- Set how long each statement of this transaction waits for a lock.
-- $1 time
SELECT set_config('lock_timeout', $1, true)

-- name: ping
-- Return whether the database is read-only, and whether commits of this role wait for a synchronous
-- standby since seconds.
SELECT
    pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only,
    EXISTS (
        SELECT FROM pg_stat_activity
        WHERE wait_event = 'SyncRep' AND state_change < clock_timestamp() - interval '3 s'
          AND datname = current_database()
    ) AS commits_wait

-- name: database_time
-- Return the time that decides, whatever the local clock shows.
SELECT clock_timestamp()

-- name: database_epoch
-- Return the same in seconds since 1970.
SELECT date_part('epoch', clock_timestamp())

-- name: connection_limit
-- Return how many connections this role, or all roles together to this database, may have; null for
-- no limit of their own.
SELECT least(nullif(r.rolconnlimit, -1), nullif(d.datconnlimit, -1))
FROM pg_roles r, pg_database d
WHERE r.rolname = session_user AND d.datname = current_database() AND NOT r.rolsuper

-- name: rights_missing
-- Return the tables, sequences and functions on which this user lacks a right of dispatcher_worker.
SELECT DISTINCT g.object
FROM dispatcher.role_grant g, unnest(string_to_array(g.privilege, ', ')) AS wanted
WHERE g.role = 'dispatcher_worker' AND g.privilege NOT LIKE '%(%' AND NOT CASE
    WHEN g.object LIKE 'FUNCTION %'
        THEN has_function_privilege(substr(g.object, length('FUNCTION ') + 1)::regproc, wanted)
    WHEN g.object LIKE 'SEQUENCE %'
        THEN has_sequence_privilege(substr(g.object, length('SEQUENCE ') + 1), wanted)
    ELSE has_table_privilege(g.object, wanted)
END
ORDER BY g.object

-- name: is_standby
-- Return whether this server repeats another one, and takes no writes.
SELECT pg_is_in_recovery()

-- name: read_only_setting
-- Return whether a setting, and no standby, makes transactions read-only.
SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'on'
