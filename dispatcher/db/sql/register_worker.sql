-- A new worker, with a new id at every boot.
-- $1 host, $2 process id, $3 version, $4 apps, $5 lease (seconds)
INSERT INTO dispatcher.worker (host, pid, version, apps, lease)
VALUES ($1, $2, $3, $4, make_interval(secs => $5))
RETURNING id
