-- One claim of an app with limits at a time, until the end of the transaction: what two of them
-- let pass at once would be too much.
-- $1 app
SELECT pg_advisory_xact_lock(hashtext('dispatcher.app_limit'), hashtext($1))
