-- Where the server's log of changes ends now.
SELECT pg_current_wal_insert_lsn()::text
