-- Tables: what an application asks for, what workers move, what the provider reports, what
-- operators set.
--
-- A message is always in exactly one place: in `queue` or a row of `bulk`, in a `batch` that is not
-- closed, or, once it is finished, in `outcome`. dispatcher.message_status (0003) derives its state
-- from that.
--
--   INSERT INTO message --- many at once ---> bulk  (queued): leaves as the queue does
--      |
--      v                         claim
--   queue  (queued) --------------------------> batch open  (sending)
--      ^  |                                       |   |
--      |  | expired, cancelled, refused           |   | no answer, or the worker died
--      |  | before it was sent                    |   v
--      |  |            answered                   |  batch unsure  (unsure)
--      |  |  +------------------------------------+   |
--      |  |  |                                        | a late answer, a report, an operator,
--      |  v  v                                        | or the policy `resend`
--      | outcome  (accepted, rejected, <--------------+
--      |    |      expired, cancelled)                |
--      |    | requeue: rejected and expired           |
--      +----+-----------------------------------------+  deferred, returned, resend
--
--   accepted ---- a report for every segment ----> delivered or undelivered (from `report`)
--
-- A batch: open -> closed, or open -> unsure -> closed. A closed batch never changes again.

-- migrate:up

CREATE SCHEMA IF NOT EXISTS dispatcher;

-- Messages ------------------------------------------------------------------------------------------

CREATE SEQUENCE dispatcher.message_id AS bigint;

-- Partitioned by id, so that retention drops whole tables; see make_partitions in 0004.
CREATE TABLE dispatcher.message (
    id bigint NOT NULL DEFAULT nextval('dispatcher.message_id'),
    app text NOT NULL DEFAULT 'default',
    sender text,
    recipient text NOT NULL,
    template_id text NOT NULL,
    params text[] NOT NULL DEFAULT '{}',
    signature text,
    priority smallint NOT NULL DEFAULT 5,
    send_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    idempotency_key text,
    reference text,
    campaign text,
    queued_at timestamptz NOT NULL DEFAULT now(),
    wiped_at timestamptz,
    PRIMARY KEY (id),
    CONSTRAINT id_is_between_1_and_10_to_the_18 CHECK (id BETWEEN 1 AND 1000000000000000000),
    -- The length stands beside the pattern: a bounded repetition within it, a state for each, costs
    -- 2.7 us a row, a quarter of an INSERT; this costs 0.3. octet_length costs a third of length,
    -- strpos less than LIKE, LIKE less than a pattern, and comparing by bytes (COLLATE "C") least. What
    -- is usual stands first, so that the rest is seldom computed.
    CONSTRAINT app_is_a_lower_case_name
        CHECK (app = 'default' OR app ~ '^[a-z0-9][a-z0-9_-]*$' AND length(app) <= 63),
    CONSTRAINT sender_has_1_to_21_characters
        CHECK (octet_length(sender) BETWEEN 1 AND 21 OR length(sender) BETWEEN 1 AND 21),
    CONSTRAINT sender_has_no_blanks CHECK (
        sender IS NULL OR strpos(sender, ' ') = 0 AND strpos(sender, E'\n') = 0
            AND strpos(sender, E'\t') = 0 AND strpos(sender, E'\r') = 0),
    -- Recipients are checked by fill_queue() in 0002, and refused by the names of misread_recipient():
    -- each constraint here is parsed anew by every INSERT, which costs a single row more than all else
    -- of it.
    CONSTRAINT template_id_has_1_to_32_characters CHECK (
        octet_length(template_id) BETWEEN 1 AND 32 OR length(template_id) BETWEEN 1 AND 32),
    CONSTRAINT template_id_has_no_blanks CHECK (
        strpos(template_id, ' ') = 0 AND strpos(template_id, E'\n') = 0
        AND strpos(template_id, E'\t') = 0 AND strpos(template_id, E'\r') = 0),
    CONSTRAINT params_is_a_flat_list_without_nulls
        CHECK (coalesce(array_ndims(params), 1) = 1 AND array_position(params, NULL) IS NULL),
    CONSTRAINT params_has_at_most_20_variables CHECK (cardinality(params) <= 20),
    -- What a request can carry; a claim reads all of it.
    CONSTRAINT params_has_at_most_64_kilobytes
        CHECK (octet_length(array_to_string(params, '')) <= 65536),
    CONSTRAINT signature_has_at_most_32_characters CHECK (length(signature) <= 32),
    CONSTRAINT signature_has_no_blank_at_its_ends_and_no_line_break
        CHECK (
            signature !~ '^[[:space:]\u00a0\u3000]|[[:space:]\u00a0\u3000]$|[\n\r]'),
    CONSTRAINT priority_is_0_first_to_9_last CHECK (priority BETWEEN 0 AND 9),
    -- Infinity is beyond: "never expires" is null. Programs that read these times know no other
    -- years, and some zones are a day ahead.
    CONSTRAINT send_at_is_in_the_years_2000_to_9999
        CHECK (send_at >= '2000-01-01 00:00+00' AND send_at < '9999-12-31 00:00+00'),
    CONSTRAINT expires_at_is_in_the_years_2000_to_9999
        CHECK (expires_at >= '2000-01-01 00:00+00' AND expires_at < '9999-12-31 00:00+00'),
    CONSTRAINT expires_at_is_after_send_at CHECK (expires_at > send_at),
    CONSTRAINT idempotency_key_has_1_to_200_characters
        CHECK (length(idempotency_key) BETWEEN 1 AND 200),
    CONSTRAINT reference_has_at_most_200_characters CHECK (length(reference) <= 200),
    CONSTRAINT campaign_has_1_to_100_characters CHECK (length(campaign) BETWEEN 1 AND 100)
) PARTITION BY RANGE (id);

-- Not compressed: pg_column_size() is the size that a claim reads, and bounds what it takes.
ALTER TABLE dispatcher.message ALTER COLUMN params SET STORAGE EXTERNAL;

COMMENT ON TABLE dispatcher.message IS
    'What an application asked for. Inserted once; only variables are wiped, and persons erased.';
COMMENT ON COLUMN dispatcher.message.id IS 'The place in the order of insertion, and the partition.';
COMMENT ON COLUMN dispatcher.message.app IS 'Name of the configured account that sends it.';
COMMENT ON COLUMN dispatcher.message.sender IS 'Channel number; null: the default of the app.';
COMMENT ON COLUMN dispatcher.message.recipient IS
    'A mainland number, or any number with + and country. "0" once its person was erased.';
COMMENT ON COLUMN dispatcher.message.template_id IS 'Template at the provider.';
COMMENT ON COLUMN dispatcher.message.params IS
    'Variables of the template, in order. Empty once they were wiped.';
COMMENT ON COLUMN dispatcher.message.signature IS 'Signature of a universal template.';
COMMENT ON COLUMN dispatcher.message.priority IS
    '0 is sent first, 9 last; 0 and 1 are urgent: they notify workers.';
COMMENT ON COLUMN dispatcher.message.send_at IS 'It is not sent before this time.';
COMMENT ON COLUMN dispatcher.message.expires_at IS 'It is not sent after this time.';
COMMENT ON COLUMN dispatcher.message.idempotency_key IS
    'A second message of the app with the same key is refused; enqueue() returns the first one.';
COMMENT ON COLUMN dispatcher.message.reference IS
    'The application''s own reference; it is returned with each event.';
COMMENT ON COLUMN dispatcher.message.campaign IS 'Name of the campaign that it belongs to.';
COMMENT ON COLUMN dispatcher.message.queued_at IS 'When it was inserted.';
COMMENT ON COLUMN dispatcher.message.wiped_at IS
    'When the variables (of an erased person: number and reference too) were wiped. Such a message'
    ' cannot be sent again.';

-- For `expire`: few messages have a time, and most of these are inserted in its order.
CREATE INDEX message_expires_at ON dispatcher.message (expires_at, id) WHERE expires_at IS NOT NULL;

