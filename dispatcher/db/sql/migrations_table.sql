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
