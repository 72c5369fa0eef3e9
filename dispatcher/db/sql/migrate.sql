-- The table of migrations and its lock.

-- name: migrations_exist
-- Whether this database ever had a migration.
SELECT to_regclass('dispatcher.schema_migrations') IS NOT NULL

-- name: migrations_table
-- The table of the migrations, with its schema. dbmate writes the version alone, so the rest may
-- be null. Two who do this at once would collide: it is done under the lock.
CREATE SCHEMA IF NOT EXISTS dispatcher;
CREATE TABLE IF NOT EXISTS dispatcher.schema_migrations (
    version text NOT NULL PRIMARY KEY,
    checksum text,
    applied_at timestamptz DEFAULT now()
);
ALTER TABLE dispatcher.schema_migrations
    ADD COLUMN IF NOT EXISTS checksum text,
    ADD COLUMN IF NOT EXISTS applied_at timestamptz,
    ALTER COLUMN applied_at SET DEFAULT now()

-- name: migrations_adopt
-- Note the checksum of what dbmate applied, so that later edits are seen.
UPDATE dispatcher.schema_migrations m
SET checksum = file.checksum
FROM unnest($1::text[], $2::text[]) AS file (version, checksum)
WHERE m.version = file.version AND m.checksum IS NULL

-- name: migrations_applied
-- What is applied. A table that dbmate made has the version alone.
SELECT
    version,
    to_jsonb(m) ->> 'checksum' AS checksum,
    (to_jsonb(m) ->> 'applied_at')::timestamptz AS applied_at
FROM dispatcher.schema_migrations m

-- name: migrations_lock
-- One migrates at a time. Never waited for here: see the caller.
SELECT pg_try_advisory_lock($1)

-- name: migrations_unlock
-- Let the next one migrate.
SELECT pg_advisory_unlock($1)

-- name: migrations_patience
-- How long a statement of a migration waits for a table ($2: in this transaction only), and that
-- a limit the role may have does not end a long one.
SELECT set_config('lock_timeout', $1, $2), set_config('statement_timeout', '0', $2)

-- name: migrations_act_as_owner
-- Act as the owner of the schema, if that is another role and we may: what a migration makes is
-- then owned by it. Until the end of the transaction ($1), or until RESET ROLE. In a
-- restored or copied database he has not the right that making a schema takes, and we act ourselves.
SELECT set_config('role', r.rolname, $1)
FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
WHERE n.nspname = 'dispatcher' AND r.rolname <> current_user
  AND pg_has_role(current_user, r.oid, 'MEMBER')
  AND has_database_privilege(r.oid, current_database(), 'CREATE')

-- name: migration_applied
-- One migration is applied. A second starter past the lock fails here, and rolls back.
INSERT INTO dispatcher.schema_migrations (version, checksum, applied_at) VALUES ($1, $2, now())

-- name: migration_reverted
-- One migration is taken back.
DELETE FROM dispatcher.schema_migrations WHERE version = $1
