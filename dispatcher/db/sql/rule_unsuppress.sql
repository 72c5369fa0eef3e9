-- Take numbers off the list; returns how many were on it.
-- $1 numbers in canonical form
WITH gone AS (
    DELETE FROM dispatcher.suppression WHERE recipient = ANY ($1::text[]) RETURNING 1
)
SELECT count(*)::int FROM gone
