-- Note the checksum of what dbmate applied, so that later edits are seen.
UPDATE dispatcher.schema_migrations m
SET checksum = file.checksum
FROM unnest($1::text[], $2::text[]) AS file (version, checksum)
WHERE m.version = file.version AND m.checksum IS NULL
