-- How far the load of a file has come, so that one that was cut short goes on where it was.

-- migrate:up

-- One file, by the SHA-256 of its content. Written in the transaction of each COPY, so it says
-- exactly what is in.
CREATE TABLE dispatcher.load (
    digest text NOT NULL PRIMARY KEY,
    name text NOT NULL,
    lines bigint NOT NULL DEFAULT 0,
    taken bigint NOT NULL DEFAULT 0,
    taken_lines bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    left_out bigint NOT NULL DEFAULT 0,
    first_id bigint NOT NULL,
    last_id bigint,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);

-- The lines of a load that were refused, so that its file of rejects can be written anew.
CREATE TABLE dispatcher.load_refusal (
    digest text NOT NULL REFERENCES dispatcher.load (digest) ON DELETE CASCADE,
    line bigint NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (digest, line)
);

INSERT INTO dispatcher.role_right (role, may, on_what) VALUES
    ('dispatcher_worker', 'SELECT, INSERT, UPDATE, DELETE', 'dispatcher.load'),
    ('dispatcher_worker', 'SELECT, INSERT, UPDATE, DELETE', 'dispatcher.load_refusal'),
    ('dispatcher_reader', 'SELECT', 'dispatcher.load'),
    ('dispatcher_reader', 'SELECT', 'dispatcher.load_refusal');
SELECT dispatcher.make_roles();

-- migrate:down

DROP TABLE dispatcher.load_refusal;
DROP TABLE dispatcher.load;
DELETE FROM dispatcher.role_right WHERE on_what LIKE 'dispatcher.load%';
