-- Whether this database ever had a migration.
SELECT to_regclass('dispatcher.schema_migrations') IS NOT NULL
