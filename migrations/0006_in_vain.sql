-- What operators may say so that nothing is sent in vain, too often or by night. All optional.

-- migrate:up

-- What variables a template takes; kinds as the provider names them (NUM_6, TXT_20, DATE ...).
CREATE TABLE dispatcher.template (
    template_id text NOT NULL PRIMARY KEY,
    kinds text[] NOT NULL,
    note text NOT NULL DEFAULT '',
    added_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT template_id_has_1_to_32_characters CHECK (length(template_id) BETWEEN 1 AND 32),
    CONSTRAINT template_has_at_most_20_variables CHECK (cardinality(kinds) <= 20)
);

-- Numbers never to send to, in canonical form (a mainland number with +86).
CREATE TABLE dispatcher.suppression (
    recipient text NOT NULL PRIMARY KEY,
    reason text NOT NULL DEFAULT '',
    source text NOT NULL DEFAULT 'operator',
    added_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT suppressed_number_is_plus_and_digits CHECK (recipient ~ '^[+][0-9]{5,20}$')
);

-- What an app allows itself; null: no limit.
CREATE TABLE dispatcher.app_limit (
    app text NOT NULL PRIMARY KEY,
    per_minute integer,
    per_day integer,
    same_per_minute integer,
    same_per_hour integer,
    ceiling bigint,
    quiet_from time,
    quiet_until time,
    CONSTRAINT limits_are_positive CHECK (
        least(per_minute, per_day, same_per_minute, same_per_hour, ceiling) > 0),
    CONSTRAINT quiet_hours_have_both_ends CHECK ((quiet_from IS NULL) = (quiet_until IS NULL))
);

-- What numbers were sent lately, for apps with limits by number; the key keeps a message that is
-- claimed twice from counting twice. text is a digest. Kept for a day.
CREATE TABLE dispatcher.sent_to (
    message_id bigint NOT NULL PRIMARY KEY,
    app text NOT NULL,
    recipient text NOT NULL,
    text bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX sent_to_number ON dispatcher.sent_to (recipient, app, at);
CREATE INDEX sent_to_at ON dispatcher.sent_to (at);

INSERT INTO dispatcher.role_right (role, may, on_what)
SELECT 'dispatcher_worker', 'SELECT, INSERT, UPDATE, DELETE', 'dispatcher.' || name
FROM unnest(ARRAY['template', 'suppression', 'app_limit', 'sent_to']) AS name
UNION ALL
SELECT 'dispatcher_reader', 'SELECT', 'dispatcher.' || name
FROM unnest(ARRAY['template', 'suppression', 'app_limit']) AS name;
SELECT dispatcher.make_roles();

-- migrate:down

DROP TABLE dispatcher.template, dispatcher.suppression, dispatcher.app_limit, dispatcher.sent_to;
DELETE FROM dispatcher.role_right
WHERE split_part(on_what, '.', 2) IN ('template', 'suppression', 'app_limit', 'sent_to');
