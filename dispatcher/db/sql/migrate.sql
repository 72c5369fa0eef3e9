-- The table of migrations and its lock.

-- name: migrations_exist
-- Return whether this database has a table of migrations.
SELECT to_regclass('dispatcher.schema_migrations') IS NOT NULL

-- name: migrations_table
-- Create the table of the migrations, with its schema. Two that do this at once would collide: it is
-- done under the lock.
CREATE SCHEMA IF NOT EXISTS dispatcher;
CREATE TABLE IF NOT EXISTS dispatcher.schema_migrations (
    version text NOT NULL PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: migrations_applied
-- Return what is applied.
SELECT version, checksum, applied_at FROM dispatcher.schema_migrations

-- name: migrations_lock
-- Take the lock of the migrations; false if another process has it. It is never waited for here: see
-- the caller.
-- $1 key of the lock
SELECT pg_try_advisory_lock($1)

-- name: migrations_unlock
-- Release the lock of the migrations.
-- $1 key of the lock
SELECT pg_advisory_unlock($1)

-- name: migration_timeouts
-- Set how long a statement of a migration waits for a table ($2: in this transaction only), and lift
-- the limit that the role may have for long ones.
-- $1 time, $2 whether in this transaction only
SELECT set_config('lock_timeout', $1, $2), set_config('statement_timeout', '0', $2)

-- name: act_as_owner
-- Act as the owner of the schema, if that is another role and this one may: it then owns what a
-- migration makes, whatever role runs it. Until the end of the transaction ($1), or until RESET
-- ROLE. In a restored or copied database the owner may lack the right that making a schema takes;
-- the session's own role acts then.
-- $1 whether in this transaction only
SELECT set_config('role', r.rolname, $1)
FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
WHERE n.nspname = 'dispatcher' AND r.rolname <> current_user
  AND pg_has_role(current_user, r.oid,
      CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
  AND has_database_privilege(r.oid, current_database(), 'CREATE')

-- name: migration_applied
-- Record that a migration is applied. A second process past the lock fails here, and rolls back.
-- $1 version, $2 checksum
INSERT INTO dispatcher.schema_migrations (version, checksum, applied_at) VALUES ($1, $2, now())

-- name: migration_reverted
-- Record that a migration is reverted.
-- $1 version
DELETE FROM dispatcher.schema_migrations WHERE version = $1

-- name: server_encoding
-- Return the encoding of the database.
SELECT current_setting('server_encoding')

-- name: can_repair_sequences
-- Return whether there is a function that repairs sequences, and whether this role may call it.
SELECT coalesce(has_function_privilege(to_regprocedure('dispatcher.repair_sequences()'), 'EXECUTE'),
    false)

-- name: sequences_behind
-- Return the sequences that are behind their rows: name, last value, value that it must have reached.
SELECT name, last_value, needed FROM dispatcher.sequences_behind()

-- name: repair_sequences
-- Set the sequences that are behind their rows, and return them as they were.
SELECT name, last_value, needed FROM dispatcher.repair_sequences()