CREATE TABLE dispatcher.queue (
    id bigint NOT NULL PRIMARY KEY,
    app text NOT NULL,
    priority smallint NOT NULL,
    due_at timestamptz NOT NULL,
    attempt smallint NOT NULL DEFAULT 0,
    throttled smallint NOT NULL DEFAULT 0,
    requeued boolean NOT NULL DEFAULT false,
    last_batch bigint,
    code text,
    campaign text,
    waits_since timestamptz
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 1000000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE INDEX queue_due ON dispatcher.queue (app, priority, due_at);
CREATE INDEX queue_campaign ON dispatcher.queue (campaign) WHERE campaign IS NOT NULL;
CREATE INDEX queue_code ON dispatcher.queue (app, code) WHERE code IS NOT NULL;  -- what returned
-- For `expire`: what returned after its time.
CREATE INDEX queue_returned ON dispatcher.queue (id) WHERE last_batch IS NOT NULL AND NOT requeued;

COMMENT ON TABLE dispatcher.queue IS 'Messages that wait to be sent.';
COMMENT ON COLUMN dispatcher.queue.id IS 'The message.';
COMMENT ON COLUMN dispatcher.queue.app IS 'As in the message.';
COMMENT ON COLUMN dispatcher.queue.priority IS 'As in the message.';
COMMENT ON COLUMN dispatcher.queue.due_at IS 'From when on it may be claimed.';
COMMENT ON COLUMN dispatcher.queue.attempt IS
    'How often it was claimed so far, without the claims that say nothing about it (flow control, pauses).';
COMMENT ON COLUMN dispatcher.queue.throttled IS
    'How often flow control (E200015) returned it: it waits longer each time.';
COMMENT ON COLUMN dispatcher.queue.requeued IS
    'An operator asked for it again after its time: it no longer expires.';
COMMENT ON COLUMN dispatcher.queue.last_batch IS 'The batch that it returned from.';
COMMENT ON COLUMN dispatcher.queue.code IS 'Why it returned.';
COMMENT ON COLUMN dispatcher.queue.campaign IS
    'As in the message. While the campaign is paused or cancelled, no claim takes it.';
COMMENT ON COLUMN dispatcher.queue.waits_since IS
    'Since when it waits: when it returned, or was made due. Null: it is due at a time of the message;'
    ' -infinity: of a move to a later time.';

-- Campaigns -----------------------------------------------------------------------------------------

CREATE TABLE dispatcher.campaign (
    name text NOT NULL PRIMARY KEY,
    state text NOT NULL DEFAULT 'running',
    reason text,
    file text,
    stop_at double precision,
    first_id bigint NOT NULL,
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text,
    changed_at timestamptz,
    resumed_at timestamptz,
    move_to timestamptz,
    move_wait double precision NOT NULL DEFAULT 0,
    move_priority smallint,
    move_waits text[],
    moved_id bigint,
    moved bigint NOT NULL DEFAULT 0,
    counted jsonb,
    counted_at timestamptz,
    CONSTRAINT name_has_1_to_100_characters CHECK (length(name) BETWEEN 1 AND 100),
    CONSTRAINT stop_at_is_a_share CHECK (stop_at > 0 AND stop_at <= 1),
    CONSTRAINT campaign_state_is_known
        CHECK (state IN ('running', 'paused', 'moving', 'cancelled'))
);

-- The claim reads those that are stopped, each time.
CREATE INDEX campaign_stopped ON dispatcher.campaign (name) WHERE state <> 'running';

COMMENT ON TABLE dispatcher.campaign IS
    'Messages that belong together: an imported list, or what applications insert under one name.';
COMMENT ON COLUMN dispatcher.campaign.name IS 'As in its messages.';
COMMENT ON COLUMN dispatcher.campaign.state IS
    'running; paused: nothing is claimed; moving: nothing is claimed until what waits has its new time;'
    ' cancelled: nothing is claimed ever, what waits is cancelled.';
COMMENT ON COLUMN dispatcher.campaign.reason IS 'Why it was paused or cancelled.';
COMMENT ON COLUMN dispatcher.campaign.file IS 'Name of the imported file.';
COMMENT ON COLUMN dispatcher.campaign.stop_at IS
    'Share of rejected and undelivered messages at which it pauses by itself.';
COMMENT ON COLUMN dispatcher.campaign.first_id IS 'None of its messages has a lower id.';
COMMENT ON COLUMN dispatcher.campaign.created_by IS 'Who began it.';
COMMENT ON COLUMN dispatcher.campaign.created_at IS 'When it began.';
COMMENT ON COLUMN dispatcher.campaign.changed_by IS 'Who paused, resumed or cancelled it last.';
COMMENT ON COLUMN dispatcher.campaign.changed_at IS 'When that was.';
COMMENT ON COLUMN dispatcher.campaign.resumed_at IS
    'When a person resumed it last: for stop_at only results since then count.';
COMMENT ON COLUMN dispatcher.campaign.move_to IS
    'When the first of what waits is due after a move; null: as before.';
COMMENT ON COLUMN dispatcher.campaign.move_wait IS 'Seconds from one message to the next, then.';
COMMENT ON COLUMN dispatcher.campaign.move_priority IS 'The priority after a move; null: as before.';
COMMENT ON COLUMN dispatcher.campaign.move_waits IS
    'Transactions that may still return messages of it, for which the move waits; null: not looked at'
    ' yet.';
COMMENT ON COLUMN dispatcher.campaign.moved_id IS
    'Messages up to this id have moved; null: no move is under way.';
COMMENT ON COLUMN dispatcher.campaign.moved IS 'How many have moved.';
COMMENT ON COLUMN dispatcher.campaign.counted IS
    'How many of its messages were in each state, as the console counted them last.';
COMMENT ON COLUMN dispatcher.campaign.counted_at IS 'When it did.';

-- A row of the queue with its indexes costs nearly as much as the message; a bulk row costs a
-- five-hundredth of that. Its messages were never claimed, and have no outcome. A row is inserted and
-- deleted, never updated: a lock on one also fixes what it holds. See fill_queue() and
-- take_from_bulk().
CREATE TABLE dispatcher.bulk (
    first_id bigint NOT NULL PRIMARY KEY,
    ids int8multirange NOT NULL,
    size smallint NOT NULL,
    app text NOT NULL,
    priority smallint NOT NULL,
    due_at timestamptz NOT NULL,
    campaign text
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- With the id: all that one statement inserts is due at one time.
CREATE INDEX bulk_due ON dispatcher.bulk (app, priority, due_at, first_id);
CREATE INDEX bulk_campaign ON dispatcher.bulk (campaign, first_id) WHERE campaign IS NOT NULL;

COMMENT ON TABLE dispatcher.bulk IS
    'Messages that one statement inserted together, and that wait together beside the queue: those of'
    ' one app, priority, due time and campaign in a block of 500 ids.';
COMMENT ON COLUMN dispatcher.bulk.first_id IS 'The lowest of its ids.';
COMMENT ON COLUMN dispatcher.bulk.ids IS 'The messages.';
COMMENT ON COLUMN dispatcher.bulk.size IS 'How many messages.';
COMMENT ON COLUMN dispatcher.bulk.app IS 'As in the messages.';
COMMENT ON COLUMN dispatcher.bulk.priority IS 'As in the messages.';
COMMENT ON COLUMN dispatcher.bulk.due_at IS 'From when on they may be claimed.';
COMMENT ON COLUMN dispatcher.bulk.campaign IS
    'As in the messages. While the campaign is paused or cancelled, no claim takes them.';

CREATE TABLE dispatcher.idempotency (
    app text NOT NULL,
    key text NOT NULL,
    message_id bigint NOT NULL,
    CONSTRAINT idempotency_key_was_used_before PRIMARY KEY (app, key)
);

COMMENT ON TABLE dispatcher.idempotency IS
    'Idempotency keys that are in use: unique for each app across all partitions of message.';
COMMENT ON COLUMN dispatcher.idempotency.app IS 'The app that used the key.';
COMMENT ON COLUMN dispatcher.idempotency.key IS 'The key.';
COMMENT ON COLUMN dispatcher.idempotency.message_id IS 'The message that has it.';

-- Requests ------------------------------------------------------------------------------------------

CREATE SEQUENCE dispatcher.batch_id AS bigint;

CREATE TABLE dispatcher.batch (
    id bigint NOT NULL PRIMARY KEY DEFAULT nextval('dispatcher.batch_id'),
    token text NOT NULL UNIQUE,
    app text NOT NULL,
    worker bigint NOT NULL,
    message_ids bigint[] NOT NULL,
    attempts smallint[] NOT NULL,
    state text NOT NULL DEFAULT 'open',
    bytes integer NOT NULL,
    parent bigint,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    unsure_at timestamptz,
    unsure_ids bigint[],
    requeued_ids bigint[] NOT NULL DEFAULT '{}',
    closed_at timestamptz,
    tries smallint,
    http_status smallint,
    code text,
    description text,
    settled_by text,
    CONSTRAINT batch_state_is_known CHECK (state IN ('open', 'unsure', 'closed')),
    CONSTRAINT batch_has_an_attempt_per_message
        CHECK (cardinality(message_ids) = cardinality(attempts))
) WITH (fillfactor = 70);

-- Five hundred ids are four kilobytes, and compressing them took 0.4 ms a request: a tenth of all
-- that PostgreSQL does for its messages. They take 8 bytes a message so, 3 when compressed; out of
-- line, so that closing the batch does not copy them.
ALTER TABLE dispatcher.batch ALTER COLUMN message_ids SET STORAGE EXTERNAL;

CREATE INDEX batch_open ON dispatcher.batch (worker) WHERE state = 'open';
CREATE INDEX batch_unsure ON dispatcher.batch (app, unsure_at) WHERE state = 'unsure';
CREATE INDEX batch_opened_at ON dispatcher.batch (opened_at);

COMMENT ON TABLE dispatcher.batch IS 'One request to the provider, written before it is sent.';
COMMENT ON COLUMN dispatcher.batch.id IS 'The order in which requests were opened.';
COMMENT ON COLUMN dispatcher.batch.token IS
    'Random text that the request carries and its reports return.';
COMMENT ON COLUMN dispatcher.batch.app IS 'The app of all its messages.';
COMMENT ON COLUMN dispatcher.batch.worker IS 'The worker that opened it.';
COMMENT ON COLUMN dispatcher.batch.message_ids IS 'Its messages, in the order they were sent.';
COMMENT ON COLUMN dispatcher.batch.attempts IS 'Which attempt this is for each message.';
COMMENT ON COLUMN dispatcher.batch.state IS
    'open: may be on its way. unsure: may have been sent. closed: every message is answered,'
    ' returned or settled.';
COMMENT ON COLUMN dispatcher.batch.bytes IS 'Size of the request''s body.';
COMMENT ON COLUMN dispatcher.batch.parent IS
    'The batch that it is a part of, if that was refused as a whole.';
COMMENT ON COLUMN dispatcher.batch.opened_at IS 'When it was claimed.';
COMMENT ON COLUMN dispatcher.batch.unsure_at IS 'When it became unsure; kept when it is closed.';
COMMENT ON COLUMN dispatcher.batch.unsure_ids IS
    'Of a batch that is or was unsure: the messages that its answer left open, without those that were'
    ' requeued because a report had shown that the platform refused them; null: all of them.';
COMMENT ON COLUMN dispatcher.batch.requeued_ids IS
    'Of its messages, those that an operator asked for again after their time: they never expire.';
COMMENT ON COLUMN dispatcher.batch.closed_at IS 'When it was closed.';
COMMENT ON COLUMN dispatcher.batch.tries IS 'How often the request was tried.';
COMMENT ON COLUMN dispatcher.batch.http_status IS 'Status of the last answer.';
COMMENT ON COLUMN dispatcher.batch.code IS 'Code of the answer, or of why there is none.';
COMMENT ON COLUMN dispatcher.batch.description IS 'The answer''s description, or why there is none.';
COMMENT ON COLUMN dispatcher.batch.settled_by IS
    'What closed it, where that was no answer of its own.';

-- The primary key enforces that a message has at most one. Its columns are in an order that leaves no
-- gaps, and an accepted message has no code: a tenth of all that is written to disk for a message.
CREATE TABLE dispatcher.outcome (
    message_id bigint NOT NULL,
    batch_id bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    attempts smallint NOT NULL,
    segments smallint,
    state text NOT NULL,
    provider_id text,
    code text,
    reason text,
    PRIMARY KEY (message_id),
    CONSTRAINT outcome_state_is_known
        CHECK (state IN ('accepted', 'rejected', 'expired', 'cancelled'))
) PARTITION BY RANGE (message_id);

COMMENT ON TABLE dispatcher.outcome IS 'How a message ended: at most one row each.';
COMMENT ON COLUMN dispatcher.outcome.message_id IS 'The message.';
COMMENT ON COLUMN dispatcher.outcome.state IS
    'accepted by the provider, rejected, expired or cancelled.';
COMMENT ON COLUMN dispatcher.outcome.attempts IS 'How often it was claimed.';
COMMENT ON COLUMN dispatcher.outcome.segments IS 'Segments that the provider counted.';
COMMENT ON COLUMN dispatcher.outcome.batch_id IS 'The last batch it was in, if any.';
COMMENT ON COLUMN dispatcher.outcome.created_at IS 'When this was decided.';
COMMENT ON COLUMN dispatcher.outcome.provider_id IS
    'The provider''s id of the message, which its reports name.';
COMMENT ON COLUMN dispatcher.outcome.code IS
    'The provider''s code, or one of ours; see codes.md. Null: 000000, as of nearly every message.';
COMMENT ON COLUMN dispatcher.outcome.reason IS 'The same in words.';

-- The default partitions take rows for which no partition was made in time.
CREATE TABLE dispatcher.message_rest PARTITION OF dispatcher.message DEFAULT;
CREATE TABLE dispatcher.outcome_rest PARTITION OF dispatcher.outcome DEFAULT;
COMMENT ON TABLE dispatcher.message_rest IS
    'Messages for which no partition was made in time; usually empty.';
COMMENT ON TABLE dispatcher.outcome_rest IS
    'Outcomes for which no partition was made in time; usually empty.';

-- Which database this is. A standby and a restored copy have the same id; another database has
-- another, and what was kept on disk for one must not be written into it.
CREATE TABLE dispatcher.installation (
    single boolean PRIMARY KEY DEFAULT true,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    restored_at timestamptz,
    CONSTRAINT installation_is_one_row CHECK (single)
);

INSERT INTO dispatcher.installation DEFAULT VALUES;

COMMENT ON TABLE dispatcher.installation IS
    'The identity of this database, and what is known of its restore: one row.';
COMMENT ON COLUMN dispatcher.installation.single IS 'Keeps it to one row.';
COMMENT ON COLUMN dispatcher.installation.id IS 'Named in each file of answers that is kept on disk.';
COMMENT ON COLUMN dispatcher.installation.restored_at IS
    'From when on a restored database may lack what workers wrote. The policy resend leaves requests'
    ' of before alone: their answers and reports may be missing. Null: it was never restored.';

-- Apps and workers ----------------------------------------------------------------------------------

CREATE TABLE dispatcher.app (
    name text NOT NULL PRIMARY KEY,
    paused_at timestamptz,
    pause_code text,
    pause_reason text,
    paused_by text,
    probe_at timestamptz,
    probe_wait interval,
    probe_max interval,
    numbers_per_second double precision,
    rate double precision,
    next_at timestamptz NOT NULL DEFAULT now(),
    slowed_at timestamptz,
    window_at timestamptz,
    window_numbers integer NOT NULL DEFAULT 0,
    window_refused integer NOT NULL DEFAULT 0,
    base_share double precision NOT NULL DEFAULT 0,
    cut_share double precision,
    cut_factor double precision NOT NULL DEFAULT 1,
    on_unsure text NOT NULL DEFAULT 'hold',
    resend_after interval,
    max_attempts smallint,
    seen_at timestamptz NOT NULL DEFAULT now(),
    unknown_streak integer NOT NULL DEFAULT 0,
    refused_texts bigint[] NOT NULL DEFAULT '{}',
    slow_start integer,
    slow_start_left integer NOT NULL DEFAULT 0,
    slow_start_answered integer NOT NULL DEFAULT 0,
    slow_start_at timestamptz,
    resumed_at timestamptz,
    pause_ended_at timestamptz,
    report_refusals integer NOT NULL DEFAULT 0,
    report_refused_at timestamptz,
    sender text,
    promotional boolean NOT NULL DEFAULT false,
    billing text,
    braked_at timestamptz,
    CONSTRAINT on_unsure_is_hold_or_resend CHECK (on_unsure IN ('hold', 'resend')),
    CONSTRAINT billing_is_delivered_or_sent CHECK (billing IN ('delivered', 'sent'))
) WITH (fillfactor = 20);

COMMENT ON TABLE dispatcher.app IS 'Run-time state of a configured app, shared by all workers.';
COMMENT ON COLUMN dispatcher.app.name IS 'As in DISPATCHER_APPS__<NAME>.';
COMMENT ON COLUMN dispatcher.app.paused_at IS 'Since when nothing is claimed; null: not paused.';
COMMENT ON COLUMN dispatcher.app.pause_code IS 'Code of the answer that paused it.';
COMMENT ON COLUMN dispatcher.app.pause_reason IS 'Why it is paused, in words.';
COMMENT ON COLUMN dispatcher.app.paused_by IS
    'worker: a probe may end the pause. operator, report: only resume() ends it.';
COMMENT ON COLUMN dispatcher.app.probe_at IS 'When one message is sent to see whether it works.';
COMMENT ON COLUMN dispatcher.app.probe_wait IS 'Wait from the last probe to the next; it doubles.';
COMMENT ON COLUMN dispatcher.app.probe_max IS 'The longest such wait.';
COMMENT ON COLUMN dispatcher.app.numbers_per_second IS 'Rate limit as configured; null: none.';
COMMENT ON COLUMN dispatcher.app.rate IS
    'Numbers per second now: less than configured after the provider refused that; null: no limit.';
COMMENT ON COLUMN dispatcher.app.next_at IS 'When the numbers that are claimed next may be sent.';
COMMENT ON COLUMN dispatcher.app.slowed_at IS 'When the rate was last reduced.';
COMMENT ON COLUMN dispatcher.app.window_at IS
    'Since when the share of numbers is measured that flow control refuses; null: it refused none.';
COMMENT ON COLUMN dispatcher.app.window_numbers IS 'Numbers answered since then.';
COMMENT ON COLUMN dispatcher.app.window_refused IS 'Those that flow control refused.';
COMMENT ON COLUMN dispatcher.app.base_share IS
    'Share of numbers that flow control refuses at any rate: it lowers nothing.';
COMMENT ON COLUMN dispatcher.app.cut_share IS
    'Refused share for which the last window lowered the rate; null: it did not.';
COMMENT ON COLUMN dispatcher.app.cut_factor IS 'Factor by which it did.';
COMMENT ON COLUMN dispatcher.app.on_unsure IS
    'hold: unsure batches wait for a report or an operator. resend: they are sent again.';
COMMENT ON COLUMN dispatcher.app.resend_after IS 'For resend: after this time without any report.';
COMMENT ON COLUMN dispatcher.app.max_attempts IS
    'For resend: not after so many attempts; null: without end.';
COMMENT ON COLUMN dispatcher.app.seen_at IS 'When a worker last started with it.';
COMMENT ON COLUMN dispatcher.app.unknown_streak IS 'Requests in a row with an unknown result.';
COMMENT ON COLUMN dispatcher.app.refused_texts IS
    'Digests of different texts, or messages, that were refused in a row, while none was accepted.';
COMMENT ON COLUMN dispatcher.app.slow_start IS
    'Requests of this round after a pause, which doubles; null: no slow start.';
COMMENT ON COLUMN dispatcher.app.slow_start_left IS 'Requests of the round still to be claimed.';
COMMENT ON COLUMN dispatcher.app.slow_start_answered IS 'Requests of the round that were answered.';
COMMENT ON COLUMN dispatcher.app.slow_start_at IS 'When one of the round was last claimed.';
COMMENT ON COLUMN dispatcher.app.resumed_at IS 'When resume() last ended a pause.';
COMMENT ON COLUMN dispatcher.app.pause_ended_at IS
    'When the last pause ended, by whom it may: an answer to a request from before pauses nothing.';
COMMENT ON COLUMN dispatcher.app.report_refusals IS
    'Reports in a row, at most ten minutes apart, by which the platform refused the app itself.';
COMMENT ON COLUMN dispatcher.app.report_refused_at IS 'When the last of them was matched.';
COMMENT ON COLUMN dispatcher.app.sender IS 'Channel number as configured: replies to it are its own.';
COMMENT ON COLUMN dispatcher.app.promotional IS
    'Whether its messages are promotional, as configured; a template may say otherwise.';
COMMENT ON COLUMN dispatcher.app.billing IS
    'What its account pays for: segments that are delivered, or all that are sent; null: the first in'
    ' mainland China, the second elsewhere.';
COMMENT ON COLUMN dispatcher.app.braked_at IS
    'When an hour far over the usual paused it; then not again for a day.';

CREATE TABLE dispatcher.country_pause (
    app text NOT NULL,
    country text NOT NULL,
    until timestamptz NOT NULL,
    code text NOT NULL,
    PRIMARY KEY (app, country)
);

COMMENT ON TABLE dispatcher.country_pause IS
    'Countries whose quota is used up: their messages of this app wait, the others are sent.';
COMMENT ON COLUMN dispatcher.country_pause.app IS 'The app.';
COMMENT ON COLUMN dispatcher.country_pause.country IS
    'Country of the numbers, as core.country names it.';
COMMENT ON COLUMN dispatcher.country_pause.until IS 'End of the pause.';
COMMENT ON COLUMN dispatcher.country_pause.code IS 'Code of the answer that caused it.';

CREATE TABLE dispatcher.worker (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    apps text[] NOT NULL,
    lease interval NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    stopped_at timestamptz,
    unreachable_apps text[] NOT NULL DEFAULT '{}',
    failing_parts text[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

COMMENT ON TABLE dispatcher.worker IS 'Worker processes; a new row at every start.';
COMMENT ON COLUMN dispatcher.worker.id IS 'The worker.';
COMMENT ON COLUMN dispatcher.worker.host IS 'Its host.';
COMMENT ON COLUMN dispatcher.worker.pid IS 'Its process id there.';
COMMENT ON COLUMN dispatcher.worker.version IS 'Its release.';
COMMENT ON COLUMN dispatcher.worker.apps IS 'The apps that it sends for.';
COMMENT ON COLUMN dispatcher.worker.lease IS
    'After this time without a heartbeat, others take its batches for unsure.';
COMMENT ON COLUMN dispatcher.worker.started_at IS 'When it started.';
COMMENT ON COLUMN dispatcher.worker.heartbeat_at IS 'Its last heartbeat.';
COMMENT ON COLUMN dispatcher.worker.stopped_at IS 'When it stopped in good order.';
COMMENT ON COLUMN dispatcher.worker.unreachable_apps IS
    'Apps whose provider its host cannot reach, or for which its clock is wrong, while other hosts'
    ' send; it claims nothing for them.';
COMMENT ON COLUMN dispatcher.worker.failing_parts IS
    'Parts of it that fail now, such as maintenance, and why: a line for each.';

-- Reports -------------------------------------------------------------------------------------------

CREATE TABLE dispatcher.report (
    provider_id text NOT NULL,
    segment smallint NOT NULL DEFAULT 1,
    total smallint NOT NULL DEFAULT 1,
    status text NOT NULL,
    state text NOT NULL,
    token text,
    recipient text,
    received_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz,
    source smallint,
    description text,
    org_code text,
    raw jsonb,
    earlier jsonb,
    PRIMARY KEY (provider_id, segment),
    CONSTRAINT report_state_is_known CHECK (state IN ('interim', 'delivered', 'undelivered'))
);

CREATE INDEX report_token ON dispatcher.report (token);

COMMENT ON TABLE dispatcher.report IS 'Status reports: the last of each segment of each message.';
COMMENT ON COLUMN dispatcher.report.provider_id IS 'The provider''s id of the message.';
COMMENT ON COLUMN dispatcher.report.segment IS 'Which segment it is of, from 1 on.';
COMMENT ON COLUMN dispatcher.report.total IS 'How many segments the message has.';
COMMENT ON COLUMN dispatcher.report.status IS 'The carrier''s status, such as DELIVRD.';
COMMENT ON COLUMN dispatcher.report.state IS
    'What that means. An interim state becomes final; a final one changes only where its status said'
    ' nothing of the result.';
COMMENT ON COLUMN dispatcher.report.token IS 'Token of the batch, as the report returns it.';
COMMENT ON COLUMN dispatcher.report.recipient IS 'The number, as the report spells it.';
COMMENT ON COLUMN dispatcher.report.received_at IS 'When it reached the receiver.';
COMMENT ON COLUMN dispatcher.report.updated_at IS 'The carrier''s time.';
COMMENT ON COLUMN dispatcher.report.source IS 'Who made the report, as the provider numbers it.';
COMMENT ON COLUMN dispatcher.report.description IS 'The provider''s words.';
COMMENT ON COLUMN dispatcher.report.org_code IS 'The carrier''s own code.';
COMMENT ON COLUMN dispatcher.report.raw IS 'Fields of the report that have no column.';
COMMENT ON COLUMN dispatcher.report.earlier IS 'The report whose place this one took.';

CREATE TABLE dispatcher.carrier_status (
    status text NOT NULL PRIMARY KEY,
    state text NOT NULL,
    meaning text NOT NULL,
    resendable boolean NOT NULL DEFAULT false,
    charged boolean NOT NULL DEFAULT true
);

COMMENT ON TABLE dispatcher.carrier_status IS
    'What the statuses of reports mean; written from core.report_status at every start.';
COMMENT ON COLUMN dispatcher.carrier_status.status IS 'A carrier''s status.';
COMMENT ON COLUMN dispatcher.carrier_status.state IS 'interim, delivered or undelivered.';
COMMENT ON COLUMN dispatcher.carrier_status.meaning IS 'The same in words.';
COMMENT ON COLUMN dispatcher.carrier_status.resendable IS
    'Whether the platform refused it before anything was sent, so that requeue() may send it again.';

COMMENT ON COLUMN dispatcher.carrier_status.charged IS
    'Whether it is charged where the account pays for what is sent: codes of the platform are not.';

-- One row for each commit of a receiver, however many reports it has: so taking reports in writes
-- one row. Arrays of equal length, one place a report.
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
    fresh boolean[] NOT NULL,
    size integer GENERATED ALWAYS AS (cardinality(provider_ids)) STORED
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE dispatcher.report_inbox IS
    'Reports that are stored and not yet matched with their messages; a row a commit.';
COMMENT ON COLUMN dispatcher.report_inbox.id IS 'The order in which they came.';
COMMENT ON COLUMN dispatcher.report_inbox.received_at IS 'When they were stored.';
COMMENT ON COLUMN dispatcher.report_inbox.provider_ids IS 'As in report, an element a report.';
COMMENT ON COLUMN dispatcher.report_inbox.segments IS 'As in report, an element a report.';
COMMENT ON COLUMN dispatcher.report_inbox.totals IS 'As in report, an element a report.';
COMMENT ON COLUMN dispatcher.report_inbox.states IS 'As in report, an element a report.';
COMMENT ON COLUMN dispatcher.report_inbox.statuses IS 'As in report, an element a report.';
COMMENT ON COLUMN dispatcher.report_inbox.tokens IS 'As in report, empty for null.';
COMMENT ON COLUMN dispatcher.report_inbox.recipients IS 'As in report, empty for null.';
COMMENT ON COLUMN dispatcher.report_inbox.fresh IS
    'Whether it is the first report of its segment; else it is a final one after an interim one.';
COMMENT ON COLUMN dispatcher.report_inbox.size IS 'How many reports.';

CREATE TABLE dispatcher.unmatched_report (
    provider_id text NOT NULL,
    segment smallint NOT NULL,
    reason text NOT NULL,
    fresh boolean NOT NULL DEFAULT true,
    attempts smallint NOT NULL DEFAULT 1,
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz,
    PRIMARY KEY (provider_id, segment)
);

CREATE INDEX unmatched_report_due ON dispatcher.unmatched_report (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX unmatched_report_first_seen_at ON dispatcher.unmatched_report (first_seen_at);

CREATE TABLE dispatcher.unreadable_push (
    digest bytea NOT NULL PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    times bigint NOT NULL DEFAULT 1,
    reason text NOT NULL,
    content_type text NOT NULL,
    body bytea NOT NULL,
    read_at timestamptz,
    path text NOT NULL DEFAULT 'reports',
    tokens text[] NOT NULL DEFAULT '{}'
);

CREATE INDEX unreadable_push_received_at ON dispatcher.unreadable_push (received_at, digest)
    WHERE read_at IS NULL;
-- Without a list of pending entries, which each search would read to its end.
CREATE INDEX unreadable_push_tokens ON dispatcher.unreadable_push USING gin (tokens)
    WITH (fastupdate = off);

COMMENT ON TABLE dispatcher.unreadable_push IS
    'Pushes to the secret address that are no reports, or not only: stored as they came, for people'
    ' and for a later release (dispatcher reports --replay).';
COMMENT ON COLUMN dispatcher.unreadable_push.digest IS 'SHA-256 of the body, and of the path where that is not reports: a repeated push is one row.';
COMMENT ON COLUMN dispatcher.unreadable_push.received_at IS 'When it came first.';
COMMENT ON COLUMN dispatcher.unreadable_push.last_at IS 'When it came last.';
COMMENT ON COLUMN dispatcher.unreadable_push.times IS 'How often it came.';
COMMENT ON COLUMN dispatcher.unreadable_push.reason IS 'Why it cannot be read.';
COMMENT ON COLUMN dispatcher.unreadable_push.content_type IS 'Its Content-Type header.';
COMMENT ON COLUMN dispatcher.unreadable_push.body IS 'Its body.';
COMMENT ON COLUMN dispatcher.unreadable_push.read_at IS 'When a later release read it; null: not yet.';
COMMENT ON COLUMN dispatcher.unreadable_push.path IS
    'Where it came, without the token: reports, replies, or replies/ and an app.';
COMMENT ON COLUMN dispatcher.unreadable_push.tokens IS
    'What in it may be the token of a batch: the policy resend leaves that batch alone.';

COMMENT ON TABLE dispatcher.unmatched_report IS 'Reports that belong to no message, yet or ever.';
COMMENT ON COLUMN dispatcher.unmatched_report.provider_id IS 'As in report.';
COMMENT ON COLUMN dispatcher.unmatched_report.segment IS 'As in report.';
COMMENT ON COLUMN dispatcher.unmatched_report.reason IS 'Why it matches no message.';
COMMENT ON COLUMN dispatcher.unmatched_report.fresh IS 'As in report_inbox.';
COMMENT ON COLUMN dispatcher.unmatched_report.attempts IS 'How often it was matched so far.';
COMMENT ON COLUMN dispatcher.unmatched_report.first_seen_at IS 'When it was first found unmatched.';
COMMENT ON COLUMN dispatcher.unmatched_report.due_at IS 'When it is matched again; null: never.';

CREATE TABLE dispatcher.report_summary (
    provider_id text NOT NULL PRIMARY KEY,
    state text NOT NULL,
    status text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT report_summary_state_is_known
        CHECK (state IN ('interim', 'delivered', 'undelivered'))
);

COMMENT ON TABLE dispatcher.report_summary IS
    'State by all reports of a message that has several (a segment each, or interim and final), as'
    ' far as events were written: so it is delivered once. Most have one report, and no row here.';
COMMENT ON COLUMN dispatcher.report_summary.provider_id IS 'As in report.';
COMMENT ON COLUMN dispatcher.report_summary.state IS
    'delivered when every segment is, undelivered when one is not, else interim.';
COMMENT ON COLUMN dispatcher.report_summary.status IS 'The status that decided.';
COMMENT ON COLUMN dispatcher.report_summary.updated_at IS 'When that changed.';

-- Replies -------------------------------------------------------------------------------------------

CREATE TABLE dispatcher.reply (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,
    provider_id text,
    app text NOT NULL DEFAULT '',
    number text NOT NULL,
    channel text,
    text text NOT NULL,
    unsubscribed boolean NOT NULL DEFAULT false,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    replied_at timestamptz,
    raw jsonb
);

CREATE INDEX reply_number ON dispatcher.reply (number);
CREATE INDEX reply_received_at ON dispatcher.reply (received_at);

COMMENT ON TABLE dispatcher.reply IS 'Replies (uplink): what persons answered to messages.';
COMMENT ON COLUMN dispatcher.reply.id IS 'The order in which they were stored; events() names it.';
COMMENT ON COLUMN dispatcher.reply.digest IS
    'SHA-256 of id, number, channel and text: a repeated reply is one row.';
COMMENT ON COLUMN dispatcher.reply.provider_id IS
    'The provider''s id of the reply; it is the id of no message.';
COMMENT ON COLUMN dispatcher.reply.app IS
    'The app that was answered: by its address, else by the channel; empty: unknown.';
COMMENT ON COLUMN dispatcher.reply.number IS 'The person''s number, as e164() returns it.';
COMMENT ON COLUMN dispatcher.reply.channel IS 'The number that was answered, as it came.';
COMMENT ON COLUMN dispatcher.reply.text IS 'What was written.';
COMMENT ON COLUMN dispatcher.reply.unsubscribed IS
    'Whether it stopped promotional messages of its app; where that is unknown, of every app if the reply'
    ' was verified, and else of none.';
COMMENT ON COLUMN dispatcher.reply.received_at IS 'When it reached the receiver.';
COMMENT ON COLUMN dispatcher.reply.replied_at IS 'When it was written, as the provider says.';
COMMENT ON COLUMN dispatcher.reply.raw IS 'Its fields as they came.';

-- Events --------------------------------------------------------------------------------------------

-- The transaction that decides something appends a row, one for all messages it is true of. A row
-- gets its position only after its commit, from one process at a time: so a long transaction is
-- late, but never behind the position that a reader has reached.
CREATE TABLE dispatcher.event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    last_position bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    app text NOT NULL,
    event text NOT NULL,
    code text NOT NULL DEFAULT '',
    message_ids bigint[],
    batch_id bigint,
    message_count integer NOT NULL,
    reply_ids bigint[],
    CONSTRAINT event_names_messages_a_batch_or_replies
        CHECK (num_nonnulls(message_ids, batch_id, reply_ids) = 1),
    CONSTRAINT event_is_known CHECK (event IN (
        'accepted', 'rejected', 'expired', 'cancelled', 'unsure', 'requeued',
        'delivered', 'undelivered', 'replied'))
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 5000
);
-- Compressing it takes longer than all the rest.
ALTER TABLE dispatcher.event ALTER COLUMN message_ids SET STORAGE EXTERNAL;

CREATE UNIQUE INDEX event_last_position ON dispatcher.event (last_position)
    WHERE last_position IS NOT NULL;
CREATE INDEX event_without_position ON dispatcher.event (id) WHERE last_position IS NULL;

COMMENT ON TABLE dispatcher.event IS
    'What happened to messages, in the order in which it became visible; read by events().';
COMMENT ON COLUMN dispatcher.event.id IS 'The order in which rows were appended.';
COMMENT ON COLUMN dispatcher.event.last_position IS
    'Position of its last message in the log; null until it is given one.';
COMMENT ON COLUMN dispatcher.event.created_at IS 'When it happened.';
COMMENT ON COLUMN dispatcher.event.app IS 'The app of the messages.';
COMMENT ON COLUMN dispatcher.event.event IS 'What happened.';
COMMENT ON COLUMN dispatcher.event.code IS 'Why, as in outcome.code.';
COMMENT ON COLUMN dispatcher.event.message_ids IS 'The messages it happened to.';
COMMENT ON COLUMN dispatcher.event.batch_id IS 'Or the batch whose messages they all are.';
COMMENT ON COLUMN dispatcher.event.message_count IS 'How many messages or replies.';
COMMENT ON COLUMN dispatcher.event.reply_ids IS 'Or the replies that came.';

CREATE TABLE dispatcher.event_position (
    single boolean PRIMARY KEY DEFAULT true,
    last_position bigint NOT NULL,
    CONSTRAINT event_position_is_one_row CHECK (single)
) WITH (fillfactor = 10);

INSERT INTO dispatcher.event_position (last_position) VALUES (0);

COMMENT ON TABLE dispatcher.event_position IS 'The last position that an event was given: one row.';
COMMENT ON COLUMN dispatcher.event_position.single IS 'Keeps it to one row.';
COMMENT ON COLUMN dispatcher.event_position.last_position IS 'That position.';

-- The worker is part of the key, so that workers never wait for each other.
CREATE TABLE dispatcher.event_count (
    minute timestamptz NOT NULL,
    app text NOT NULL,
    event text NOT NULL,
    code text NOT NULL DEFAULT '',
    worker bigint NOT NULL DEFAULT 0,
    count bigint NOT NULL,
    PRIMARY KEY (minute, app, event, code, worker)
) WITH (fillfactor = 50);

COMMENT ON TABLE dispatcher.event_count IS 'Counters of what happened, by minute.';
COMMENT ON COLUMN dispatcher.event_count.minute IS 'Beginning of the minute.';
COMMENT ON COLUMN dispatcher.event_count.app IS 'The app.';
COMMENT ON COLUMN dispatcher.event_count.event IS
    'What happened; more kinds than in event, such as deferred, returned, settled and reported.';
COMMENT ON COLUMN dispatcher.event_count.code IS 'Why.';
COMMENT ON COLUMN dispatcher.event_count.worker IS 'The worker that counted; 0: none.';
COMMENT ON COLUMN dispatcher.event_count.count IS 'How many messages.';

CREATE TABLE dispatcher.hour_count (
    hour timestamptz NOT NULL,
    app text NOT NULL,
    event text NOT NULL,
    code text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (hour, app, event, code)
);

COMMENT ON TABLE dispatcher.hour_count IS
    'Counters of what happened, by hour: those of event_count that are some days old. For 13 months.';
COMMENT ON COLUMN dispatcher.hour_count.hour IS 'Beginning of the hour.';
COMMENT ON COLUMN dispatcher.hour_count.app IS 'The app.';
COMMENT ON COLUMN dispatcher.hour_count.event IS 'What happened.';
COMMENT ON COLUMN dispatcher.hour_count.code IS 'Why.';
COMMENT ON COLUMN dispatcher.hour_count.count IS 'How many messages.';

-- What operators set --------------------------------------------------------------------------------

CREATE TABLE dispatcher.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL DEFAULT '',
    detail text NOT NULL DEFAULT '',
    result text NOT NULL DEFAULT ''
);

COMMENT ON TABLE dispatcher.audit IS
    'Who did what, and when: by the console, the command line or SQL. Never updated.';
COMMENT ON COLUMN dispatcher.audit.id IS 'The order in which it was done.';
COMMENT ON COLUMN dispatcher.audit.created_at IS 'When it was done.';
COMMENT ON COLUMN dispatcher.audit.actor IS 'Who did it; in SQL the session''s user by default.';
COMMENT ON COLUMN dispatcher.audit.action IS 'What was done, such as pause.';
COMMENT ON COLUMN dispatcher.audit.target IS 'To what, such as an app; never a number.';
COMMENT ON COLUMN dispatcher.audit.detail IS 'The reason that was given, ids, or new values.';
COMMENT ON COLUMN dispatcher.audit.result IS 'The result, in words.';

CREATE TABLE dispatcher.template (
    template_id text NOT NULL PRIMARY KEY,
    kinds text[] NOT NULL,
    note text NOT NULL DEFAULT '',
    added_at timestamptz NOT NULL DEFAULT now(),
    text text,
    promotional boolean,
    CONSTRAINT template_id_has_1_to_32_characters CHECK (length(template_id) BETWEEN 1 AND 32),
    -- As core.templates.read_template_id: lists are read without such characters, and would miss it.
    CONSTRAINT template_id_has_plain_characters_and_no_blanks CHECK (
        template_id IS NFKC NORMALIZED AND template_id !~ ('[\s\u0001-\u001f\u007f-\u00a0\u00ad\u1680'
            || '\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\ufffb]')),
    CONSTRAINT template_has_at_most_20_variables CHECK (cardinality(kinds) <= 20),
    -- As core.templates.check_kinds. A claim that cannot read a kind could send nothing.
    CONSTRAINT kinds_are_a_flat_list_of_the_kinds_of_variables CHECK (
        coalesce(array_ndims(kinds), 1) = 1
        AND cardinality(string_to_array(array_to_string(kinds, ',', ''), ',')) = cardinality(kinds)
        AND array_to_string(kinds, ',', '') || ',' ~ ('^(((NUM|TXT)_([1-9]|1[0-9]|20)|DATE|TIME|PHONE'
            || '|CHARDIGIT|DATETIME|MONEY|TEXT),)*$|^,$'))
);

COMMENT ON TABLE dispatcher.template IS
    'Templates whose variables are checked before a message is sent. Optional.';
COMMENT ON COLUMN dispatcher.template.template_id IS 'The provider''s id of the template.';
COMMENT ON COLUMN dispatcher.template.kinds IS
    'Kind of each variable, as the provider names them: NUM_6, TXT_20, DATE ...';
COMMENT ON COLUMN dispatcher.template.note IS 'What it is for.';
COMMENT ON COLUMN dispatcher.template.added_at IS 'When it was first defined.';
COMMENT ON COLUMN dispatcher.template.text IS 'Its text, to count segments; null: unknown.';
COMMENT ON COLUMN dispatcher.template.promotional IS
    'Whether its messages are promotional; null: as the app says.';

CREATE TABLE dispatcher.suppression (
    recipient text NOT NULL,
    app text NOT NULL DEFAULT '',
    promotional boolean NOT NULL DEFAULT false,
    reason text NOT NULL DEFAULT '',
    source text NOT NULL DEFAULT 'operator',
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (recipient, app, promotional),
    CONSTRAINT suppressed_number_is_plus_and_digits CHECK (recipient ~ '^[+][0-9]{5,20}$')
);

-- The console shows the newest.
CREATE INDEX suppression_added_at ON dispatcher.suppression (added_at DESC, recipient);

COMMENT ON TABLE dispatcher.suppression IS
    'Numbers that are never sent to, each for all messages or for a part of them.';
COMMENT ON COLUMN dispatcher.suppression.recipient IS 'The number, as e164() returns it.';
COMMENT ON COLUMN dispatcher.suppression.app IS 'Only messages of this app; empty: of every app.';
COMMENT ON COLUMN dispatcher.suppression.promotional IS
    'Only promotional messages; false: codes and notices too.';
COMMENT ON COLUMN dispatcher.suppression.reason IS 'Why, in words.';
COMMENT ON COLUMN dispatcher.suppression.source IS
    'operator; report: it was reported as on a block list; reply: its owner unsubscribed.';
COMMENT ON COLUMN dispatcher.suppression.added_at IS 'Since when.';

CREATE TABLE dispatcher.app_limit (
    app text NOT NULL PRIMARY KEY,
    per_minute integer,
    per_day integer,
    same_per_minute integer,
    same_per_hour integer,
    daily_limit bigint,
    quiet_from time,
    quiet_until time,
    CONSTRAINT limits_are_positive CHECK (
        least(per_minute, per_day, same_per_minute, same_per_hour, daily_limit) > 0),
    CONSTRAINT quiet_hours_have_both_ends CHECK ((quiet_from IS NULL) = (quiet_until IS NULL)),
    -- Which workers cannot read.
    CONSTRAINT quiet_hours_are_before_24_00_write_00_00 CHECK (
        quiet_from < '24:00' AND quiet_until < '24:00')
);

COMMENT ON TABLE dispatcher.app_limit IS 'Limits that operators set for an app; null: no limit.';
COMMENT ON COLUMN dispatcher.app_limit.app IS 'The app.';
COMMENT ON COLUMN dispatcher.app_limit.per_minute IS 'Messages to one number.';
COMMENT ON COLUMN dispatcher.app_limit.per_day IS 'Messages to one number.';
COMMENT ON COLUMN dispatcher.app_limit.same_per_minute IS 'Messages of one text to one number.';
COMMENT ON COLUMN dispatcher.app_limit.same_per_hour IS 'Messages of one text to one number.';
COMMENT ON COLUMN dispatcher.app_limit.daily_limit IS
    'Messages of the app a day (UTC+8); it is paused for the rest of the day then.';
COMMENT ON COLUMN dispatcher.app_limit.quiet_from IS
    'Beginning of the hours, at the recipient, in which nothing is sent that is not urgent.';
COMMENT ON COLUMN dispatcher.app_limit.quiet_until IS 'Their end.';

CREATE TABLE dispatcher.recipient_usage (
    message_id bigint NOT NULL PRIMARY KEY,
    app text NOT NULL,
    recipient text NOT NULL,
    text bigint NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX recipient_usage_number ON dispatcher.recipient_usage (recipient, app, sent_at);
CREATE INDEX recipient_usage_sent_at ON dispatcher.recipient_usage (sent_at);

COMMENT ON TABLE dispatcher.recipient_usage IS
    'What numbers were sent in the last day, for apps with limits by number.';
COMMENT ON COLUMN dispatcher.recipient_usage.message_id IS
    'The message; the key counts one that is claimed twice once.';
COMMENT ON COLUMN dispatcher.recipient_usage.app IS 'Its app.';
COMMENT ON COLUMN dispatcher.recipient_usage.recipient IS 'The number, as e164() returns it.';
COMMENT ON COLUMN dispatcher.recipient_usage.text IS 'Digest of template and variables.';
COMMENT ON COLUMN dispatcher.recipient_usage.sent_at IS 'When it was last claimed.';

CREATE TABLE dispatcher.price (
    country text NOT NULL PRIMARY KEY,
    price numeric NOT NULL,
    currency text NOT NULL DEFAULT '',
    CONSTRAINT price_is_from_0_to_1000000 CHECK (price >= 0 AND price < 1000000),
    CONSTRAINT country_is_two_capital_letters_or_a_calling_code
        CHECK (country ~ '^([A-Z]{2}|[+][1-9][0-9]{0,2})$')
);

COMMENT ON TABLE dispatcher.price IS 'What a segment costs, as the operator''s contract says.';
COMMENT ON COLUMN dispatcher.price.country IS
    'Country of the number, as core.country names it.';
COMMENT ON COLUMN dispatcher.price.price IS 'Price of one segment.';
COMMENT ON COLUMN dispatcher.price.currency IS 'Its currency.';

-- Progress of longer work ---------------------------------------------------------------------------

CREATE TABLE dispatcher.file_import (
    digest text NOT NULL PRIMARY KEY,
    name text NOT NULL,
    campaign text,
    lines bigint NOT NULL DEFAULT 0,
    imported bigint NOT NULL DEFAULT 0,
    imported_lines bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    left_out bigint NOT NULL DEFAULT 0,
    first_id bigint NOT NULL,
    last_id bigint,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);

COMMENT ON TABLE dispatcher.file_import IS
    'How far the import of a file has come. Written in the transaction of each COPY, so it is exact.';
COMMENT ON COLUMN dispatcher.file_import.digest IS
    'SHA-256 of the file''s content, and of what the command said of its messages. Once the file is'
    ' loaded anew, with the time after it.';
COMMENT ON COLUMN dispatcher.file_import.name IS 'Name of the file.';
COMMENT ON COLUMN dispatcher.file_import.campaign IS 'The campaign of its messages.';
COMMENT ON COLUMN dispatcher.file_import.lines IS 'Number of the last line that is done.';
COMMENT ON COLUMN dispatcher.file_import.imported IS 'Messages that were inserted.';
COMMENT ON COLUMN dispatcher.file_import.imported_lines IS 'Lines on which they stand.';
COMMENT ON COLUMN dispatcher.file_import.rejected IS 'Lines that were rejected.';
COMMENT ON COLUMN dispatcher.file_import.left_out IS 'Lines that were left out as the user wished.';
COMMENT ON COLUMN dispatcher.file_import.first_id IS 'The messages have ids from here on.';
COMMENT ON COLUMN dispatcher.file_import.last_id IS 'The messages have ids up to here.';
COMMENT ON COLUMN dispatcher.file_import.started_at IS 'When it started.';
COMMENT ON COLUMN dispatcher.file_import.finished_at IS 'When the whole file was imported.';

CREATE TABLE dispatcher.message_action (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    action text NOT NULL,
    filter text NOT NULL,
    address text NOT NULL,
    counts jsonb NOT NULL,
    messages integer NOT NULL,
    targets bigint[] NOT NULL,
    complete boolean NOT NULL DEFAULT true,
    position integer NOT NULL DEFAULT 0,
    changed integer NOT NULL DEFAULT 0,
    started_at timestamptz,
    started_by text,
    finished_at timestamptz,
    ended_early boolean NOT NULL DEFAULT false,
    CONSTRAINT message_action_is_known CHECK (
        action IN ('cancel', 'requeue', 'suppress', 'settle-sent', 'settle-resend'))
);

COMMENT ON TABLE dispatcher.message_action IS
    'Actions of operators on many messages, done in steps. Its targets are chosen once, at the'
    ' preview: so what was confirmed is what is done.';
COMMENT ON COLUMN dispatcher.message_action.id IS 'The order in which they were previewed.';
COMMENT ON COLUMN dispatcher.message_action.created_at IS 'When it was previewed.';
COMMENT ON COLUMN dispatcher.message_action.created_by IS 'Who asked for the preview.';
COMMENT ON COLUMN dispatcher.message_action.action IS 'What is done.';
COMMENT ON COLUMN dispatcher.message_action.filter IS 'What chose the messages, in words; no number.';
COMMENT ON COLUMN dispatcher.message_action.address IS 'The same as the console''s address has it.';
COMMENT ON COLUMN dispatcher.message_action.counts IS
    'The preview: app, state, why it is left alone (null: it is not), and how many.';
COMMENT ON COLUMN dispatcher.message_action.messages IS 'How many messages it is for.';
COMMENT ON COLUMN dispatcher.message_action.targets IS 'The messages; of a settlement the batches.';
COMMENT ON COLUMN dispatcher.message_action.complete IS
    'Whether all messages that fit the filter were found: a preview takes at most 100,000 and 20 s.';
COMMENT ON COLUMN dispatcher.message_action.position IS 'How many targets are done.';
COMMENT ON COLUMN dispatcher.message_action.changed IS
    'How many messages (of suppress: numbers) it changed so far.';
COMMENT ON COLUMN dispatcher.message_action.started_at IS 'When it was confirmed.';
COMMENT ON COLUMN dispatcher.message_action.started_by IS 'Who confirmed it.';
COMMENT ON COLUMN dispatcher.message_action.finished_at IS
    'When the last step was done, or it was ended early.';
COMMENT ON COLUMN dispatcher.message_action.ended_early IS
    'Whether a worker ended it before its last step: it was started before the database was restored,'
    ' or before no worker was here for long.';

CREATE TABLE dispatcher.file_import_rejection (
    digest text NOT NULL
        REFERENCES dispatcher.file_import (digest) ON DELETE CASCADE ON UPDATE CASCADE,
    line bigint NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (digest, line)
);

COMMENT ON TABLE dispatcher.file_import_rejection IS
    'Lines that were rejected, so that an import that continues can write its file of rejects anew.';
COMMENT ON COLUMN dispatcher.file_import_rejection.digest IS 'The import.';
COMMENT ON COLUMN dispatcher.file_import_rejection.line IS 'Number of the line in the file.';
COMMENT ON COLUMN dispatcher.file_import_rejection.reason IS 'Why; it holds nothing of the line.';

CREATE TABLE dispatcher.maintenance_progress (
    task text NOT NULL,
    partition bigint NOT NULL DEFAULT 0,
    position bigint NOT NULL,
    PRIMARY KEY (task, partition)
);

COMMENT ON TABLE dispatcher.maintenance_progress IS
    'How far each task of maintenance has come; see 0004_maintenance.sql.';
COMMENT ON COLUMN dispatcher.maintenance_progress.task IS
    'drop, wipe, wipe-again, expire or expire-returned.';
COMMENT ON COLUMN dispatcher.maintenance_progress.partition IS
    'First id of the partition that is dropped; 0: of all.';
COMMENT ON COLUMN dispatcher.maintenance_progress.position IS
    'Id of the message that comes next (drop) or was last (wipe, expire-returned), or the second up to'
    ' which messages have expired (expire). Two below the partition: its drop began;'
    ' one below: no requeue is open that has not seen this row.';

CREATE TABLE dispatcher.pending_wipe (message_id bigint NOT NULL PRIMARY KEY);

COMMENT ON TABLE dispatcher.pending_wipe IS
    'Messages whose variables could not be wiped in their turn: they were not finished yet.';
COMMENT ON COLUMN dispatcher.pending_wipe.message_id IS 'The message.';

CREATE TABLE dispatcher.list_upload (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    loaded_by text,
    asked_at timestamptz,
    name text NOT NULL,
    options jsonb NOT NULL,
    bytes bigint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'uploading',
    progress double precision NOT NULL DEFAULT 0,
    worked_at timestamptz,
    tries integer NOT NULL DEFAULT 0,
    result jsonb,
    error text,
    rejects bytea,
    CONSTRAINT list_state_is_known CHECK (
        state IN ('uploading', 'checking', 'checked', 'loading', 'loaded', 'failed'))
);

COMMENT ON TABLE dispatcher.list_upload IS
    'Lists that operators uploaded in the console, kept for a day.';
COMMENT ON COLUMN dispatcher.list_upload.id IS 'Its page names it.';
COMMENT ON COLUMN dispatcher.list_upload.created_at IS 'When it was uploaded.';
COMMENT ON COLUMN dispatcher.list_upload.created_by IS 'Who uploaded it.';
COMMENT ON COLUMN dispatcher.list_upload.loaded_by IS 'Who asked for its load; null: nobody.';
COMMENT ON COLUMN dispatcher.list_upload.asked_at IS
    'When. A load of this file that began since is this one, cut off: it is never begun twice.';
COMMENT ON COLUMN dispatcher.list_upload.name IS 'Name of the file.';
COMMENT ON COLUMN dispatcher.list_upload.options IS 'How it is read and loaded.';
COMMENT ON COLUMN dispatcher.list_upload.bytes IS 'Its length.';
COMMENT ON COLUMN dispatcher.list_upload.state IS
    'uploading, checking, checked, loading, loaded, or failed.';
COMMENT ON COLUMN dispatcher.list_upload.progress IS 'Of checking or loading, 0 to 1.';
COMMENT ON COLUMN dispatcher.list_upload.worked_at IS
    'When a process last showed progress; null: none works on it.';
COMMENT ON COLUMN dispatcher.list_upload.tries IS
    'Processes that began the check or the load: after 3 that died it fails.';
COMMENT ON COLUMN dispatcher.list_upload.result IS 'What the last check or load gave.';
COMMENT ON COLUMN dispatcher.list_upload.error IS 'Why it failed.';
COMMENT ON COLUMN dispatcher.list_upload.rejects IS 'The lines that were refused, as CSV.';

CREATE TABLE dispatcher.list_upload_part (
    upload bigint NOT NULL REFERENCES dispatcher.list_upload (id) ON DELETE CASCADE,
    part integer NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (upload, part)
);

COMMENT ON TABLE dispatcher.list_upload_part IS
    'The content of an uploaded list in parts of a megabyte, until it is loaded.';
COMMENT ON COLUMN dispatcher.list_upload_part.upload IS 'The list.';
COMMENT ON COLUMN dispatcher.list_upload_part.part IS 'The place of the part, from 0.';
COMMENT ON COLUMN dispatcher.list_upload_part.content IS 'The bytes.';

CREATE TABLE dispatcher.console_token (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL,
    digest bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    CONSTRAINT console_role_is_known CHECK (role IN ('see', 'act', 'rules'))
);

CREATE UNIQUE INDEX console_token_name ON dispatcher.console_token (name) WHERE revoked_at IS NULL;

COMMENT ON TABLE dispatcher.console_token IS
    'Tokens of operators for the console, beside DISPATCHER_CONSOLE_TOKEN.';
COMMENT ON COLUMN dispatcher.console_token.id IS 'Sessions name it.';
COMMENT ON COLUMN dispatcher.console_token.name IS 'The operator, as the audit has it.';
COMMENT ON COLUMN dispatcher.console_token.role IS
    'see; act (also on messages, campaigns and apps); rules (all).';
COMMENT ON COLUMN dispatcher.console_token.digest IS 'SHA-256 of the token, which is not stored.';
COMMENT ON COLUMN dispatcher.console_token.created_at IS 'When it was made.';
COMMENT ON COLUMN dispatcher.console_token.created_by IS 'Who made it.';
COMMENT ON COLUMN dispatcher.console_token.used_at IS 'The last login with it.';
COMMENT ON COLUMN dispatcher.console_token.revoked_at IS 'When it was revoked.';
COMMENT ON COLUMN dispatcher.console_token.revoked_by IS 'Who revoked it.';

-- migrate:down

-- Everything is dropped but the table of the migrations.
ALTER SCHEMA dispatcher RENAME TO dispatcher_dropped;
CREATE SCHEMA dispatcher;
ALTER TABLE dispatcher_dropped.schema_migrations SET SCHEMA dispatcher;
DROP SCHEMA dispatcher_dropped CASCADE;
