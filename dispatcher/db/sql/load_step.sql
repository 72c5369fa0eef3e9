-- Note how far a load has come, in the transaction of its COPY. The guard keeps two loads of one
-- file apart: no row if the load is not where the caller believes it to be.
-- $1 digest, $2 lines before, $3 lines now, $4 taken, $5 refused, $6 bytes of rejects
UPDATE dispatcher.load SET lines = $3, taken = $4, refused = $5, rejects_bytes = $6
WHERE digest = $1 AND lines = $2 AND ended_at IS NULL
RETURNING digest
