-- Tell whoever checks the callback address that its test report came as far as this database.
-- $1 the test's own word
SELECT pg_notify('dispatcher_check', $1)
