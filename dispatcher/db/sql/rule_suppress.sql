-- Suppress numbers; returns how many were not suppressed before.
-- $1 numbers in canonical form, $2 reason, $3 source
WITH added AS (
    INSERT INTO dispatcher.suppression (recipient, reason, source)
    SELECT DISTINCT u, $2, $3 FROM unnest($1::text[]) AS u ORDER BY u
    ON CONFLICT (recipient) DO NOTHING
    RETURNING 1
)
SELECT count(*)::int FROM added
