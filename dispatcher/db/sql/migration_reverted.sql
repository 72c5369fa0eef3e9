-- One migration is taken back.
DELETE FROM dispatcher.schema_migrations WHERE version = $1
