-- What a segment costs, as the operator's contract says; and the text of templates, to count them.

-- migrate:up

CREATE TABLE dispatcher.price (
    country text NOT NULL PRIMARY KEY,
    price numeric NOT NULL,
    currency text NOT NULL DEFAULT '',
    CONSTRAINT price_is_not_negative CHECK (price >= 0)
);

ALTER TABLE dispatcher.template ADD COLUMN text text;

INSERT INTO dispatcher.role_right (role, may, on_what) VALUES
    ('dispatcher_worker', 'SELECT, INSERT, UPDATE, DELETE', 'dispatcher.price'),
    ('dispatcher_reader', 'SELECT', 'dispatcher.price');
SELECT dispatcher.make_roles();

-- migrate:down

ALTER TABLE dispatcher.template DROP COLUMN text;
DROP TABLE dispatcher.price;
DELETE FROM dispatcher.role_right WHERE on_what = 'dispatcher.price';
