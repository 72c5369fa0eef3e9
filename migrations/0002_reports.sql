-- Status reports: what waits to be matched, what matches nothing, and the feed of events.
--
-- PostgreSQL 15 knows no STORAGE in CREATE TABLE; it stood there, and made the same.
-- migrate:formerly cdb81a19e4b582f10885f0c3a17e3b38161e38de618cb26ae035f52b2ed37aa5

-- migrate:up

-- What one commit of a receiver brought, until it is matched: one row, however many reports, so
-- that taking a report in writes it once. Arrays of equal length, one place a report.
CREATE TABLE dispatcher.report_inbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    provider_ids text[] NOT NULL,
    segments smallint[] NOT NULL,
    totals smallint[] NOT NULL,
    states text[] NOT NULL,
    statuses text[] NOT NULL,
    tokens text[] NOT NULL,
    recipients text[] NOT NULL,
    fresh boolean[] NOT NULL,  -- the first report of its segment; else a final one after an interim
    size integer GENERATED ALWAYS AS (cardinality(provider_ids)) STORED
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0
);

-- A push to the secret address that is no report, or not only: kept as it came, for people and for a
-- later release (`dispatcher reports --replay`). A push that comes again is one row.
CREATE TABLE dispatcher.unreadable_push (
    digest bytea NOT NULL PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    times bigint NOT NULL DEFAULT 1,
    reason text NOT NULL,
    content_type text NOT NULL,
    body bytea NOT NULL,
    read_at timestamptz  -- when a later release could read it
);

CREATE INDEX unreadable_push_waiting ON dispatcher.unreadable_push (received_at)
    WHERE read_at IS NULL;

-- A report that belongs to no message: not yet (looked at again at due_at), or never (due_at null).
CREATE TABLE dispatcher.unmatched (
    provider_id text NOT NULL,
    segment smallint NOT NULL,
    why text NOT NULL,
    fresh boolean NOT NULL DEFAULT true,
    looks smallint NOT NULL DEFAULT 1,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz,
    PRIMARY KEY (provider_id, segment)
);

CREATE INDEX unmatched_due ON dispatcher.unmatched (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX unmatched_since ON dispatcher.unmatched (since);

-- What several reports of one message come to (one a segment, or an interim one before the final),
-- as far as it was told: so that a message is delivered once. Most have one report, and no row here.
CREATE TABLE dispatcher.report_sum (
    provider_id text NOT NULL PRIMARY KEY,
    state text NOT NULL,
    status text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT report_sum_state_is_known
        CHECK (state IN ('interim', 'delivered', 'undelivered'))
);

-- What became of messages, in the order in which anybody could see it. Whoever decides something
-- appends a row in its own transaction, one for all messages it is true of; where that is a whole
-- batch, as nearly always when it is accepted, the batch is named instead. A row gets its place
-- (last: the position of its last message) only after its commit, from one sequencer at a time:
-- so a long transaction is late, but never behind the place where a reader has been.
CREATE TABLE dispatcher.feed (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    last bigint,
    at timestamptz NOT NULL DEFAULT now(),
    app text NOT NULL,
    event text NOT NULL,
    code text NOT NULL DEFAULT '',
    message_ids bigint[],
    batch_id bigint,
    size integer NOT NULL,
    CONSTRAINT feed_names_messages_or_a_batch CHECK (num_nonnulls(message_ids, batch_id) = 1),
    CONSTRAINT feed_event_is_known CHECK (event IN (
        'accepted', 'rejected', 'expired', 'cancelled', 'unsure', 'requeued',
        'delivered', 'undelivered'))
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 5000
);
-- Compressing it takes longer than all the rest.
ALTER TABLE dispatcher.feed ALTER COLUMN message_ids SET STORAGE EXTERNAL;

CREATE UNIQUE INDEX feed_last ON dispatcher.feed (last) WHERE last IS NOT NULL;
CREATE INDEX feed_new ON dispatcher.feed (id) WHERE last IS NULL;

-- The last position that was given away; one row.
CREATE TABLE dispatcher.feed_end (
    single boolean PRIMARY KEY DEFAULT true,
    last bigint NOT NULL,
    CONSTRAINT feed_end_is_one_row CHECK (single)
) WITH (fillfactor = 10);

INSERT INTO dispatcher.feed_end (last) VALUES (0);

-- Append to the feed, as part of the caller's transaction.
CREATE FUNCTION dispatcher.tell(event text, code text, apps text[], ids bigint[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO dispatcher.feed (app, event, code, message_ids, size)
    SELECT u.app, tell.event, tell.code, array_agg(u.id), count(*)
    FROM unnest(apps, ids) AS u (app, id) GROUP BY u.app ORDER BY u.app
$$;

-- What became of messages after position *after*, oldest first, at most "limit" entries. A reader
-- keeps the position of the last entry it has dealt with, and asks again: it misses nothing and
-- sees nothing twice. Reads only, and holds up nobody, however long its transaction is.
-- Positions begin at 1 and have no gaps. Where the oldest entries have been dropped, it begins
-- with the first that is kept.
CREATE FUNCTION dispatcher.events(after bigint DEFAULT 0, "limit" integer DEFAULT 1000)
RETURNS TABLE (
    "position" bigint,
    message_id bigint,
    app text,
    event text,
    code text,
    at timestamptz,
    reference text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH begin AS (
        SELECT greatest(events.after, f.last - f.size) AS after
        FROM dispatcher.feed f
        WHERE f.last > events.after
        ORDER BY f.last LIMIT 1
    ), near AS (
        SELECT f.*, b.after, f.last - f.size AS before
        FROM begin b
        CROSS JOIN LATERAL (
            -- Every row has at least one message, so as many rows as entries are enough.
            SELECT * FROM dispatcher.feed r
            WHERE r.last > b.after
            ORDER BY r.last LIMIT events."limit"
        ) AS f
        WHERE f.last - f.size < b.after + events."limit"
    )
    SELECT greatest(n.before, n.after) + told.place, told.id, n.app, n.event, n.code, n.at,
        m.reference
    FROM near n
    LEFT JOIN dispatcher.batch b ON b.id = n.batch_id
    CROSS JOIN LATERAL unnest((coalesce(n.message_ids, b.message_ids))[
        greatest(n.after - n.before, 0) + 1 : least(n.last, n.after + events."limit") - n.before
    ]) WITH ORDINALITY AS told (id, place)
    LEFT JOIN dispatcher.message m ON m.id = told.id
    ORDER BY 1
$$;

-- migrate:down

DROP FUNCTION dispatcher.events, dispatcher.tell;
DROP TABLE dispatcher.report_inbox, dispatcher.unreadable_push, dispatcher.unmatched, dispatcher.report_sum,
    dispatcher.feed, dispatcher.feed_end;
