-- How far the load of a file has come, so that one that was cut short goes on where it was.

-- migrate:up

-- One file, by the SHA-256 of its content. Written in the transaction of each COPY, so it says
-- exactly what is in.
CREATE TABLE dispatcher.load (
    digest text NOT NULL PRIMARY KEY,
    name text NOT NULL,
    lines bigint NOT NULL DEFAULT 0,
    taken bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    rejects_bytes bigint NOT NULL DEFAULT 0,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);

INSERT INTO dispatcher.role_right (role, may, on_what) VALUES
    ('dispatcher_worker', 'SELECT, INSERT, UPDATE, DELETE', 'dispatcher.load'),
    ('dispatcher_reader', 'SELECT', 'dispatcher.load');
SELECT dispatcher.make_roles();

-- migrate:down

DROP TABLE dispatcher.load;
DELETE FROM dispatcher.role_right WHERE on_what = 'dispatcher.load';
