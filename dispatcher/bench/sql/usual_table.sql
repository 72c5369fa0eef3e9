-- The usual shape of a queue: one table, in which a status moves.
CREATE SCHEMA usual;
CREATE TABLE usual.message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app text NOT NULL,
    sender text,
    recipient text NOT NULL,
    template_id text NOT NULL,
    params text[] NOT NULL,
    signature text,
    priority smallint NOT NULL DEFAULT 5,
    send_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    status text NOT NULL DEFAULT 'queued',
    attempts smallint NOT NULL DEFAULT 0,
    claimed_by integer,
    claimed_at timestamptz,
    finished_at timestamptz,
    provider_id text,
    segments smallint,
    code text
);
CREATE INDEX message_queued ON usual.message (app, priority, send_at) WHERE status = 'queued';
CREATE INDEX message_claimed ON usual.message (claimed_at) WHERE status = 'claimed';
