-- Remember a file whose load begins; one that is known stays as it is.
-- $1 digest, $2 name
INSERT INTO dispatcher.load (digest, name) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING
