-- Keep a number on the list of those never to send to, and nothing else of its person; returns
-- whether it is there.
-- $1 the number in canonical form
WITH kept AS (
    UPDATE dispatcher.suppression SET reason = '' WHERE recipient = $1 RETURNING 1
)
SELECT EXISTS (SELECT FROM kept)
