-- Does the database answer, and is it read-only?
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'
