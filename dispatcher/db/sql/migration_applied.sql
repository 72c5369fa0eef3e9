-- One migration is applied. A second starter past the lock fails here, and rolls back.
INSERT INTO dispatcher.schema_migrations (version, checksum, applied_at) VALUES ($1, $2, now())
